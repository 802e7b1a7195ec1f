"""The end of an exchange: time, outcome, and delivered bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from quicedge.http.message import Field, Response
from quicedge.proxy.exchange import Exchange, HeadTooLarge
from quicedge.proxy.filters import FilterChain
from quicedge.telemetry.outcomes import Outcome
from tests.support.client_info import StubClient
from tests.support.origins import request

BODY = b"x" * 1000


class Client:
    """A downstream that has acknowledged nothing yet."""

    stream_id = 0

    def accepted(self, exchange: Exchange) -> None: ...

    def done(self, exchange: Exchange) -> None: ...

    def __init__(self) -> None:
        self.written = self.acknowledged = 0
        self.ended = self.takes_no_heads = self.was_reset = self.was_stopped = False

    def informational(self, response: Response) -> None: ...

    def response(self, response: Response, end: bool) -> None:
        self.ended = end

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def end(self, trailers: Sequence[Field]) -> None:
        self.ended = True

    def whole(self, response: Response, data: bytes) -> None:
        if self.takes_no_heads:
            raise HeadTooLarge
        self.written += len(data)
        self.ended = True

    def reset(self, internal: bool) -> None:
        self.was_reset = True

    def consumed(self, nbytes: int) -> None: ...

    def stop_request(self) -> None:
        self.was_stopped = True

    @property
    def undelivered(self) -> int:
        return self.written - self.acknowledged


class Origin:
    """Its own stream, too; keeps how the request ended."""

    aborted = ended = False

    def open(self, request: Any, handler: Any, *_: Any) -> Any:
        return self

    def end(self, trailers: Sequence[Field]) -> None:
        self.ended = True

    def abort(self) -> None:
        self.aborted = True


class World:
    def __init__(self, ended: bool = True) -> None:
        """`ended`: the request is complete."""
        self.now = 100.0
        self.client, self.origin = Client(), Origin()
        self.done: list[Exchange] = []
        asked = request() if ended else request(body=True, length=10)
        self.exchange = Exchange(
            asked, self.client, None, StubClient(), FilterChain(),
            clock=lambda: self.now, on_done=self.done.append,
        )  # fmt: skip
        self.exchange.start(self.origin)

    def answer(self) -> None:
        """The origin's whole response, a second after the request."""
        self.now += 1
        self.exchange.response(Response(200, []))
        self.exchange.data(BODY)
        self.exchange.end(())


def test_a_response_is_done_when_delivered_not_when_written() -> None:
    world = World()
    world.answer()
    exchange = world.exchange
    assert world.client.ended
    assert exchange.response_over
    assert exchange.response_at == 101.0
    assert not world.done
    world.now += 5
    exchange.delivered()
    assert world.done == [exchange]
    assert exchange.ended_at == 106.0
    assert (exchange.outcome, exchange.bytes_delivered) == (Outcome.COMPLETE, len(BODY))
    assert not world.origin.aborted
    exchange.connection_lost(Outcome.CLIENT_GONE)
    assert world.done == [exchange], "once"
    assert exchange.outcome is Outcome.COMPLETE


def test_a_whole_response_counts_as_one_in_pieces() -> None:
    pieces, whole = World(), World()
    pieces.answer()
    whole.now += 1
    whole.exchange.whole(Response(200, []), BODY)
    for world in (pieces, whole):
        world.now += 5
        world.exchange.delivered()
        assert world.client.ended
        assert world.done == [world.exchange]
    names = (
        "status", "bytes_sent", "bytes_delivered", "first_byte_at", "response_at", "ended_at",
        "outcome", "response_started", "response_over", "request_over",
    )  # fmt: skip
    assert [getattr(whole.exchange, name) for name in names] == [
        getattr(pieces.exchange, name) for name in names
    ]


def test_a_whole_response_whose_head_is_too_large_becomes_502() -> None:
    world = World()
    world.client.takes_no_heads = True
    world.exchange.whole(Response(200, []), BODY)
    assert (world.exchange.status, world.exchange.outcome) == (502, Outcome.RESPONSE_TOO_LARGE)


