"""Static files: what is served, backpressure, and no access outside of the directory."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quicedge.config import limits
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.message import Field, Request, Response
from quicedge.shares import Client
from quicedge.upstream.base import OriginStream, UpstreamError
from quicedge.upstream.files import Directory, IsDirectory, NotServed
from quicedge.upstream.static import StaticUpstream
from tests.support.origins import eventually

SECRET = b"outside the root"


class Answer:
    """A response handler that notes everything; pauses after `pause_at` bytes."""

    def __init__(self, pause_at: int | None = None) -> None:
        self.head = Response(0)
        self.body = b""
        self.error: UpstreamError | None = None
        self.done = asyncio.Event()
        self.pause_at = pause_at
        self.stream: OriginStream

    def informational(self, response: Response) -> None:
        raise AssertionError("files have nothing to say first")

    def response(self, response: Response) -> None:
        assert not self.head.status
        self.head = response

    def data(self, data: bytes) -> None:
        assert not self.done.is_set()
        self.body += data
        if self.pause_at is not None and len(self.body) >= self.pause_at:
            self.stream.pause()

    def end(self, trailers: Sequence[Field]) -> None:
        self.done.set()

    def failed(self, error: UpstreamError) -> None:
        self.error = error
        self.done.set()

    def pause_request(self) -> None: ...

    def resume_request(self) -> None: ...

    def __getitem__(self, name: str) -> str:
        return dict(self.head.fields)[name.encode()].decode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "www"
    (root / "docs" / "deep").mkdir(parents=True)
    (root / "index.html").write_bytes(b"<h1>home</h1>")
    (root / "docs" / "index.html").write_bytes(b"docs")
    (root / "docs" / "a b.txt").write_bytes(b"spaced")
    (root / "empty").write_bytes(b"")
    (root / ".env").write_bytes(SECRET)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_bytes(SECRET)
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "wwwx").mkdir()
    (tmp_path / "wwwx" / "secret").write_bytes(SECRET)
    (root / "inside").symlink_to("docs/index.html")
    (root / "docs" / "up").symlink_to("../index.html")
    (root / "docs" / "deep" / "out").symlink_to("../../../secret")
    (root / "out").symlink_to("../secret")
    (root / "outdir").symlink_to("..")
    (root / "absolute").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    old = time.time() - 1000
    for path in (root / "index.html", root / "docs" / "index.html", root / "docs" / "a b.txt"):
        os.utime(path, (old, old))
    return root


def start(
    upstream: StaticUpstream,
    path: str,
    *fields: tuple[str, str],
    method: str = "GET",
    pause_at: int | None = None,
    client: Client | None = None,
    original: str | None = None,
) -> Answer:
    answer = Answer(pause_at)
    lines = [(name.encode(), value.encode()) for name, value in fields]
    request = Request(method.encode(), b"https", b"x", path.encode(), lines, ended=True)
    request.original_path = None if original is None else original.encode()
    answer.stream = upstream.open(request, answer, client)
    assert not answer.head.status
    assert not answer.done.is_set()
    return answer


async def get(root: Path, path: str, *fields: tuple[str, str], method: str = "GET") -> Answer:
    upstream = StaticUpstream("www", UpstreamConfig(root=str(root)))
    answer = start(upstream, path, *fields, method=method)
    await asyncio.wait_for(answer.done.wait(), 10)
    assert not upstream.running
    assert not upstream.open_files
    await upstream.close()
    return answer


async def test_a_file_and_what_is_said_of_it(root: Path) -> None:
    answer = await get(root, "/docs/a%20b.txt?query=ignored")
    assert (answer.head.status, answer.body) == (200, b"spaced")
    assert answer["content-type"] == "text/plain; charset=utf-8"
    assert answer["content-length"] == "6"
    assert answer["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/", 200, b"<h1>home</h1>"),
        ("/docs/", 200, b"docs"),
        ("//docs//", 200, b"docs"),
        ("/inside", 200, b"docs"),
        ("/docs/up", 200, b"<h1>home</h1>"),
        ("/empty", 200, b""),
        ("/nothing", 404, b"404 Not Found\n"),
        ("/docs/deep/", 404, b"404 Not Found\n"),
        ("/index.html/", 404, b"404 Not Found\n"),
        ("/index.html/x", 404, b"404 Not Found\n"),
        ("/fifo", 404, b"404 Not Found\n"),
        ("/loop", 404, b"404 Not Found\n"),
        ("/" + "x" * 5000, 404, b"404 Not Found\n"),
        ("/a%00b", 404, b"404 Not Found\n"),
    ],
)  # fmt: skip
async def test_paths(root: Path, path: str, status: int, body: bytes) -> None:
    answer = await get(root, path)
    assert (answer.head.status, answer.body) == (status, body)


@pytest.mark.parametrize(
    "path",
    [
        "/../secret", "/%2e%2e/secret", "/docs/../../secret", "/..%2fsecret", "/.env",
        "/.git/config", "/%2eenv", "/out", "/outdir/secret", "/absolute", "/docs/deep/out",
        "/outdir/wwwx/secret", "//../secret", "/docs/%2e./%2e./secret",
    ],
)  # fmt: skip
async def test_nothing_outside_is_served(root: Path, path: str) -> None:
    answer = await get(root, path)
    assert answer.head.status == 404
    assert SECRET not in answer.body


async def test_a_directory_is_asked_for_by_its_slash(root: Path) -> None:
    answer = await get(root, "//docs")
    assert answer.head.status == 301
    assert answer["location"] == "/docs/", "browsers would take `//docs/` for a host"


@pytest.mark.parametrize("target", ["../secret", "../wwwx", "fifo", None])
@pytest.mark.parametrize("swapped", [b"docs", b"deep", b"file"])
def test_what_changes_between_look_and_open_leads_nowhere(
    root: Path, monkeypatch: pytest.MonkeyPatch, swapped: bytes, target: str | None
) -> None:
    """Whoever may write below the root swaps a name, once it was looked at, for a link outside, a
    FIFO without a writer, or nothing."""
    (root / "docs" / "deep" / "file").write_bytes(b"file")
    look = os.stat

    def look_then_swap(name: Any, **options: Any) -> os.stat_result:
        status = look(name, **options)
        if name == swapped:
            here = Path(os.readlink(f"/proc/self/fd/{options['dir_fd']}"))
            found = here / os.fsdecode(name)
            found.rename(here / ".seen")
            if target == "fifo":
                os.mkfifo(found)
            elif target is not None:
                found.symlink_to(os.path.relpath(root / target, here))
        return status

    before = len(os.listdir("/proc/self/fd"))
    directory = Directory(str(root))
    monkeypatch.setattr(os, "stat", look_then_swap)
    with pytest.raises(NotServed):
        directory.open(b"/docs/deep/file")
    directory.close()
    assert len(os.listdir("/proc/self/fd")) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            ["..", ".", "docs", "deep", "out", "outdir", "secret", "wwwx", "www", "absolute", "up",
             "inside", "%2e%2e", "%2E.", "..%2f", "%2f", "", ".git", "config", "loop", "%00",
             "index.html", "\\..", "%5c.."]
        ),
        max_size=8,
    ),
    st.binary(max_size=6),
)  # fmt: skip
def test_no_path_escapes(root: Path, parts: list[str], noise: bytes) -> None:
    before = len(os.listdir("/proc/self/fd"))
    directory = Directory(str(root))
    try:
        for path in (
            b"/" + "/".join(parts).encode(),
            b"/".join((b"", noise, parts[0].encode() if parts else b"")),
        ):
            try:
                file = directory.open(path)
            except (NotServed, IsDirectory):
                continue
            content = os.read(file.descriptor, 100)
            where = os.path.realpath(f"/proc/self/fd/{file.descriptor}")
            os.close(file.descriptor)
            assert content != SECRET
            assert where.startswith(f"{os.path.realpath(root)}/")
    finally:
        directory.close()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_conditions(root: Path) -> None:
    first = await get(root, "/")
    etag, modified = first["etag"], first["last-modified"]
    assert not etag.startswith("W/")
    later = "Fri, 01 Jan 2100 00:00:00 GMT"
    earlier = "Mon, 01 Jan 2001 00:00:00 GMT"
    for fields, status in (
        ([("if-none-match", etag)], 304),
        ([("if-none-match", f'"x", W/{etag}')], 304),
        ([("if-none-match", "*")], 304),
        ([("if-none-match", '"x"')], 200),
        ([("if-none-match", '"x"'), ("if-modified-since", later)], 200),
        ([("if-modified-since", modified)], 304),
        ([("if-modified-since", earlier)], 200),
        ([("if-modified-since", "yesterday")], 200),
        ([("if-match", etag)], 200),
        ([("if-match", f"W/{etag}")], 412),
        ([("if-match", '"x"')], 412),
        ([("if-unmodified-since", earlier)], 412),
        ([("if-unmodified-since", later)], 200),
    ):
        answer = await get(root, "/", *fields)
        assert answer.head.status == status, fields
        if status == 304:
            assert answer["etag"] == etag
            assert answer.body == b""


async def test_ranges(root: Path) -> None:
    first = await get(root, "/")
    etag, modified, whole = first["etag"], first["last-modified"], first.body
    size = len(whole)
    for value, part in (
        ("bytes=0-0", slice(0, 1)),
        ("bytes=4-", slice(4, size)),
        ("bytes=-3", slice(size - 3, size)),
        ("bytes=-999", slice(0, size)),
        ("bytes=2-999", slice(2, size)),
    ):
        answer = await get(root, "/", ("range", value))
        assert (answer.head.status, answer.body) == (206, whole[part])
        assert answer["content-range"] == f"bytes {part.start}-{part.stop - 1}/{size}"
        assert answer["content-length"] == str(len(answer.body))
    for value in ("bytes=0-1,3-4", "bytes=5-2", "lines=1-2", "bytes=", "bytes=-", "bytes=x-1"):
        answer = await get(root, "/", ("range", value))
        assert (answer.head.status, answer.body) == (200, whole), value
    for value in (f"bytes={size}-", "bytes=-0", "bytes=99-100"):
        answer = await get(root, "/", ("range", value))
        assert answer.head.status == 416
        assert answer["content-range"] == f"bytes */{size}"
    for validator, status in ((etag, 206), (f"W/{etag}", 200), (modified, 206), ('"x"', 200)):
        answer = await get(root, "/", ("range", "bytes=1-2"), ("if-range", validator))
        assert answer.head.status == status
    answer = await get(root, "/", ("range", "bytes=1-2"), method="HEAD")
    assert (answer.head.status, answer.body) == (200, b"")


async def test_a_file_just_written_has_no_strong_validator(root: Path) -> None:
    (root / "new").write_bytes(b"new")
    answer = await get(root, "/new")
    assert answer["etag"].startswith("W/")
    answer = await get(root, "/new", ("range", "bytes=1-"), ("if-range", answer["etag"]))
    assert answer.head.status == 200


async def test_head_and_other_methods(root: Path) -> None:
    answer = await get(root, "/", method="HEAD")
    assert (answer.head.status, answer["content-length"], answer.body) == (200, "13", b"")
    answer = await get(root, "/", method="DELETE")
    assert (answer.head.status, answer["allow"]) == (405, "GET, HEAD, OPTIONS")
    answer = await get(root, "/", method="OPTIONS")
    assert (answer.head.status, answer["allow"], answer.body) == (204, "GET, HEAD, OPTIONS", b"")
    assert (root / "index.html").exists()


async def test_reading_stops_while_the_client_does_not_keep_up(root: Path) -> None:
    content = os.urandom(10 * limits.STATIC_READ_SIZE + 7)
    (root / "large").write_bytes(content)
    upstream = StaticUpstream("www", UpstreamConfig(root=str(root)))
    answer = start(upstream, "/large", pause_at=2 * limits.STATIC_READ_SIZE)
    while len(answer.body) < 2 * limits.STATIC_READ_SIZE:
        await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(answer.body) == 2 * limits.STATIC_READ_SIZE
    answer.pause_at = None
    answer.stream.resume()
    answer.stream.resume()
    await asyncio.wait_for(answer.done.wait(), 10)
    assert answer.body == content
    await upstream.close()


async def test_a_client_that_goes_away_leaves_nothing_open(root: Path) -> None:
    (root / "large").write_bytes(bytes(4 * limits.STATIC_READ_SIZE))
    upstream = StaticUpstream("www", UpstreamConfig(root=str(root)))
    answer = start(upstream, "/large", pause_at=1)
    while not answer.body:
        await asyncio.sleep(0)
    assert upstream.open_files == 1
    answer.stream.abort()
    assert not upstream.open_files
    assert not upstream.running
    early = start(upstream, "/large")
    early.stream.abort()
    await asyncio.sleep(0)
    assert not early.head.status
    assert not upstream.open_files
    await upstream.close()


async def test_a_file_cut_short_fails_and_does_not_end(root: Path) -> None:
    (root / "large").write_bytes(bytes(4 * limits.STATIC_READ_SIZE))
    upstream = StaticUpstream("www", UpstreamConfig(root=str(root)))
    answer = start(upstream, "/large", pause_at=1)
    while not answer.body:
        await asyncio.sleep(0)
    (root / "large").write_bytes(b"")
    answer.pause_at = None
    answer.stream.resume()
    await asyncio.wait_for(answer.done.wait(), 10)
    assert answer.error is not None
    assert answer.error.kind == "reset"
    await upstream.close()


async def test_requests_beyond_the_open_files_wait(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STATIC_MAX_OPEN", 2)
    (root / "large").write_bytes(bytes(4 * limits.STATIC_READ_SIZE))
    upstream = StaticUpstream("www", UpstreamConfig(root=str(root)))
    running = [start(upstream, "/large", pause_at=1) for _ in range(2)]
    await eventually(lambda: upstream.open_files == 2)
    waiting = start(upstream, "/index.html")
    running[0].stream.abort()
    await asyncio.wait_for(waiting.done.wait(), 10)
    assert waiting.head.status == 200
    await upstream.close()
    assert running[1].error is not None
    assert not upstream.open_files


async def test_waiting_for_an_open_file_has_an_end(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STATIC_MAX_OPEN", 1)
    monkeypatch.setattr(limits, "UPSTREAM_QUEUE_TIMEOUT", 0.01)
    (root / "large").write_bytes(bytes(4 * limits.STATIC_READ_SIZE))
    upstream = StaticUpstream("www", UpstreamConfig(root=str(root)))
    start(upstream, "/large", pause_at=1)
    late = start(upstream, "/index.html")
    await asyncio.wait_for(late.done.wait(), 10)
    assert late.error is not None
    assert late.error.kind == "overloaded"
    await upstream.close()


async def test_a_client_that_holds_files_open_leaves_some_to_others(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STATIC_MAX_OPEN", 9)
    (root / "large").write_bytes(bytes(4 * limits.STATIC_READ_SIZE))
    upstream = StaticUpstream("www", UpstreamConfig(root=str(root)))
    greedy, honest = Client(b"\xc0\0\2\1", b"\xc0\0\2"), Client(b"\xc6\x33\x64\1", b"\xc6\x33\x64")
    held = [start(upstream, "/large", pause_at=1, client=greedy) for _ in range(50)]
    await eventually(lambda: upstream.open_files == 6)
    answer = start(upstream, "/index.html", client=honest)
    await asyncio.wait_for(answer.done.wait(), 10)
    assert answer.head.status == 200
    assert upstream.open_files == 6
    # Its own requests that wait get the place of one whose reader is stalled.
    held[0].stream.stalled = True
    upstream.reclaim()
    await asyncio.wait_for(held[0].done.wait(), 10)
    assert held[0].error is not None
    assert held[0].error.kind == "stalled"
    await eventually(lambda: upstream.open_files == 6)
    await upstream.close()
    assert not upstream.open_files


def test_a_root_that_is_not_there_is_named(root: Path) -> None:
    config = UpstreamConfig(root=str(root / "missing"))
    with pytest.raises(ValueError, match=r"upstreams\.www\.root: .*No such file"):
        StaticUpstream("www", config, loop=asyncio.new_event_loop())
