"""Upstreams against origins that nobody here wrote: nginx, Caddy, hypercorn."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from quicedge.http.message import Request
from quicedge.upstream.group import Upstream
from tests.support.certs import write_certificate
from tests.support.client_info import StubClient
from tests.support.origins import Recorder, config_of, fetch, send, upstream
from tests.support.peers import answers, caddy, free_port, nginx, process, wait_until

BIG = 8 * 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "www"
    directory.mkdir()
    (directory / "small").write_text("hello")
    (directory / "big").write_bytes(os.urandom(BIG))
    return directory


def ask(
    url: str, path: str, method: str = "GET", *, body: bool = False, length: int | None = None
) -> Request:
    authority = url.split("://")[-1].encode()
    return Request(method.encode(), b"https", authority, path.encode(), [], length, ended=not body)


async def read_files(group: Upstream, url: str, root: Path) -> None:
    """Small and large files, some at a time, HEAD, a range of conditions."""
    recorders = [send(group, ask(url, "/small"))[1] for _ in range(20)]
    for recorder in recorders:
        await recorder.over()
        assert (recorder.status, bytes(recorder.body)) == (200, b"hello")
    digest = hashlib.sha256((root / "big").read_bytes()).digest()
    recorders = [send(group, ask(url, "/big"))[1] for _ in range(3)]
    for recorder in recorders:
        await recorder.over()
        assert hashlib.sha256(recorder.body).digest() == digest
    head = await fetch(group, ask(url, "/big", "HEAD"))
    assert head.events == ["response", "end"]
    assert head.head is not None
    assert (b"content-length", b"%d" % BIG) in head.head.fields
    etag = dict(head.head.fields)[b"etag"]
    conditional = ask(url, "/big")
    conditional.fields.append((b"if-none-match", etag))
    unchanged = await fetch(group, conditional)
    assert (unchanged.status, unchanged.events) == (304, ["response", "end"])
    assert (await fetch(group, ask(url, "/absent"))).status == 404


async def pause_and_resume(group: Upstream, url: str, root: Path) -> None:
    recorder = Recorder()
    stream = group.open(ask(url, "/big"), recorder)
    seen = 0
    while not recorder.is_over:
        stream.pause()
        stream.resume()
        seen = len(recorder.body)
        await recorder.until(lambda seen=seen: recorder.is_over or len(recorder.body) > seen)  # type: ignore[misc]
    assert bytes(recorder.body) == (root / "big").read_bytes()


async def test_nginx(tmp_path: Path, root: Path) -> None:
    with nginx(tmp_path, root) as url:
        async with upstream(url) as group:
            await read_files(group, url, root)
            await pause_and_resume(group, url, root)
            (stats,) = group.stats().values()
            assert (stats["failures"], stats["active"], stats["waiting"]) == (0, 0, 0)
            before = stats["open"]
            for _ in range(200):
                assert (await fetch(group, ask(url, "/small"))).status == 200
            (stats,) = group.stats().values()
            assert stats["open"] == before  # all of them on connections that were there


@pytest.mark.parametrize("version", [1, 2])
async def test_nginx_learns_clients_from_the_proxy_protocol(
    tmp_path: Path, root: Path, version: int
) -> None:
    port = free_port()
    locations = f"""
        listen 127.0.0.1:{port} proxy_protocol;
        location /client {{
          return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr";
        }}
    """
    with nginx(tmp_path, root, locations):
        url = f"http://127.0.0.1:{port}"
        async with upstream(url, proxy_protocol=version) as group:
            for host, local in (("192.0.2.1", "198.51.100.1"), ("2001:db8::7", "2001:db8::1")):
                client = StubClient(address=(host, 5000), local_address=(local, 443))
                for _ in range(3):
                    recorder = Recorder()
                    group.open(ask(url, "/client"), recorder, client.share, client)
                    answer = await recorder.over()
                    assert (answer.status, answer.body.decode()) == (200, f"{host} 5000 {local}")
            assert (await fetch(group, ask(url, "/small"))).body == b"hello"
            (stats,) = group.stats().values()
            assert (stats["open"], stats["failures"]) == (3, 0)


async def test_nginx_refuses_a_large_body_early_and_goes_on(tmp_path: Path, root: Path) -> None:
    limited = "location /limited { client_max_body_size 1k; }"
    with nginx(tmp_path, root, limited) as url:
        async with upstream(url) as group:
            body = bytes(100_000)
            recorder = await fetch(
                group, ask(url, "/limited", "POST", body=True, length=len(body)), body
            )
            assert (recorder.status, recorder.events[-1]) == (413, "end")
            assert (await fetch(group, ask(url, "/small"))).status == 200


async def test_nginx_restarted_under_idle_connections(tmp_path: Path, root: Path) -> None:
    """Every request after a restart succeeds, though the pool is stale."""
    with nginx(tmp_path, root) as url:
        group = Upstream("test", config_of(url))
        for recorder in [send(group, ask(url, "/small"))[1] for _ in range(8)]:
            await recorder.over()
    again = tmp_path / "again"
    again.mkdir()
    port = int(url.rsplit(":", 1)[1])
    with nginx_on(again, root, port):
        for method in ("GET", "POST", "GET", "POST"):
            recorder = await fetch(group, ask(url, "/small", method))
            assert recorder.status == (200 if method == "GET" else 405)
    await group.close()


@contextmanager
def nginx_on(directory: Path, root: Path, port: int) -> Iterator[str]:
    """nginx on a port of our choice."""
    fixed = mock.patch("tests.support.peers.free_port", return_value=port)
    with fixed, nginx(directory, root) as url:
        yield url


@pytest.mark.parametrize("tls", [False, True], ids=["h2c", "tls"])
async def test_caddy(tmp_path: Path, root: Path, tls: bool) -> None:
    certificate = write_certificate(tmp_path, "localhost") if tls else None
    options = {"tls_ca": str(certificate[0])} if certificate else {"protocol": "h2"}
    with caddy(tmp_path, root, tls=certificate) as url:
        async with upstream(url, **options) as group:
            told = await fetch(group, ask(url, "/protocol"))
            assert bytes(told.body) == b"HTTP/2.0"
            await read_files(group, url, root)
            await pause_and_resume(group, url, root)
            (stats,) = group.stats().values()
            assert (stats["open"], stats["failures"]) == (1, 0)


APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    version = scope["http_version"].encode()
    headers = [(b"content-type", b"application/octet-stream"), (b"x-version", version)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    body = {"type": "http.response.body", "more_body": True}
    more = True
    while more:
        event = await receive()
        more = event.get("more_body", False)
        await send({**body, "body": event.get("body", b"")})
    await send({**body, "body": b"", "more_body": False})
"""


