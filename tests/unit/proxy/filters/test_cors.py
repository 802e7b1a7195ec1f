"""Cross-origin requests: preflights and responses."""

from __future__ import annotations

import pytest

from tests.support.filtered import Client, World

LISTED = "{ origins = ['https://app.test', 'https://*.b.test'], credentials = true, %s }"


def world(settings: str) -> World:
    return World(f"[[routes]]\nupstream = 'app'\nfilters = [{{ cors = {settings} }}]")


def preflight(here: World, origin: bytes) -> Client:
    return here.send(
        b"/", (b"origin", origin), (b"access-control-request-method", b"PUT"),
        (b"access-control-request-headers", b"x-a, x-b"), method=b"OPTIONS",
    )  # fmt: skip


async def test_a_preflight_request_is_answered_by_the_edge() -> None:
    here = world(LISTED % "methods = ['GET', 'PUT'], headers = ['x-a'], max_age = '5m'")
    client = preflight(here, b"https://app.test")
    assert (client.status, client.ended) == (204, True)
    assert client.value(b"access-control-allow-origin") == b"https://app.test"
    assert client.value(b"access-control-allow-methods") == b"GET, PUT"
    assert client.value(b"access-control-allow-headers") == b"x-a"
    assert client.value(b"access-control-allow-credentials") == b"true"
    assert client.value(b"access-control-max-age") == b"300"
    assert client.value(b"vary") == b"origin"
    assert client.value(b"content-length") is None
    assert not here.origin.requests


async def test_a_foreign_origin_is_told_nothing() -> None:
    client = preflight(world(LISTED % "max_age = 5"), b"https://evil.test")
    assert client.status == 204
    assert not [name for name, _ in client.fields if name.startswith(b"access-control")]


async def test_headers_are_echoed_for_a_star() -> None:
    client = preflight(world("{ origins = ['*'], headers = ['*'] }"), b"null")
    assert client.value(b"access-control-allow-headers") == b"x-a, x-b"
    assert client.value(b"access-control-allow-origin") == b"*"
    assert client.value(b"vary") is None


@pytest.mark.parametrize(
    ("origin", "permitted"),
    [
        (b"https://app.test", True),
        (b"HTTPS://APP.test", True),
        (b"http://app.test", False),
        (b"https://app.test.evil.test", False),
        (b"https://x.b.test", True),
        (b"https://y.x.b.test", True),
        (b"https://b.test", False),
        (b"https://.b.test", False),
        (b"https://evil.test/.b.test", False),
        (b"https://evil.test:1.b.test", False),
        (b"https://evil.test#.b.test", False),
        (b"https://evil.test?.b.test", False),
        (b"https://evil.test\\.b.test", False),
        (b"https://evil@x.b.test", False),
        (b"null", False),
    ],
)
async def test_responses_name_the_origins_that_may_read_them(
    origin: bytes, permitted: bool
) -> None:
    here = world(LISTED % "expose = ['x-total']")
    client = here.send(b"/", (b"origin", origin))
    here.origin.respond(200, {b"access-control-allow-origin": b"*", b"vary": b"Accept"}, b"x")
    assert client.value(b"access-control-allow-origin") == (origin if permitted else None)
    assert client.value(b"access-control-expose-headers") == (b"x-total" if permitted else None)
    assert client.values(b"vary") == [b"Accept", b"origin"], "for caches, whoever asks"


async def test_other_options_requests_go_to_the_origin() -> None:
    here = world(LISTED % "max_age = 5")
    here.send(method=b"OPTIONS")
    assert here.request.method == b"OPTIONS"
