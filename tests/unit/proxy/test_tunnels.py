"""Tunnels between a fake client and a fake origin, on a clock moved by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from quicedge.config.limits import (
    TUNNEL_CLOSE_TIMEOUT,
    TUNNEL_DRAIN_SPREAD,
    TUNNEL_HALF_CLOSED,
    TUNNEL_IDLE_TIMEOUT,
)
from quicedge.config.schema import Config, Route, Upstream
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, Request, Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters import FilterChain
from quicedge.proxy.tunnels import Tunnels
from quicedge.shares import Client
from quicedge.telemetry.metrics import Metrics
from quicedge.telemetry.outcomes import Outcome, Refusal
from quicedge.upstream.base import UpstreamError
from tests.support.client_info import StubClient
from tests.support.tunnels import CLOSE, PING, TEXT, close_payload, ws_frame

MASK = b"\x0a\x0b\x0c\x0d"
GOING_AWAY = ws_frame(CLOSE, close_payload(1001))


class FakeClient:
    """A downstream that takes everything."""

    stream_id = 0
    undelivered = 0

    def __init__(self) -> None:
        self.status = 0
        self.got = b""
        self.ended = self.reset_by_edge = self.stopped = False

    def accepted(self, exchange: Exchange) -> None: ...

    def done(self, exchange: Exchange) -> None: ...

    def informational(self, response: Response) -> None: ...

    def response(self, response: Response, end: bool) -> None:
        self.status = response.status

    def write(self, data: bytes) -> None:
        assert not self.ended
        self.got += data

    def end(self, trailers: Sequence[Field]) -> None:
        assert not self.ended
        self.ended = True

    def reset(self, internal: bool) -> None:
        assert not internal
        self.reset_by_edge = True

    def consumed(self, nbytes: int) -> None: ...

    def stop_request(self) -> None:
        self.stopped = True


class FakeOrigin:
    """An origin and its stream."""

    stalled = False

    def __init__(self) -> None:
        self.handler: Any = None
        self.got = b""
        self.ended = self.aborted = False

    def open(self, request: Request, handler: Any, client: Client | None, *_: Any) -> Any:
        self.handler = handler
        return self

    def write(self, data: bytes) -> None:
        assert not self.ended
        self.got += data

    def end(self, trailers: Sequence[Field] = ()) -> None:
        self.ended = True

    def abort(self) -> None:
        self.aborted = True


class World:
    def __init__(self, protocol: bytes = b"websocket", **route: Any) -> None:
        self.now = 1000.0
        self.counts: Counter[Refusal] = Counter()
        self.metrics = Metrics()
        policy: Any = SimpleNamespace(count=lambda reason: self.counts.update({reason: 1}))
        self.tunnels = Tunnels(policy, self.metrics)
        self.protocol = protocol
        self.options = {"upgrade": ["websocket", "tcp"], **route}
        self.configure()
        self.done: list[Exchange] = []

    def configure(self, **route: Any) -> None:
        self.options |= route
        self.route = Route(upstream="app", **self.options)
        upstreams = {"app": Upstream(servers=["http://a"])}
        self.tunnels.configure(Config(upstreams=upstreams, routes=[self.route]))

    def request(
        self, address: bytes = b"\xc0\x00\x02\x01", http_version: bytes = b"3"
    ) -> tuple[FakeClient, FakeOrigin, Exchange]:
        client, origin = FakeClient(), FakeOrigin()
        exchange = Exchange(
            Request(b"CONNECT", b"https", b"a.test", b"/", protocol=self.protocol),
            client, self.route,
            StubClient(share=Client(address, address[:3]), http_version=http_version),
            FilterChain(), clock=lambda: self.now, on_done=self._done,
        )  # fmt: skip
        self.tunnels.start(exchange, origin, self.now)
        return client, origin, exchange

    def open(self, **options: Any) -> tuple[FakeClient, FakeOrigin, Exchange]:
        client, origin, exchange = self.request(**options)
        origin.handler.established(Response(200, []))
        return client, origin, exchange

    def _done(self, exchange: Exchange) -> None:
        self.done.append(exchange)
        self.tunnels.ended(exchange)

    def advance(self, seconds: float, every: Callable[[], None] = lambda: None) -> None:
        for _ in range(int(seconds)):
            self.now += 1
            every()
            self.tunnels.check(self.now)

    @property
    def outcome(self) -> Outcome | None:
        (exchange,) = self.done
        return exchange.outcome

    @property
    def gauge(self) -> int:
        return sum(route.tunnels for route in self.metrics.routes.values())


@pytest.mark.parametrize(("version", "status"), [(b"1.1", 101), (b"2", 200), (b"3", 200)])
def test_the_status_that_opens_a_tunnel_is_that_of_the_clients_protocol(
    version: bytes, status: int
) -> None:
    world = World()
    client, origin, exchange = world.open(http_version=version)
    assert client.status == exchange.status == status
    assert exchange.is_tunnel
    exchange.request_data(b"to the origin")
    origin.handler.data(b"to the client")
    assert (origin.got, client.got) == (b"to the origin", b"to the client")


def test_the_content_limit_of_a_route_is_none_of_a_tunnels() -> None:
    world = World(max_body=10)
    _, origin, exchange = world.open()
    exchange.request_data(bytes(1000))
    assert len(origin.got) == 1000


def test_pings_keep_a_tunnel_open_for_ever_and_silence_ends_it() -> None:
    world = World()
    client, origin, exchange = world.open()
    ping = ws_frame(PING)

    def beat() -> None:
        if world.now % 60 == 0:
            origin.handler.data(ping)
            exchange.request_data(ws_frame(PING, mask=MASK))

    world.advance(3 * TUNNEL_IDLE_TIMEOUT, beat)
    assert not client.got.endswith(GOING_AWAY)
    world.advance(TUNNEL_IDLE_TIMEOUT + 61)
    assert client.got.endswith(GOING_AWAY)
    world.advance(TUNNEL_CLOSE_TIMEOUT + 1)
    assert client.ended
    assert origin.aborted
    exchange.delivered()
    assert world.outcome is Outcome.TUNNEL_IDLE


def test_a_tunnel_of_another_protocol_ends_without_a_frame() -> None:
    world = World(b"tcp", tunnel_idle_timeout=10)
    client, _, exchange = world.open()
    world.advance(11)
    exchange.delivered()
    assert (client.got, client.ended, world.outcome) == (b"", True, Outcome.TUNNEL_IDLE)


def test_halves_end_one_after_the_other() -> None:
    world = World()
    client, origin, exchange = world.open()
    exchange.request_end()
    assert origin.ended
    assert not client.ended
    origin.handler.data(b"more")
    origin.handler.end(())
    assert (client.got, client.ended) == (b"more", True)
    exchange.delivered()
    assert world.outcome is Outcome.COMPLETE
    assert world.gauge == 0


def test_the_origins_half_may_end_first() -> None:
    world = World()
    client, origin, exchange = world.open()
    origin.handler.end(())
    assert client.ended
    exchange.delivered()
    exchange.request_data(b"more")
    assert origin.got == b"more"
    assert not world.done
    exchange.request_end()
    assert origin.ended
    assert world.outcome is Outcome.COMPLETE


@pytest.mark.parametrize("first", ["client", "origin"])
def test_a_half_closed_tunnel_ends_when_nothing_more_comes(first: str) -> None:
    world = World()
    client, origin, exchange = world.open()
    (exchange.request_end if first == "client" else lambda: origin.handler.end(()))()
    speak = {
        "client": lambda: origin.handler.data(b"."), "origin": lambda: exchange.request_data(b"."),
    }[first]  # fmt: skip
    world.advance(5 * TUNNEL_HALF_CLOSED, speak)
    assert not world.done, "the other half is in use"
    world.advance(TUNNEL_HALF_CLOSED + 1)
    exchange.delivered()
    assert client.ended
    assert origin.aborted
    assert world.outcome is Outcome.COMPLETE


def test_peers_that_have_closed_but_do_not_hang_up_are_helped() -> None:
    world = World()
    client, origin, exchange = world.open()
    exchange.request_data(ws_frame(CLOSE, close_payload(1000), mask=MASK))
    origin.handler.data(ws_frame(CLOSE, close_payload(1000)))
    world.advance(TUNNEL_CLOSE_TIMEOUT + 2)
    exchange.delivered()
    assert client.ended
    assert world.outcome is Outcome.COMPLETE


LEAVES: dict[str, tuple[Callable[[Exchange], None], Outcome]] = {
    "lost": (lambda e: e.connection_lost(Outcome.CLIENT_GONE, "reset"), Outcome.CLIENT_GONE),
    "reset": (lambda e: e.request_aborted(), Outcome.CLIENT_ABORTED),
    "stopped": (lambda e: e.response_stopped(), Outcome.CLIENT_ABORTED),
}


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("how", LEAVES)
def test_a_client_that_leaves_is_no_loss_after_the_closing_handshake(
    how: str, closed: bool
) -> None:
    leave, outcome = LEAVES[how]
    world = World()
    _, origin, exchange = world.open()
    if closed:
        exchange.request_data(ws_frame(CLOSE, close_payload(1000), mask=MASK))
        origin.handler.data(ws_frame(CLOSE, close_payload(1000)))
    leave(exchange)
    assert world.outcome is (Outcome.COMPLETE if closed else outcome)
    assert exchange.reason == ("reset" if how == "lost" and not closed else "")
    assert origin.aborted


@pytest.mark.parametrize("closed", [False, True])
def test_a_lost_origin_is_no_loss_after_the_closing_handshake(closed: bool) -> None:
    world = World()
    client, origin, exchange = world.open()
    if closed:
        exchange.request_data(ws_frame(CLOSE, close_payload(1000), mask=MASK))
        origin.handler.data(ws_frame(CLOSE, close_payload(1000)))
    origin.handler.failed(UpstreamError(OriginFailure.RESET, "connection reset"))
    exchange.delivered()
    assert world.outcome is (Outcome.COMPLETE if closed else Outcome.ORIGIN_RESET)
    assert (client.ended, client.reset_by_edge) == (closed, not closed)


def test_an_origin_that_fails_before_the_tunnel_is_open_is_answered() -> None:
    world = World()
    client, origin, exchange = world.request()
    origin.handler.failed(UpstreamError(OriginFailure.CONNECT, "refused"))
    exchange.delivered()
    assert (client.status, world.outcome) == (502, Outcome.ORIGIN_CONNECT)
    assert world.gauge == 0


def test_a_drain_spreads_the_closes_and_waits_for_the_answers() -> None:
    world = World()
    opened = [world.open() for _ in range(20)]
    world.tunnels.drain(30, world.now)
    told = [sum(client.got == GOING_AWAY for client, _, _ in opened)]
    for _ in range(int(TUNNEL_DRAIN_SPREAD)):
        world.advance(1)
        told.append(sum(client.got == GOING_AWAY for client, _, _ in opened))
        for client, origin, exchange in opened:
            if client.got and not exchange.request_over:
                exchange.request_data(ws_frame(CLOSE, close_payload(1001), mask=MASK))
                assert origin.got == ws_frame(CLOSE, close_payload(1001), mask=MASK)
                origin.handler.data(ws_frame(CLOSE, close_payload(1001)))
                exchange.request_end()
                origin.handler.end(())
                exchange.delivered()
    assert told[0] == 1
    assert told[-1] == 20
    assert max(now - before for before, now in pairwise(told)) <= 3
    assert [exchange.outcome for exchange in world.done] == [Outcome.TUNNEL_DRAINED] * 20
    assert world.gauge == 0


def test_a_tunnel_that_opens_during_the_drain_is_closed_too() -> None:
    world = World()
    client, origin, _ = world.request()
    world.tunnels.drain(30, world.now)
    world.advance(2)
    origin.handler.established(Response(200, []))
    world.advance(2)
    assert client.got == GOING_AWAY


def test_a_drain_leaves_other_protocols_until_the_connection_closes() -> None:
    world = World(b"tcp")
    client, _, _ = world.open()
    world.tunnels.drain(30, world.now)
    world.advance(20)
    assert (client.got, world.done) == (b"", [])


def test_no_byte_follows_the_close_frame_and_none_is_inserted_into_a_frame() -> None:
    world = World(tunnel_idle_timeout=10)
    client, origin, _ = world.open()
    frame = ws_frame(TEXT, b"x" * 300)
    origin.handler.data(frame[:100])
    world.tunnels.drain(30, world.now)
    assert client.got == frame[:100]
    origin.handler.data(frame[100:200])
    origin.handler.data(frame[200:] + ws_frame(TEXT, b"late"))
    origin.handler.data(ws_frame(TEXT, b"later"))
    assert client.got == frame + GOING_AWAY


def test_a_route_has_so_many_tunnels_and_leaves_some_to_others() -> None:
    world = World(max_tunnels=9)
    opened = [world.open() for _ in range(6)]
    client, _, _ = world.request()
    assert client.status == 503
    assert world.counts == {Refusal.TUNNELS: 1}
    other, _, _ = world.open(address=b"\xcb\x00\x71\x01")
    assert other.status == 200
    for _, _, exchange in opened:
        exchange.request_aborted()
    again, _, _ = world.open()
    assert again.status == 200


def test_tunnels_count_across_a_reload() -> None:
    world = World(max_tunnels=3)
    opened = [world.open() for _ in range(2)]
    world.configure(max_tunnels=2)
    client, _, _ = world.request()
    assert client.status == 503
    for _, _, exchange in opened:
        exchange.request_aborted()
    client, _, _ = world.open()
    assert client.status == 200
    assert world.gauge == 1


@pytest.mark.parametrize(("version", "protocol"), [(b"3", None), (b"1.1", None), (b"1.1", "GET")])
def test_a_protocol_that_the_route_does_not_allow(version: bytes, protocol: str | None) -> None:
    world = World(b"spdy/3.1")
    if protocol == "GET":
        request = Request(b"CONNECT", b"https", b"a.test", b"/", protocol=b"spdy/3.1")
        served = world.tunnels.served_form(request, world.route, StubClient(http_version=version))
        assert (served.method, served.protocol, served.ended) == (b"GET", None, True)
        return
    client, origin, _ = world.request(http_version=version)
    assert client.status == 501
    assert origin.handler is None