def test_a_whole_response_to_a_client_that_is_gone_is_ignored() -> None:
    world = World()
    world.exchange.connection_lost(Outcome.CLIENT_GONE)
    world.exchange.whole(Response(200, []), BODY)
    assert (world.exchange.bytes_sent, world.exchange.outcome) == (0, Outcome.CLIENT_GONE)


ENDS: dict[str, tuple[Callable[[Exchange], None], Outcome]] = {
    "gone": (lambda e: e.connection_lost(Outcome.CLIENT_GONE, "idle timeout"), Outcome.CLIENT_GONE),
    "closed": (lambda e: e.connection_lost(Outcome.CONNECTION_CLOSED), Outcome.CONNECTION_CLOSED),
    "stopped": (lambda e: e.response_stopped(), Outcome.CLIENT_ABORTED),
    "late": (lambda e: e.response_timed_out(), Outcome.RESPONSE_TIMEOUT),
}


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("name", ENDS)
def test_whatever_ends_a_response_early_names_the_outcome(name: str, written: bool) -> None:
    end, outcome = ENDS[name]
    world = World()
    if written:
        world.answer()
    else:
        world.exchange.response(Response(200, []))
        world.exchange.data(BODY)
    world.client.acknowledged = 300
    end(world.exchange)
    assert world.done == [world.exchange]
    assert (world.exchange.outcome, world.exchange.bytes_delivered) == (outcome, 300)
    assert world.exchange.reason == ("idle timeout" if name == "gone" else "")
    assert world.origin.aborted is not written, "a complete response is not taken back"


def test_a_request_reset_after_a_complete_response_leaves_the_delivery_alone() -> None:
    world = World()
    world.answer()
    world.exchange.request_aborted()
    assert not world.done
    world.exchange.delivered()
    assert world.exchange.outcome is Outcome.COMPLETE


@pytest.mark.parametrize("end", [Exchange.request_aborted, Exchange.give_up_request])
def test_a_request_given_up_for_its_response_leaves_that_alone(
    end: Callable[[Exchange], object],
) -> None:
    world = World(ended=False)
    world.exchange.informational(Response(103, []))
    world.exchange.response(Response(403, []))
    end(world.exchange)
    assert world.exchange.request_over
    assert not world.origin.ended, "to the origin, the request stays incomplete"
    assert not world.origin.aborted
    world.exchange.data(BODY)
    world.exchange.end(())
    assert world.client.ended
    assert not world.client.was_stopped, "there is nothing left to stop"
    world.exchange.delivered()
    assert world.done == [world.exchange]
    assert (world.exchange.status, world.exchange.outcome) == (403, Outcome.COMPLETE)


def test_a_request_given_up_without_a_response_is_aborted() -> None:
    world = World(ended=False)
    world.exchange.informational(Response(103, []))
    assert not world.exchange.give_up_request()
    world.exchange.request_aborted()
    assert world.origin.aborted
    assert world.client.was_reset
    assert world.exchange.outcome is Outcome.CLIENT_ABORTED


def test_a_client_that_gives_its_request_up_and_leaves_gives_up_the_response_too() -> None:
    world = World(ended=False)
    world.exchange.response(Response(200, []))
    world.exchange.request_aborted()
    world.exchange.response_stopped()
    assert world.origin.aborted
    assert world.exchange.outcome is Outcome.CLIENT_ABORTED


def test_a_refusal_that_nobody_reads_keeps_its_outcome() -> None:
    world = World()
    world.exchange.refuse(404, Outcome.NO_ROUTE, reason="no such host")
    assert not world.done
    world.exchange.connection_lost(Outcome.CLIENT_GONE, "idle timeout")
    assert world.done == [world.exchange]
    assert (world.exchange.outcome, world.exchange.reason) == (Outcome.NO_ROUTE, "no such host")
