"""Copies of requests: bounded, waited for by nobody, and compared."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quicedge.config.filters import Mirror as Settings
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Response
from quicedge.proxy.filters.mirror import Mirror
from quicedge.telemetry.outcomes import Outcome
from quicedge.upstream.base import UpstreamError
from tests.support.filtered import Client, Origin, World

TEXT = {b"content-type": b"text/plain", b"date": b"now"}


class Mirrored:
    """A world whose requests are copied to `shadow`."""

    def __init__(self, **settings: Any) -> None:
        self.shadow = Origin()
        self.filter = Mirror(
            Settings(upstream="shadow", **settings), self.shadow, draw=lambda: self.drawn
        )
        self.drawn = 0.0
        self.world = World("", self.filter)

    @property
    def results(self) -> dict[str, int]:
        return {key: n for key, n in self.filter.metrics.results.items() if n}

    def send(self, **options: Any) -> Client:
        return self.world.send(b"/a?b", (b"x-a", b"1"), **options)

    def answered(self, client: Client, status: int = 200, body: bytes = b"hello") -> None:
        """The origin answers, and the client has all of it."""
        self.world.origin.respond(status, TEXT, body)
        assert client.exchange is not None
        client.exchange.delivered()


async def test_a_copy_is_the_request_as_the_filters_have_made_it() -> None:
    here = Mirrored()
    here.send()
    (copy,) = here.shadow.requests
    assert (copy.method, copy.path, copy.authority) == (b"GET", b"/a?b", b"a.test")
    assert copy.fields == here.world.request.fields
    assert copy.fields is not here.world.request.fields


@pytest.mark.parametrize("first", ["original", "copy"])
@pytest.mark.parametrize(
    ("status", "fields", "body", "result"),
    [
        (200, {b"content-type": b"text/plain", b"date": b"later"}, b"olleh", "same"),
        (500, TEXT, b"hello", "status"),
        (200, {b"content-type": b"text/html"}, b"hello", "headers"),
        (200, TEXT, b"hello!", "size"),
    ],
)
async def test_both_responses_are_compared_whichever_comes_first(
    first: str, status: int, fields: dict[bytes, bytes], body: bytes, result: str
) -> None:
    here = Mirrored()
    client = here.send()
    if first == "copy":
        here.shadow.respond(status, fields, body)
    assert not client.status, "nothing of the copy reaches the client"
    here.answered(client)
    assert client.body == b"hello"
    if first == "original":
        assert not here.results
        here.shadow.respond(status, fields, body)
    assert here.results == {result: 1}
    assert here.filter.running == 0


async def test_what_is_chosen_not_to_be_copied_is_not() -> None:
    here = Mirrored(share=0.5)
    here.drawn = 0.5
    here.send()
    here.drawn = 0.1
    here.send(method=b"DELETE")
    here.send(method=b"CONNECT", protocol=b"websocket", ended=False)
    assert not here.shadow.requests
    assert not here.results


async def test_copies_beyond_their_number_are_not_sent() -> None:
    here = Mirrored(max_running=2)
    clients = [here.send() for _ in range(3)]
    assert len(here.shadow.requests) == 2
    assert len(here.world.origin.requests) == 3
    assert here.results == {"skipped": 1}
    assert clients[0].exchange is not None
    clients[0].exchange.connection_lost(Outcome.CLIENT_GONE)
    assert here.filter.running == 1
    here.send()
    assert len(here.shadow.requests) == 3


async def test_a_body_longer_than_allowed_ends_its_copy_alone() -> None:
    here = Mirrored(methods=["POST"], max_body=10)
    assert here.send(method=b"POST", ended=False, length=11).exchange is not None
    assert not here.shadow.requests, "declared too long"
    client = here.send(method=b"POST", ended=False)
    assert client.exchange is not None
    client.exchange.request_data(b"12345")
    assert here.shadow.body == b"12345"
    client.exchange.request_data(b"678901")
    client.exchange.request_end()
    assert here.shadow.aborted
    assert here.world.origin.body == b"12345678901"
    here.answered(client)
    assert client.status == 200
    assert here.results == {"skipped": 1, "failed": 1}


async def test_an_upstream_that_does_not_keep_up_ends_its_copy_alone() -> None:
    here = Mirrored(methods=["POST"])
    client = here.send(method=b"POST", ended=False)
    assert client.exchange is not None
    here.shadow.handler.pause_request()
    client.exchange.request_data(b"12345")
    assert here.shadow.aborted
    assert here.world.origin.body == b"12345"
    assert not client.exchange.request_paused
    assert here.results == {"failed": 1}


async def test_a_copy_that_takes_too_long_is_given_up() -> None:
    here = Mirrored(timeout=0.01)
    client = here.send()
    async with asyncio.timeout(10):
        while not here.shadow.aborted:
            await asyncio.sleep(0.005)
    here.answered(client)
    assert client.body == b"hello"
    assert (here.results, here.filter.running) == ({"failed": 1}, 0)


async def test_a_copy_that_fails_within_its_response_is_no_comparison() -> None:
    here = Mirrored()
    client = here.send()
    here.shadow.handler.response(Response(200, [], b"1.1"))
    here.shadow.handler.data(b"hel")
    here.shadow.handler.failed(UpstreamError(OriginFailure.RESET, "gone"))
    here.answered(client)
    assert (here.results, here.filter.running) == ({"failed": 1}, 0)


@pytest.mark.parametrize("is_answered", [False, True])
async def test_a_client_that_leaves_is_no_failure_of_the_copy(is_answered: bool) -> None:
    here = Mirrored()
    client = here.send()
    if is_answered:
        here.shadow.respond(200, TEXT, b"hello")
    assert client.exchange is not None
    client.exchange.request_aborted()
    assert here.shadow.aborted is not is_answered
    assert (here.results, here.filter.running) == ({"abandoned": 1}, 0)
