"""The gateway with fake ends: refusals, local replies, forwarding, logging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from quicedge.config.limits import LOGGED_VALUE
from quicedge.config.schema import Config, Limits, Otel, RequestRate, Route
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.message import Field, Request, Response
from quicedge.http.validation import MessageError
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.gateway import Gateway
from quicedge.proxy.policy import Policy
from quicedge.proxy.router import Router
from quicedge.proxy.spans import SpanRecorder
from quicedge.telemetry.access import AccessRecord
from quicedge.telemetry.outcomes import Outcome, Refusal
from quicedge.upstream.group import Upstream as Group
from quicedge.upstream.stream import UpstreamStream
from tests.support.client_info import StubClient

ROUTES = [Route(upstream="app", host="a.test"), Route(upstream="app", host="a.test", path="/x")]


class Downstream:
    """A client that takes everything at once."""

    stream_id = 4
    undelivered = 0

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self.exchange: Exchange | None = None

    def accepted(self, exchange: Exchange) -> None:
        self.calls.append("accepted")
        self.exchange = exchange

    def done(self, exchange: Exchange) -> None:
        self.calls.append("done")

    def informational(self, response: Response) -> None:
        self.calls.append("informational")

    def response(self, response: Response, end: bool) -> None:
        self.status, self.fields = response.status, dict(response.fields)
        if end:
            self._deliver()

    def write(self, data: bytes) -> None:
        self.calls.append("write")

    def end(self, trailers: Sequence[Field]) -> None:
        self._deliver()

    def _deliver(self) -> None:
        self.calls.append("end")

    def reset(self, internal: bool) -> None:
        self.calls.append("reset")

    def consumed(self, nbytes: int) -> None: ...

    def stop_request(self) -> None:
        self.calls.append("stop")


class Upstream:
    """An origin, and its stream."""

    server, http_version, scheme = "127.0.0.1:8000", "1.1", "http"
    queue_seconds = connect_seconds = 0.0
    retries = 0
    stalled = False

    def __init__(self, contended: bool = False) -> None:
        self.requests: list[Request] = []
        self.is_contended = contended
        self.reclaimed = 0

    def open(self, request: Request, handler: Any, client: Any, *_: Any) -> Any:
        self.requests.append(request)
        self.handler = handler
        return self

    def reclaim(self) -> None:
        self.reclaimed += 1

    def stats(self) -> dict[str, dict[str, int]]:
        return {self.server: {"active": len(self.requests)}}

    def abort(self) -> None: ...

    def end(self, trailers: Sequence[Field] = ()) -> None: ...


class Log:
    def __init__(self) -> None:
        self.records: list[AccessRecord] = []

    def log(self, record: AccessRecord) -> None:
        self.records.append(record)


class World:
    """A gateway on a clock that stands still."""

    def __init__(self, **options: Any) -> None:
        config = Config(routes=ROUTES, **options)
        clock = lambda: 10.0  # noqa: E731
        self.log, self.upstream = Log(), Upstream()
        self.policy = Policy(config, clock)
        self.gateway = Gateway(
            self.policy, SpanRecorder(Otel(), clock), self.log,  # type: ignore[arg-type]
            clock=clock, date=lambda: b"now",
        )  # fmt: skip
        self.gateway.use(config, Router(config.routes), {"app": self.upstream})

    def ask(
        self, method: bytes = b"GET", path: bytes = b"/", *fields: Field,
        host: bytes = b"a.test", client: StubClient | None = None,
    ) -> Downstream:  # fmt: skip
        downstream = Downstream()
        request = Request(method, b"https", host, path, list(fields), ended=True)
        exchange = self.gateway.handle(request, downstream, client or StubClient())
        if exchange.response_over:
            exchange.delivered()
        return downstream


async def test_a_request_goes_to_the_upstream_of_its_route_and_is_logged_when_delivered() -> None:
    world = World()
    downstream = world.ask()
    (sent,) = world.upstream.requests
    assert dict(sent.fields)[b"x-forwarded-for"] == b"192.0.2.1"
    exchange = world.upstream.handler
    exchange.response(Response(200, [(b"x", b"y")], b"1.1"))
    exchange.end(())
    assert not world.log.records, "the client has not got it yet"
    exchange.delivered()
    (record,) = world.log.records
    assert (record.status, record.outcome, record.upstream) == (200, Outcome.COMPLETE, "app")
    assert (record.stream_id, record.connection_id) == (4, "c0")
    assert downstream.calls == ["accepted", "end", "done"]
    assert downstream.fields[b"date"] == b"now"
    assert world.gateway.requests_total == 1


@pytest.mark.parametrize(
    ("asked", "status", "outcome"),
    [
        ({"host": b"b.test"}, 404, Outcome.NO_ROUTE),
        ({"client": StubClient(authoritative=False)}, 421, Outcome.MISDIRECTED),
        ({"method": b"TRACE"}, 501, Outcome.NOT_SERVED),
        ({"path": b"/" + b"a" * 20_000}, 414, Outcome.URI_TOO_LONG),
    ],
)
async def test_what_is_refused_is_logged_with_its_outcome(
    asked: dict[str, Any], status: int, outcome: Outcome
) -> None:
    world = World()
    downstream = world.ask(**asked)
    assert downstream.status == status
    (record,) = world.log.records
    assert (record.status, record.outcome) == (status, outcome)
    assert not world.upstream.requests


async def test_options_that_may_go_no_further_are_answered_here() -> None:
    world = World()
    downstream = world.ask(b"OPTIONS", b"/", (b"max-forwards", b"0"))
    assert downstream.status == 204
    assert world.log.records[0].outcome is Outcome.COMPLETE


async def test_rates_are_kept_and_counted() -> None:
    world = World(limits=Limits(requests=[RequestRate(rate="2/minute")]))
    statuses = [world.ask().status for _ in range(3)]
    assert statuses == [0, 0, 429]
    assert world.policy.counters[Refusal.RATE_LIMITED] == 1
    assert world.ask(client=StubClient(address=("198.51.100.9", 1))).status == 0


async def test_an_address_outside_the_allowed_networks_is_denied() -> None:
    world = World(limits=Limits(allow=["198.51.100.0/24"]))
    assert world.ask().status == 403
    assert world.policy.needs_address


async def test_nothing_new_is_begun_while_the_memory_is_used_up() -> None:
    world = World()
    world.policy.memory_is_full = True
    downstream = world.ask()
    assert downstream.status == 503
    assert downstream.fields[b"retry-after"] == b"1"


async def test_a_request_that_waited_too_long_is_answered_503() -> None:
    world = World()
    downstream = Downstream()
    request = Request(b"GET", b"https", b"a.test", b"/", ended=True)
    world.gateway.refuse_late(request, downstream, StubClient())
    assert downstream.exchange is not None
    downstream.exchange.delivered()
    assert world.log.records[0].outcome is Outcome.OVERLOADED


async def test_a_malformed_request_is_logged_with_what_could_be_read() -> None:
    world = World()
    fields = [(b":method", b"GET"), (b":path", b"/p"), (b"user-agent", b"me")]
    world.gateway.rejected(StubClient(), 8, fields, MessageError("no authority"), 16)
    (record,) = world.log.records
    assert (record.status, record.reason, record.path) == (400, "no authority", "/p")
    assert (record.stream_id, record.user_agent) == (8, "me")


async def test_a_record_shows_no_more_of_a_huge_request_than_could_be_served() -> None:
    world = World()
    fields = [(b":path", b"/" * 300_000), (b":method", b"X" * 300_000), (b"user-agent", b"u" * 9)]
    world.gateway.rejected(StubClient(), 8, fields, MessageError("too long", status_hint=414), 16)
    (record,) = world.log.records
    assert record.path == "/" * LOGGED_VALUE + "..."
    assert record.method == "X" * LOGGED_VALUE + "..."
    assert record.user_agent == "u" * 9


async def test_upstreams_with_requests_that_wait_are_told_to_reclaim() -> None:
    world = World()
    assert not world.gateway.is_contended
    world.upstream.is_contended = True
    assert world.gateway.is_contended
    world.gateway.reclaim()
    assert world.upstream.reclaimed == 1
    assert world.gateway.servers() == {"app": {"127.0.0.1:8000": {"active": 0}}}


async def test_a_route_with_limits_of_its_own_shares_the_servers_of_its_upstream() -> None:
    routes = [Route(upstream="app"), Route(upstream="app", path="/slow", first_byte_timeout=300.0)]
    server = UpstreamConfig(servers=["http://127.0.0.1:9"])
    config = Config(routes=routes, upstreams={"app": server})
    world = World()
    group = Group("app", server)
    world.gateway.use(config, Router(routes), {"app": group})
    exchange = world.ask(path=b"/slow").exchange
    assert exchange is not None
    stream = exchange.origin
    assert isinstance(stream, UpstreamStream)
    assert stream._config.first_byte_timeout == 300
    other = world.ask(path=b"/").exchange
    assert other is not None
    assert isinstance(other.origin, UpstreamStream)
    assert other.origin._config.first_byte_timeout == 60
    assert group.servers[0].counters.requests == 2
    await group.close()
