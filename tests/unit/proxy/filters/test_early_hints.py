"""Early hints: which links are remembered, and who gets them."""

from __future__ import annotations

import time

import pytest

from quicedge.config.filterlimits import HINTS_MAX_SIZE, HINTS_REMEMBERED
from quicedge.proxy.filters.early_hints import useful_links
from tests.support.client_info import StubClient
from tests.support.filtered import Client, World

BROWSER = (b"sec-fetch-mode", b"navigate")
LINK = b"</app.css>; rel=preload; as=style"


@pytest.fixture
async def here() -> World:
    return World("[[routes]]\nupstream = 'app'\nfilters = [{ early_hints = {} }]")


def visit(here: World, path: bytes = b"/", **fields: bytes) -> Client:
    client = here.send(path, BROWSER)
    head = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    here.origin.respond(200, head, b"page")
    return client


def hints(client: Client) -> list[bytes]:
    return [value for response in client.interim for name, value in response.fields]


async def test_links_of_a_page_are_sent_ahead_of_it_the_next_time(here: World) -> None:
    first = visit(here, b"/?x=1", link=LINK + b", </next>; rel=next, <//cdn.test>; rel=preconnect")
    assert not first.interim
    again = visit(here, b"/?x=2", link=LINK)
    assert [response.status for response in again.interim] == [103]
    assert hints(again) == [LINK, b"<//cdn.test>; rel=preconnect"]
    assert again.status == 200
    assert hints(visit(here)) == [LINK], "what the page has had the last time"
    assert hints(visit(here)) == []
    assert not visit(here, b"/other").interim


async def test_only_browsers_that_load_a_page_get_hints(here: World) -> None:
    visit(here, link=LINK)
    assert not here.send(b"/").interim
    assert not here.send(b"/", (b"sec-fetch-mode", b"cors")).interim
    assert not here.send(b"/", BROWSER, method=b"POST").interim
    assert not here.send(b"/", BROWSER, client=StubClient(http_version=b"1.1")).interim


@pytest.mark.parametrize(
    "fields",
    [
        {"set_cookie": b"a=1"},
        {"cache_control": b"max-age=3, Private"},
        {"cache_control": b"no-store"},
        {"link": b"<" + b"x" * HINTS_MAX_SIZE + b">; rel=preload"},
    ],
)
async def test_what_not_everybody_gets_is_not_remembered(
    here: World, fields: dict[str, bytes]
) -> None:
    visit(here, link=LINK)
    visit(here, **{"link": LINK, **fields})
    assert not visit(here).interim


async def test_what_an_origin_sends_to_those_who_may_is_not_told_to_others(here: World) -> None:
    client = here.send(b"/", BROWSER, (b"authorization", b"Bearer x"))
    here.origin.respond(200, {b"link": LINK}, b"page")
    assert client.status == 200
    assert client.exchange is not None
    client.exchange.delivered()
    assert not visit(here).interim
    (filters,) = here.gateway._route_filters.values()
    assert not filters[0]._with_credentials  # type: ignore[attr-defined]


async def test_errors_and_other_hosts_say_nothing(here: World) -> None:
    client = here.send(b"/", BROWSER)
    here.origin.respond(404, {b"link": LINK}, b"page")
    assert client.status == 404
    assert not visit(here, link=LINK).interim
    assert not here.send(b"/", BROWSER, host=b"b.test").interim


async def test_the_number_of_pages_is_bounded(here: World) -> None:
    for number in range(HINTS_REMEMBERED + 1):
        visit(here, b"/%d" % number, link=LINK)
    assert not here.send(b"/0", BROWSER).interim
    assert here.send(b"/1", BROWSER).interim
    visit(here, b"/" + b"x" * 1000, link=LINK)
    assert not here.send(b"/" + b"x" * 1000, BROWSER).interim


@pytest.mark.parametrize("piece", [b"<", b'"', b"<>", b"<>;", b'<>"', b"<>; rel", b"<>;  "])
def test_no_value_takes_long_to_read(piece: bytes) -> None:
    started = time.process_time()
    useful_links(piece * (200_000 // len(piece)))
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (LINK, [LINK]),
        (b'</a>; rel="next PRELOAD"; title="a, b"', [b'</a>; rel="next PRELOAD"; title="a, b"']),
        (b"</a,b>; rel=modulepreload", [b"</a,b>; rel=modulepreload"]),
        (b"</a>; title=preload", []),
        (b"</a>, </b>; rel=preload", [b"</b>; rel=preload"]),
        (b"nonsense; rel=preload", []),
        (b"", []),
    ],
)
def test_links_that_a_browser_can_act_on(value: bytes, found: list[bytes]) -> None:
    assert useful_links(value) == found
