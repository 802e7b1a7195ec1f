"""Error pages and maintenance."""

from __future__ import annotations

from pathlib import Path

import pytest

from quicedge.config.filterlimits import PAGE_MAX_SIZE
from quicedge.config.unusable import UnusableError
from quicedge.http.errors import OriginFailure
from quicedge.proxy.filters import build_route_filters
from quicedge.telemetry.outcomes import Outcome
from quicedge.upstream.base import UpstreamError
from tests.support.client_info import StubClient
from tests.support.filtered import World, config_of

PAGES = """
[[routes]]
upstream = 'app'
max_uri = 20
filters = [{ error_pages = { %s pages = { 404 = 'gone.html', 5xx = 'sorry.json' } } }]
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "gone.html").write_text("<h1>gone</h1>")
    (tmp_path / "sorry.json").write_text("{}")
    return tmp_path


async def test_an_error_of_the_edge_has_the_page_of_its_class(files: Path) -> None:
    here = World(PAGES % "", directory=files)
    client = here.send()
    here.origin.handler.failed(UpstreamError(OriginFailure.OVERLOADED, "full"))
    assert (client.status, client.body, client.ended) == (503, b"{}", True)
    assert client.value(b"content-type") == b"application/json"
    assert client.value(b"content-length") == b"2"
    assert client.exchange is not None
    assert (client.exchange.outcome, client.exchange.reason) == (
        Outcome.ORIGIN_OVERLOADED, "full",
    )  # fmt: skip


async def test_an_error_of_the_origin_is_replaced_only_if_told(files: Path) -> None:
    here = World(PAGES % "", directory=files)
    client = here.send()
    here.origin.respond(404, {}, b"theirs")
    assert client.body == b"theirs"
    here = World(PAGES % "origin = true,", directory=files)
    client = here.send()
    fields = {b"set-cookie": b"a=1", b"etag": b'"1"', b"content-type": b"text/plain"}
    here.origin.respond(404, fields, b"theirs")
    assert (client.status, client.body) == (404, b"<h1>gone</h1>")
    assert client.value(b"content-type") == b"text/html; charset=utf-8"
    assert client.value(b"set-cookie") == b"a=1"
    assert client.value(b"etag") is None
    client = here.send()
    here.origin.respond(403, {}, b"theirs")
    assert client.body == b"theirs", "there is no page for it"


async def test_an_error_without_a_page_and_a_head_request(files: Path) -> None:
    here = World(PAGES % "", directory=files)
    assert here.send(b"/" + b"x" * 30).body == b"414 URI Too Long\n"
    client = here.send(method=b"HEAD")
    here.origin.handler.failed(UpstreamError(OriginFailure.OVERLOADED))
    assert (client.body, client.value(b"content-length"), client.ended) == (b"", b"2", True)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "No such file"), (b"x" * (PAGE_MAX_SIZE + 1), "has more than 1048576 bytes")],
)
async def test_a_page_that_cannot_be_kept_is_named(
    files: Path, content: bytes | None, problem: str
) -> None:
    (files / "gone.html").unlink()
    if content is not None:
        (files / "gone.html").write_bytes(content)
    with pytest.raises(UnusableError, match=rf"error_pages.pages.404: .*{problem}"):
        World(PAGES % "", directory=files)


async def test_a_replacement_worker_answers_503_where_a_filter_cannot_be_built(
    tmp_path: Path,
) -> None:
    config = config_of(PAGES % "", tmp_path)
    (built,) = build_route_filters(config, {}, tolerant=True).values()
    here = World("", *built)
    client = here.send()
    assert client.status == 503
    assert not here.origin.requests


MAINTENANCE = """
[[routes]]
upstream = 'app'
[[routes.filters]]
maintenance = { while_exists = 'down', retry_after = '10m', allow = ['198.51.100.0/24'], %s }
"""


async def test_maintenance_is_switched_by_a_file(files: Path) -> None:
    here = World(MAINTENANCE % "page = 'gone.html'", directory=files)
    assert here.send().status == 0
    (files / "down").touch()
    client = here.send()
    assert (client.status, client.body) == (503, b"<h1>gone</h1>")
    assert client.value(b"retry-after") == b"600"
    assert client.value(b"cache-control") == b"no-store"
    assert here.send(client=StubClient(address=("198.51.100.7", 1))).status == 0
    (files / "down").unlink()
    assert here.send().status == 0
    assert here.policy.needs_address


async def test_maintenance_without_a_switch_and_a_page(tmp_path: Path) -> None:
    here = World("[[routes]]\nupstream = 'app'\nfilters = [{ maintenance = {} }]")
    client = here.send()
    assert (client.status, client.body) == (503, b"503 Service Unavailable\n")