@pytest.fixture
def hypercorn(tmp_path: Path) -> Iterator[int]:
    """hypercorn with an application that echoes as it reads; yields its port."""
    (tmp_path / "echo_app.py").write_text(APPLICATION)
    port = free_port(socket.SOCK_STREAM)
    command = [
        sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", "echo_app:app",
    ]  # fmt: skip
    with process(command, tmp_path / "hypercorn.log", cwd=tmp_path):
        wait_until(lambda: answers(port), "hypercorn")
        yield port


@pytest.mark.parametrize(("protocol", "version"), [("http/1.1", b"1.1"), ("h2", b"2")])
async def test_hypercorn_echoes_while_it_reads(
    hypercorn: int, protocol: str, version: bytes
) -> None:
    url = f"http://127.0.0.1:{hypercorn}"
    async with upstream(url, protocol=protocol) as group:
        recorder = Recorder()
        stream = group.open(ask(url, "/", "POST", body=True), recorder)
        total = 0
        for number in range(50):
            piece = bytes([number]) * 10_000
            stream.write(piece)
            total += len(piece)
            await recorder.until(lambda total=total: len(recorder.body) == total)  # type: ignore[misc]
        stream.end()
        await recorder.over()
        assert recorder.events[-1] == "end", recorder.error
        assert recorder.head is not None
        assert (b"x-version", version) in recorder.head.fields
        assert bytes(recorder.body) == b"".join(bytes([n]) * 10_000 for n in range(50))
        declared = await fetch(group, ask(url, "/", "PUT", body=True, length=5), b"hello")
        assert bytes(declared.body) == b"hello"
        (stats,) = group.stats().values()
        assert (stats["open"], stats["failures"]) == (1, 0)
