"""Parts that need no connection, and property tests of the HTTP/1.1 codec."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from h2.exceptions import FrameTooLargeError
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config import limits
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.message import Request
from quicedge.upstream.address import Address, parse_server
from quicedge.upstream.connection import Counters, OriginConnection
from quicedge.upstream.deadline import Deadline, DeadlinePool
from quicedge.upstream.h1 import H1Connection
from quicedge.upstream.h1_request import encode_head, encode_trailers
from quicedge.upstream.h2_codec import Codec
from quicedge.upstream.retry import ReplayBody, Retry, may_retry
from tests.support.origins import Recorder, request


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://a", Address("a:80", "a", 80)),
        ("http://a:8080/", Address("a:8080", "a", 8080)),
        ("https://a", Address("a:443", "a", 443, tls=True)),
        ("http://[::1]:80", Address("[::1]:80", "::1", 80)),
        ("unix:/run/a", Address("unix:/run/a", unix="/run/a")),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert parse_server(url) == address


def test_what_is_kept_for_a_retry_is_bounded() -> None:
    body = ReplayBody()
    body.sent(b"x" * limits.UPSTREAM_REPLAY_BODY)
    assert body.is_whole
    body.sent(b"y")
    assert not body.is_whole
    assert body.replay() == b""
    body.keep(b"z")
    assert not body.is_whole  # what was sent before is gone for good


@pytest.mark.parametrize(
    ("retry", "method", "left", "may"),
    [
        (Retry.ALWAYS, b"POST", 1, True),
        (Retry.ALWAYS, b"POST", 0, False),
        (Retry.IDEMPOTENT, b"GET", 1, True),
        (Retry.IDEMPOTENT, b"DELETE", 1, True),
        (Retry.IDEMPOTENT, b"POST", 1, False),
        (Retry.IDEMPOTENT, b"PATCH", 1, False),
        (Retry.NEVER, b"GET", 1, False),
    ],
)
def test_when_a_request_is_tried_again(retry: Retry, method: bytes, left: int, may: bool) -> None:
    assert may_retry(retry, method, ReplayBody(), left) is may
    lost = ReplayBody()
    lost.drop()
    assert not may_retry(retry, method, lost, left)


class Loop:
    """A clock that tests move, and the timers that were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, object]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: object) -> asyncio.TimerHandle:
        self.timers.append((when, callback))
        return asyncio.get_running_loop().call_later(3600, lambda: None)


async def test_one_timer_serves_the_deadlines_of_many_requests() -> None:
    loop, fired = Loop(), []
    pool = DeadlinePool(loop)  # type: ignore[arg-type]
    for number in range(50):
        deadline = pool.take(lambda number=number: fired.append(number))  # type: ignore[misc]
        deadline.set(10)
        loop.now += 0.1
        if number < 49:
            pool.give_back(deadline)
    assert len(loop.timers) == 1
    while not fired:
        loop.now, fire = loop.timers[-1]
        fire()  # type: ignore[operator]
    assert fired == [49]
    assert loop.now == pytest.approx(14.9)
    pool.give_back(deadline)
    assert len(loop.timers) == 2


async def test_a_deadline_moves_without_a_new_timer() -> None:
    loop, fired = Loop(), []
    deadline = Deadline(loop, lambda: fired.append(loop.now))  # type: ignore[arg-type]
    deadline.set(10)
    for loop.now in (1.0, 2.0, 3.0):
        deadline.set(10)
    assert [when for when, _ in loop.timers] == [10.0]
    loop.now = 10.0
    loop.timers[-1][1]()  # type: ignore[operator]
    assert (fired, loop.timers[-1][0]) == ([], 13.0)
    deadline.set(1)  # sooner than the timer: another one
    assert loop.timers[-1][0] == 11.0
    loop.now = 11.0
    loop.timers[-1][1]()  # type: ignore[operator]
    assert fired == [11.0]
    deadline.set(5)
    deadline.clear()
    loop.now = 16.0
    loop.timers[-1][1]()  # type: ignore[operator]
    assert fired == [11.0]
    deadline.set(5)
    deadline.cancel()


def test_fields_that_only_the_edge_writes_do_not_reach_the_head_of_a_request() -> None:
    fields = [
        (b"accept", b"*/*"), (b"connection", b"close"), (b"host", b"b"),
        (b"expect", b"100-continue"), (b"transfer-encoding", b"chunked"), (b"te", b"trailers"),
        (b"x-a", b"1"),
        (b"content-length", b"7"), (b"upgrade", b"h2c"), (b"keep-alive", b"1"),
    ]  # fmt: skip
    request = Request(b"GET", b"https", b"a", b"/", fields, ended=True)
    assert encode_head(request).split(b"\r\n") == [
        b"GET / HTTP/1.1", b"host: a", b"accept: */*", b"te: trailers", b"connection: te",
        b"x-a: 1", b"", b"",
    ]  # fmt: skip
    request.ended = False
    head = encode_head(request)
    assert b"expect: 100-continue\r\n" in head
    assert head.count(b"transfer-encoding: chunked\r\n") == 1


