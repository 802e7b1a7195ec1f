"""Static sites: indexes, listings, fallbacks, clean URLs, precompressed files, caching."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from quicedge.config.filterlimits import STATIC_LISTED
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.upstream.static import StaticUpstream
from tests.unit.upstream.test_static import Answer, start


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "www"
    files = {
        "index.html": b"home", "about.html": b"about us", "404.html": b"<p>lost",
        "app.js": b"let x;", "docs/index.html": b"docs", "docs/index.htm": b"old docs",
        "docs/a.html": b"a", "files/b.txt": b"bb", "files/<b>&.txt": b"b", "files/.hidden": b"x",
        "files/sub/x": b"x", "model.glb": b"glb", "files.html/x": b"x",
    }  # fmt: skip
    old = time.time() - 1000
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (old, old))
    return root


async def get(
    root: Path, path: str, *fields: tuple[str, str], original: str | None = None, **settings: Any
) -> Answer:
    upstream = StaticUpstream("www", UpstreamConfig(root=str(root), **settings))
    answer = start(upstream, path, *fields, original=original)
    await asyncio.wait_for(answer.done.wait(), 10)
    assert not upstream.open_files
    await upstream.close()
    return answer


async def test_the_first_index_that_exists_is_sent(root: Path) -> None:
    index = ["default.htm", "index.htm", "index.html"]
    assert (await get(root, "/docs/", index=index)).body == b"old docs"
    assert (await get(root, "/", index=index)).body == b"home"
    assert (await get(root, "/files/", index=index)).head.status == 404


CLEAN = [
    ("/about", 200, "about us"),
    ("/about?x", 200, "about us"),
    ("/about.html?x=1", 301, "/about?x=1"),
    ("/index.html", 301, "/"),
    ("/docs/index.html?q", 301, "/docs/?q"),
    ("/docs/a.html", 301, "/docs/a"),
    ("/docs", 301, "/docs/"),
    ("/files", 301, "/files/"),
    ("/nothing", 404, "404 Not Found\n"),
    ("/nothing.html", 404, "404 Not Found\n"),
    ("/files.html", 301, "/files.html/"),
    ("/about/", 404, "404 Not Found\n"),
]


@pytest.mark.parametrize(("path", "status", "expected"), CLEAN)
async def test_clean_urls(root: Path, path: str, status: int, expected: str) -> None:
    answer = await get(root, path, clean_urls=True)
    assert answer.head.status == status
    assert (answer["location"] if status == 301 else answer.body.decode()) == expected


REWRITTEN = [
    # What the client asks for, what rewriting makes of it, and where the client is sent.
    ("/site/docs?q=1", "/docs?q=1", "/site/docs/?q=1"),
    ("/docs", "/www/docs/../../docs", "/docs/"),
    ("/site/docs?q=1", "/docs", "/site/docs/?q=1"),
    ("/x/../site/%64ocs", "/docs", "/site/docs/"),
    ("/manual", "/docs", "/manual/"),
    ("/site/about.html?x", "/about.html?x", "/site/about?x"),
    ("/site/docs/index.html", "/docs/index.html", "/site/docs/"),
]


@pytest.mark.parametrize(("original", "path", "location"), REWRITTEN)
async def test_a_redirect_leads_to_the_right_place_whatever_was_rewritten(
    root: Path, original: str, path: str, location: str
) -> None:
    answer = await get(root, path, original=original, clean_urls=True)
    assert (answer.head.status, answer["location"]) == (301, location)


@pytest.mark.parametrize(
    ("original", "path", "body"),
    [
        ("/about", "/about.html", b"about us"),
        ("/site/docs/", "/docs", b"docs"),
        ("/", "/index.html", b"home"),
    ],
)
async def test_no_redirect_leads_to_what_rewriting_undoes(
    root: Path, original: str, path: str, body: bytes
) -> None:
    answer = await get(root, path, original=original, clean_urls=True)
    assert (answer.head.status, answer.body) == (200, body)


async def test_a_directory_whose_slash_was_lost_in_rewriting_is_listed(root: Path) -> None:
    answer = await get(root, "/files", original="/site/files/", listing=True)
    assert answer.head.status == 200
    assert b"b.txt" in answer.body


@pytest.mark.parametrize("start", ["//evil.test", "///evil.test/", "/\\evil.test", "/\\/evil.test"])
async def test_a_redirect_never_leads_to_another_host(root: Path, start: str) -> None:
    for path, rewritten in ((f"{start}/docs", "/docs"), (f"{start}/about.html", "/about.html")):
        answer = await get(root, rewritten, original=path, clean_urls=True)
        assert answer.head.status == 301
        assert answer["location"][0] == "/"
        assert answer["location"][1] not in "/\\"
        assert "\\" not in answer["location"]
    there = await get(root, "//docs")
    assert there["location"] == "/docs/"


async def test_a_single_page_application_answers_for_all_its_pages(root: Path) -> None:
    for path in ("/users/7", "/users/7?tab=1", "/users/"):
        answer = await get(root, path, fallback="/index.html")
        assert (answer.head.status, answer.body) == (200, b"home")
        assert answer["content-type"] == "text/html; charset=utf-8"
    missing = await get(root, "/missing.js", fallback="/index.html")
    assert missing.head.status == 404, "no script is a page"
    assert (await get(root, "/app.js", fallback="/index.html")).body == b"let x;"


async def test_what_does_not_exist_has_a_page(root: Path) -> None:
    conditions = [("range", "bytes=0-1"), ("if-none-match", "*")]
    answer = await get(root, "/nothing", *conditions, not_found="/404.html")
    assert (answer.head.status, answer.body) == (404, b"<p>lost")
    assert answer["content-type"] == "text/html; charset=utf-8"
    assert "etag" not in dict(answer.head.fields)
    both = await get(root, "/x.js", not_found="/404.html", fallback="/index.html")
    assert both.body == b"<p>lost"
    gone = await get(root, "/x", not_found="/nothing.html", fallback="/nothing.html")
    assert (gone.head.status, gone.body) == (404, b"404 Not Found\n")


async def test_a_directory_is_listed_for_people(root: Path) -> None:
    answer = await get(root, "/files/", listing=True)
    page = answer.body.decode()
    assert answer.head.status == 200
    assert answer["content-type"] == "text/html; charset=utf-8"
    assert page.index("./sub/") < page.index("./b.txt"), "directories first"
    assert 'href="../"' in page
    assert "<b>" not in page
    assert 'href="./%3Cb%3E%26.txt">&lt;b&gt;&amp;.txt</a>' in page
    assert "hidden" not in page
    assert "default-src 'none'" in answer["content-security-policy"]
    assert (await get(root, "/", listing=True)).body == b"home", "there is an index"
    assert (await get(root, "/nothing/", listing=True)).head.status == 404
    assert (await get(root, "/app.js/", listing=True)).head.status == 404


async def test_a_directory_is_listed_for_programs(root: Path) -> None:
    answer = await get(root, "/files/", ("accept", "application/json"), listing=True)
    assert answer["content-type"] == "application/json"
    listed = json.loads(answer.body)
    assert [(item["name"], item["type"], item["size"]) for item in listed][1:] == [
        ("<b>&.txt", "file", 1),
        ("b.txt", "file", 2),
    ]
    assert listed[0]["type"] == "directory"


async def test_a_listing_is_bounded(root: Path) -> None:
    for number in range(STATIC_LISTED + 10):
        (root / "files" / "sub" / str(number)).touch()
    answer = await get(root, "/files/sub/", ("accept", "application/json"), listing=True)
    assert len(json.loads(answer.body)) == STATIC_LISTED
    page = (await get(root, "/files/sub/", listing=True)).body
    assert page.count(b"<tr>") == STATIC_LISTED + 1, "and the way up"
    assert b"entries are shown" in page
    assert b"entries are shown" not in (await get(root, "/files/", listing=True)).body


async def test_a_listing_has_no_links_that_are_not_served(root: Path) -> None:
    secret = root.parent / "secret"
    secret.write_bytes(b"x" * 4711)
    links = {
        "absolute": str(secret), "outside": "../../secret", "nowhere": "gone", "dot": ".hidden",
        "up": "../..", "file": "b.txt", "directory": "../docs",
    }  # fmt: skip
    for name, target in links.items():
        (root / "files" / name).symlink_to(target)
    answer = await get(root, "/files/", ("accept", "application/json"), listing=True)
    assert {
        entry["name"]: (entry["type"], entry["size"])
        for entry in json.loads(answer.body)
        if entry["name"] in links and entry["type"] == "file"
    } == {"file": ("file", 2), "dot": ("file", 1)}
    names = {entry["name"] for entry in json.loads(answer.body)}
    assert names & set(links) == {"file", "dot", "directory"}
    assert b"4711" not in answer.body


async def test_a_listing_leads_nowhere_outside(root: Path) -> None:
    (root / "out").symlink_to("..")
    (root / "in").symlink_to("files")
    assert (await get(root, "/out/", listing=True)).head.status == 404
    assert (await get(root, "/in/", listing=True)).head.status == 200
    assert (await get(root, "/.git/", listing=True)).head.status == 404


def compressed(root: Path, name: str, *endings: str, age: float = 500) -> None:
    at = time.time() - age
    for ending in endings:
        path = root / f"{name}.{ending}"
        path.write_bytes(ending.encode())
        os.utime(path, (at, at))


ALL: dict[str, Any] = {"precompressed": ["zstd", "br", "gzip"]}


@pytest.mark.parametrize(
    ("accepts", "body", "coding"),
    [
        ("gzip, br", b"br", "br"),
        ("gzip, br;q=0.5", b"gz", "gzip"),
        ("zstd", b"let x;", None),
        ("zstd, gzip", b"gz", "gzip"),
        ("", b"let x;", None),
    ],
)
async def test_a_compressed_file_is_sent_in_place_of_another(
    root: Path, accepts: str, body: bytes, coding: str | None
) -> None:
    compressed(root, "app.js", "br", "gz")
    answer = await get(root, "/app.js", ("accept-encoding", accepts), **ALL)
    fields = dict(answer.head.fields)
    assert answer.body == body
    assert fields.get(b"content-encoding", b"").decode() == (coding or "")
    assert answer["content-type"] == "text/javascript; charset=utf-8"
    assert answer["vary"] == "accept-encoding"
    assert answer["content-length"] == str(len(body))
    assert (f'-{coding}"' in answer["etag"]) is bool(coding)


async def test_a_compressed_file_has_conditions_and_ranges_of_its_own(root: Path) -> None:
    compressed(root, "index.html", "br")
    accepts = ("accept-encoding", "br")
    first = await get(root, "/", accepts, **ALL)
    assert first.body == b"br"
    again = await get(root, "/", accepts, ("if-none-match", first["etag"]), **ALL)
    assert again.head.status == 304
    assert again["vary"] == "accept-encoding"
    plain = await get(root, "/", ("if-none-match", first["etag"]), **ALL)
    assert plain.head.status == 200
    part = await get(root, "/", accepts, ("range", "bytes=1-"), **ALL)
    assert (part.head.status, part.body, part["content-encoding"]) == (206, b"r", "br")


async def test_a_compressed_file_of_an_earlier_version_is_not_sent(root: Path) -> None:
    compressed(root, "app.js", "br", age=5000)
    answer = await get(root, "/app.js", ("accept-encoding", "br"), **ALL)
    assert answer.body == b"let x;"


@pytest.mark.parametrize(
    ("path", "value"),
    [("/", "no-cache"), ("/docs/", "no-cache"), ("/docs/a.html", "no-cache"),
     ("/files/b.txt", "max-age=60"), ("/files/sub/x", "private"), ("/app.js", None)],
)  # fmt: skip
async def test_caching_is_ruled_by_patterns(root: Path, path: str, value: str | None) -> None:
    rules = {"*.html": "no-cache", "/files/*": "max-age=60", "/files/**": "private"}
    answer = await get(root, path, cache_control=rules)
    assert dict(answer.head.fields).get(b"cache-control") == (value and value.encode())
    fresh = await get(root, path, ("if-none-match", "*"), cache_control=rules)
    assert fresh.head.status == 304
    assert dict(fresh.head.fields).get(b"cache-control") == (value and value.encode())


async def test_media_types_can_be_added_and_replaced(root: Path) -> None:
    types = {"glb": "model/gltf-binary", "JS": "application/javascript"}
    assert (await get(root, "/model.glb", mime_types=types))["content-type"] == types["glb"]
    assert (await get(root, "/app.js", mime_types=types))["content-type"] == types["JS"]
    assert (await get(root, "/model.glb"))["content-type"] == "application/octet-stream"
