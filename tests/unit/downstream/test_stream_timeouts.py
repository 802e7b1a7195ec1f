"""Stream timeouts on a virtual clock: slow honest clients, and attacks."""

from __future__ import annotations

from typing import Any

import pytest

from quicedge.config.limits import MESSAGE_REST, MIN_BODY_RATE, REQUEST_END_WAIT
from quicedge.config.schema import Limits
from quicedge.downstream.stream_timeouts import StreamTimeouts
from quicedge.http.message import Field, HttpVersion, Request, Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters import FilterChain
from tests.support.client_info import StubClient

LIMITS = Limits(body_timeout=30.0)
DAY = 86_400
GRPC = (b"content-type", b"application/grpc+proto")
EVENTS = (b"content-type", b"application/x-ndjson; charset=utf-8")


class Client:
    """The downstream of an exchange, its stream, its session and its connection."""

    stream_id = 0
    undelivered = 0

    def __init__(self, origin_version: str, *fields: Field, method: bytes = b"POST") -> None:
        self.now = 0.0
        self.status = 0
        self.opened: Request | None = None
        self.last_sent = b""
        self.ended = False
        self.http_version = HttpVersion(origin_version)
        self.session = self.progress = self
        self.streams = {0: self}
        request = Request(method, b"https", b"a.test", b"/", list(fields))
        self.exchange = Exchange(
            request, self, None, StubClient(), FilterChain(),  # type: ignore[arg-type]
            clock=lambda: self.now, on_done=lambda exchange: None,
        )  # fmt: skip
        self.timeouts = StreamTimeouts()
        self.exchange.start(self)  # type: ignore[arg-type]

    def run(self, seconds: int, *, every: int, message: bytes) -> None:
        """Let time pass; content comes every so many seconds."""
        for second in range(1, seconds + 1):
            self.now += 1
            if second % every == 0 and not self.status:
                self.exchange.request_data(message)
            self.timeouts.check(self, LIMITS, self.now)  # type: ignore[arg-type]
            if self.status:
                return

    # As an origin, and as its stream.
    def open(self, request: Request, handler: Any, *_: Any) -> Client:
        self.opened = request
        return self

    def abort(self) -> None: ...

    # As a downstream, and as an origin's stream.
    def write(self, data: bytes) -> None:
        self.last_sent = data

    def end(self, trailers: object = ()) -> None:
        self.ended = True

    def response(self, response: Response, end: bool) -> None:
        self.status = response.status

    def consumed(self, nbytes: int) -> None: ...

    def stop_request(self) -> None: ...

    # As a session and a connection.
    def unfinished_heads(self) -> list[int]:
        return []

    def acknowledged_bytes(self, stream_id: int) -> int:
        return 0

    def unsent_bytes(self, stream_id: int) -> int:
        return 0

    unacknowledged_bytes = unsent_bytes


@pytest.mark.parametrize(
    ("version", "fields", "every", "size"),
    [
        ("2", [GRPC], 4, 25),
        ("2", [GRPC], 240, 25),
        ("1.1", [EVENTS], 20, 40),
        ("1.1", [], 10, 60),
        ("1.1", [], 1, 1_000_000),
    ],
    ids=["gRPC client stream", "gRPC heartbeats", "events upward", "sensor", "ten gigabytes"],
)
def test_honest_slow_requests_are_let_be_for_a_day(
    version: str, fields: list[Field], every: int, size: int
) -> None:
    client = Client(version, *fields)
    client.run(10_000 if size > 1000 else DAY, every=every, message=bytes(size))
    assert client.status == 0


@pytest.mark.parametrize(
    ("version", "fields", "every", "size", "within"),
    [
        ("1.1", [], 10, 3, 70),
        ("1.1", [GRPC], 10, 3, 70),
        ("2", [], 10, 3, 70),
        ("2", [GRPC], DAY, 1, MESSAGE_REST + 70),
        ("1.1", [EVENTS], DAY, 1, MESSAGE_REST + 70),
    ],
    ids=["trickle", "gRPC by name alone", "trickle to h2", "silent gRPC", "silent events"],
)
def test_slow_body_attacks_are_answered_408(
    version: str, fields: list[Field], every: int, size: int, within: float
) -> None:
    client = Client(version, *fields)
    client.run(DAY, every=every, message=bytes(size))
    assert client.status == 408
    assert client.now <= within


