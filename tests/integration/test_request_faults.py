"""What goes wrong with one request costs that request: its connection and the others go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pylsqpack
import pytest

from quicedge.http.errors import H3ErrorCode
from quicedge.http.frames import FrameType, Setting, StreamType
from quicedge.http.message import Field
from tests.support.edge import RunningEdge, edge
from tests.support.h3client import Answer, Codec, H3Client, h3_client
from tests.support.raworigin import RawOrigin, raw_origin
from tests.unit.http.test_qpack import literals

GET: list[Field] = [
    (b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/"),
]  # fmt: skip
ANSWERS = {
    b"/large-head": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 5_000 + b"\r\ncontent-length: 2\r\n\r\nhi",
    b"/large-trailers": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx: "
    + b"a" * 5_000
    + b"\r\n\r\n",
}
EXTRA = """
[limits]
header_timeout = "1s"
[http3]
qpack_max_table_capacity = 4096
qpack_blocked_streams = 16
"""


class LimitedClient(H3Client):
    class codec(Codec):
        def _get_local_settings(self) -> dict[int, int]:
            return {**super()._get_local_settings(), Setting.MAX_FIELD_SECTION_SIZE: 1_000}


class ControlStreamClient(H3Client):
    class codec(Codec):
        def _create_uni_stream(self, stream_type: int, push_id: int | None = None) -> int:
            if stream_type == StreamType.CONTROL:
                return super()._create_uni_stream(stream_type, push_id)
            # Nothing is ever written on it.
            return self._quic.get_next_available_stream_id(is_unidirectional=True)


@pytest.fixture(scope="module")
def origin() -> Iterator[RawOrigin]:
    with raw_origin(ANSWERS, held=(b"/slow",)) as running:
        yield running


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, origin: RawOrigin) -> Iterator[RunningEdge]:
    with edge(tmp_path_factory.mktemp("edge"), origin.url, extra=EXTRA) as running:
        yield running


@asynccontextmanager
async def connected(running: RunningEdge) -> AsyncIterator[H3Client]:
    """A client whose connection works, before and after."""
    async with h3_client(running.port) as client:
        assert (await client.ask(b"GET", b"/")).status == 200
        yield client
        assert (await client.ask(b"GET", b"/", [(b"x-session", b"abc" * 20)])).status == 200
        assert client.closed is None


async def test_a_value_that_qpack_cannot_decode_is_answered_431(running: RunningEdge) -> None:
    async with connected(running) as client:
        stream_id = client.quic.get_next_available_stream_id()
        client.send_raw(stream_id, literals(*GET, (b"x", b"y" * 65_536)), end=True)
        assert (await client.answer(stream_id)).status == 431


async def test_a_field_without_a_name_resets_its_stream(running: RunningEdge) -> None:
    async with connected(running) as client:
        stream_id = client.quic.get_next_available_stream_id()
        client.send_raw(stream_id, literals(*GET, (b"", b"y")), end=True)
        assert (await client.answer(stream_id)).reset == H3ErrorCode.MESSAGE_ERROR


async def test_content_that_is_not_content_length_long_resets_its_stream(
    running: RunningEdge,
) -> None:
    async with connected(running) as client:
        for length in (b"1", b"5"):
            fields = [(b"content-length", length)]
            # In one datagram: a client whose response has begun would get that.
            stream_id = client.open(b"POST", b"/", fields, end=False, hold=True)
            client.send(stream_id, b"abc", end=True)
            assert (await client.answer(stream_id)).reset == H3ErrorCode.MESSAGE_ERROR


async def test_an_upload_is_stopped_when_its_response_is_unwanted(running: RunningEdge) -> None:
    async with connected(running) as client:
        stream_id = client.open(b"POST", b"/slow", end=False)
        client.send(stream_id, b"abc")
        client.quic.stop_stream(stream_id, H3ErrorCode.REQUEST_CANCELLED)
        client.transmit()
        answer = client.answers[stream_id]
        await client.until(lambda: answer.stopped is not None)
        assert answer.stopped == H3ErrorCode.REQUEST_CANCELLED
        client.quic.reset_stream(stream_id, H3ErrorCode.REQUEST_CANCELLED)


async def test_many_cookie_crumbs_reach_the_origin_as_one_field(
    running: RunningEdge, origin: RawOrigin
) -> None:
    crumbs = [b"c%d=value%d" % (index, index) for index in range(180)]
    async with connected(running) as client:
        for _ in range(3):
            fields = [(b"cookie", crumb) for crumb in crumbs]
            assert (await client.ask(b"GET", b"/cookies", fields)).status == 200
    assert origin.lines(b"/cookies", b"cookie") == [b"; ".join(crumbs)]


async def test_a_client_s_section_limit_holds_for_heads_and_trailers(running: RunningEdge) -> None:
    async with h3_client(running.port, create=LimitedClient) as client:
        large = await client.ask(b"GET", b"/large-head")
        assert large.status == 502
        assert sum(len(name) + len(value) + 32 for name, value in large.fields) < 1_000
        trailing = await client.ask(b"GET", b"/large-trailers")
        assert (trailing.status, bytes(trailing.body), trailing.trailers) == (200, b"hi", [])


async def test_a_slow_head_of_a_client_without_qpack_streams_is_answered_408(
    running: RunningEdge,
) -> None:
    """RFC 9204 section 4.2 lets clients do without; nothing but the head may be waited for."""
    async with h3_client(running.port, create=ControlStreamClient) as client:
        _, block = pylsqpack.Encoder().encode(0, GET)
        client.send_raw(0, bytes((FrameType.HEADERS, len(block))) + block[:3])
        assert (await client.answer(0)).status == 408


async def test_a_stream_whose_beginning_never_comes_is_answered_408(running: RunningEdge) -> None:
    """Pieces of a stream without its first byte hold memory, and must not do so for ever."""
    async with connected(running) as client:
        _, block = pylsqpack.Encoder().encode(0, GET)
        stream_id = client.quic.get_next_available_stream_id()
        client.answers[stream_id] = Answer()
        head = bytes((FrameType.HEADERS, len(block))) + block
        client.quic.send_stream_data(stream_id, head)
        client.quic._streams[stream_id].sender._pending.subtract(0, 3)
        client.transmit()
        assert (await client.answer(stream_id)).status == 408