@given(
    method=st.binary(min_size=1, max_size=8),
    path=st.binary(min_size=1, max_size=20),
    authority=st.binary(max_size=10),
    fields=st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=12)), max_size=4),
    trailers=st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=12)), max_size=3),
)
def test_no_request_becomes_two(
    method: bytes,
    path: bytes,
    authority: bytes,
    fields: list[tuple[bytes, bytes]],
    trailers: list[tuple[bytes, bytes]],
) -> None:
    """Whatever is in a request, its head has as many lines as it has fields, or is refused."""
    try:
        head = encode_head(Request(method, b"https", authority, path, fields, ended=True))
    except ValueError:
        pass
    else:
        assert head.endswith(b"\r\n\r\n")
        lines = head[:-4].split(b"\r\n")
        assert len(lines) <= 4 + 2 * len(fields)
        assert all(b"\n" not in line and b"\r" not in line and line for line in lines)
        assert lines[0].count(b" ") == 2
    try:
        end = encode_trailers(trailers)
    except ValueError:
        return
    assert end.count(b"\r\n\r\n") == 1
    assert end.endswith(b"\r\n\r\n")


class _Owner:
    """A `connection.Owner` that forgets."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.is_available = False

    def available(self, connection: OriginConnection) -> None:
        self.is_available = True

    def retired(self, connection: OriginConnection) -> None:
        self.is_available = False

    def closed(self, connection: OriginConnection) -> None:
        pass

    def limited(self, max_streams: int) -> None:
        pass

    def repaired_response(self, what: str) -> None:
        pass


class _Transport(asyncio.Transport):
    """A transport that takes everything and sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._is_closing = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    def abort(self) -> None:
        self._is_closing = True


class _Receiver(Recorder):
    """A `connection.Receiver` that records."""

    def end_of_response(self, trailers: object) -> None:
        self.end(trailers)  # type: ignore[arg-type]

    def attempt_failed(self, error: object, retry: Retry) -> None:
        self.failed(error)  # type: ignore[arg-type]


def _receive(loop: asyncio.AbstractEventLoop, pieces: list[bytes], method: str = "GET") -> Recorder:
    """What a connection makes of an answer that comes in pieces, then ends."""
    connection = H1Connection(_Owner(), UpstreamConfig(servers=[]), loop)
    connection.connection_made(_Transport())
    receiver = _Receiver()
    connection.start(request(method), receiver)  # type: ignore[arg-type]
    for piece in pieces:
        connection.data_received(piece)
    connection.connection_lost(None)
    return receiver


def _split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


ANSWERS = (
    b"HTTP/1.1 103 Hint\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\na: b\r\nc: d\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nserver: x\r\n\r\nhello",
    b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
    b"HTTP/1.1 102 On\r\n\r\nHTTP/1.1 200 OK\r\na : b\r\ncontent-length\t: 5\r\n\r\na : b",
)


@given(
    answer=st.sampled_from(ANSWERS),
    cuts=st.lists(st.integers(0, 200), max_size=12),
    method=st.sampled_from(["GET", "HEAD"]),
)
def test_where_an_answer_is_cut_does_not_matter(
    answer: bytes, cuts: list[int], method: str
) -> None:
    loop = asyncio.new_event_loop()
    try:
        whole = _receive(loop, [answer], method)
        cut = _receive(loop, _split(answer, cuts), method)
    finally:
        loop.close()
    assert (cut.head, cut.interim, bytes(cut.body)) == (
        whole.head,
        whole.interim,
        bytes(whole.body),
    )
    assert (cut.trailers, cut.events) == (whole.trailers, whole.events)


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                (
                    b"HTTP/1.1 200 OK\r\n", b"\r\n", b"\r\n\r\n", b"content-length: 5\r\n",
                    b"transfer-encoding: chunked\r\n", b"5\r\nhello\r\n", b"0\r\n", b"a: b\r\n",
                    b"HTTP/1.1 100 C\r\n\r\n", b"connection: close\r\n", b"hello", b"\n",
                )
            ),
        ),
        max_size=12,
    ),
    st.sampled_from(["GET", "HEAD"]),
)  # fmt: skip
def test_any_answer_ends_once_and_nothing_escapes(pieces: list[bytes], method: str) -> None:
    loop = asyncio.new_event_loop()
    try:
        receiver = _receive(loop, pieces, method)
    finally:
        loop.close()
    assert len([event for event in receiver.events if event in ("end", "failed")]) == 1
    assert receiver.events[-1] in ("end", "failed")


@given(
    lengths=st.lists(st.integers(0, 300), max_size=8),
    cuts=st.lists(st.integers(0, 3000), max_size=12),
)
def test_frame_headers_are_found_wherever_the_bytes_are_cut(
    lengths: list[int], cuts: list[int]
) -> None:
    """Unknown frames of any length pass; one too long is refused with its header, not its body."""
    settings = b"\0\0\0\4\0\0\0\0\0"
    frames = b"".join(n.to_bytes(3, "big") + b"\xfa\0\0\0\0\0" + bytes(n) for n in lengths)
    codec = Codec(now=0.0)
    codec.initiate_connection()
    for piece in _split(settings + frames, cuts):
        assert codec.feed(piece, 0.0).error is None
    too_long = (2**20).to_bytes(3, "big") + b"\0\0\0\0\0\1"
    for byte in too_long[:-1]:
        assert codec.feed(bytes([byte]), 0.0).error is None
    assert isinstance(codec.feed(too_long[-1:], 0.0).error, FrameTooLargeError)