def test_the_rate_is_that_of_the_limit() -> None:
    def status(rate: float) -> int:
        client = Client("1.1")
        client.run(1000, every=10, message=bytes(int(rate * 10)))
        return client.status

    assert (status(MIN_BODY_RATE * 1.5), status(MIN_BODY_RATE * 0.5)) == (0, 408)


@pytest.mark.parametrize("excuse", ["paused", "answered"])
def test_a_client_is_not_blamed_for_what_it_waits_for(excuse: str) -> None:
    client = Client("1.1")
    if excuse == "paused":
        client.exchange.pause_request()
    else:
        client.exchange.response(Response(200, [], b"1.1"))
        client.status = 0
    client.run(DAY, every=2 * DAY, message=b"")
    assert client.status == 0


class Reader(Client):
    """A client of a response of which something always waits to be sent."""

    def __init__(self, waiting: int) -> None:
        super().__init__("1.1")
        self.taken = 0
        self.waiting = waiting
        self.reset_at = 0.0
        self.exchange.response(Response(200, [], b"1.1"))

    def acknowledged_bytes(self, stream_id: int) -> int:
        return self.taken

    def unsent_bytes(self, stream_id: int) -> int:
        return self.waiting

    def reset(self, stream_id: int, code: int) -> None:
        self.reset_at = self.now

    def read(self, size: int, seconds: int) -> None:
        """Take so many bytes per second."""
        for _ in range(seconds):
            self.now += 1
            self.taken += size
            self.timeouts.check(self, LIMITS, self.now)  # type: ignore[arg-type]
            if self.reset_at:
                return


@pytest.mark.parametrize(
    ("waiting", "size"), [(11, 11), (11, 1), (500, 55), (10**9, 100)],
    ids=["events", "slow events", "late events", "slow reader"],
)  # fmt: skip
def test_who_takes_what_waits_is_let_be_though_that_is_little(waiting: int, size: int) -> None:
    reader = Reader(waiting)
    reader.read(size, 3600)
    assert not reader.reset_at


@pytest.mark.parametrize(
    ("waiting", "size"), [(11, 0), (10**9, 0), (10**9, 10)],
    ids=["events", "nothing", "trickle"],
)  # fmt: skip
def test_who_does_not_take_what_waits_is_cut_off(waiting: int, size: int) -> None:
    reader = Reader(waiting)
    reader.read(size, 3600)
    assert LIMITS.response_timeout < reader.reset_at < 4 * LIMITS.response_timeout


# --- heads that wait for the end of their request ---------------------------------------------


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS"])
def test_a_request_without_content_is_forwarded_as_such_though_its_end_comes_later(
    method: bytes,
) -> None:
    client = Client("1.1", method=method)
    assert client.opened is None
    client.exchange.request_end()
    assert client.opened is not None
    assert client.opened.ended
    assert not client.ended, "it was told with the head"


def test_content_opens_the_way_for_a_head_that_waited() -> None:
    client = Client("1.1", method=b"DELETE")
    client.exchange.request_data(b"why")
    assert client.opened is not None
    assert not client.opened.ended
    client.exchange.request_end()
    assert (client.last_sent, client.ended) == (b"why", True)


def test_trailers_alone_are_a_body() -> None:
    client = Client("1.1", method=b"GET")
    client.exchange.request_end([(b"x-sum", b"1")])
    assert client.opened is not None
    assert (client.opened.ended, client.ended) == (False, True)


def test_a_request_whose_end_never_comes_is_forwarded_all_the_same() -> None:
    client = Client("1.1", method=b"GET")
    client.run(int(REQUEST_END_WAIT) - 1, every=DAY, message=b"")
    assert client.opened is None
    client.run(2, every=DAY, message=b"")
    assert client.opened is not None
    assert not client.opened.ended


@pytest.mark.parametrize(
    ("method", "fields"), [(b"POST", []), (b"GET", [(b"expect", b"100-continue")])]
)
def test_what_may_have_content_does_not_wait(method: bytes, fields: list[Field]) -> None:
    assert Client("1.1", *fields, method=method).opened is not None


def test_a_client_that_leaves_while_its_head_waits_reaches_no_origin() -> None:
    client = Client("1.1", method=b"GET")
    client.exchange.response_stopped()
    client.run(10, every=DAY, message=b"")
    assert client.opened is None
