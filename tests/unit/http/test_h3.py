"""The HTTP/3 codec: exact error codes, any fragmentation, and aioquic's codec on the other side."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pylsqpack
import pytest
from aioquic.h3.connection import H3Connection as AioquicH3
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config import limits
from quicedge.http.errors import H3ErrorCode
from quicedge.http.frames import FrameType, encode_frame, encode_settings, encode_varint
from quicedge.http.h3 import H3Connection, H3Error, H3Settings
from quicedge.http.h3_qlog import trace_codec
from quicedge.telemetry.trace import Trace

GET = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")]
SETTINGS = encode_frame(FrameType.SETTINGS, b"")


class Wire:
    """A transport that keeps what is written, and a handler that keeps what is told."""

    def __init__(self, *, is_client: bool = False, **settings: int) -> None:
        self.sent: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.consumed = 0
        self.told: list[tuple[Any, ...]] = []
        self.payload = 0
        self._next_uni = 2 if is_client else 3
        self.now = 0.0
        self.h3 = H3Connection(
            self, self, is_client=is_client, settings=H3Settings(**settings), clock=lambda: self.now
        )

    # transport
    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        self.sent.setdefault(stream_id, bytearray()).extend(data)
        if end_stream:
            self.ended.add(stream_id)

    def get_next_available_stream_id(self, is_unidirectional: bool = False) -> int:
        self._next_uni += 4
        return self._next_uni - 4

    def consume(self, stream_id: int, nbytes: int) -> None:
        assert nbytes >= 0
        self.consumed += nbytes

    # handler
    def on_data(self, stream_id: int, data: bytes) -> None:
        self.payload += len(data)
        if self.told and self.told[-1][:2] == ("on_data", stream_id):
            data = self.told.pop()[2] + data
        self.told.append(("on_data", stream_id, data))

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *values: self.told.append((name, *values))

    def stream_errors(self) -> list[tuple[int, int]]:
        """Streams whose messages were malformed, with the codes."""
        return [
            (entry[1].stream_id, entry[1].code)
            for entry in self.told
            if entry[0] == "on_stream_error"
        ]

    def control(self, data: bytes) -> None:
        """Bytes of the peer's control stream."""
        self.h3.stream_data(2, data, False)


def server(**settings: int) -> Wire:
    wire = Wire(**settings)
    wire.control(b"\0" + SETTINGS)
    return wire


def headers(fields: list[tuple[bytes, bytes]]) -> bytes:
    _, block = pylsqpack.Encoder().encode(0, fields)
    return encode_frame(FrameType.HEADERS, block)


def frame(kind: int, payload: bytes = b"") -> bytes:
    return encode_frame(kind, payload)


UNI, REQUEST = 2, 0
FLOOD = 2 * limits.H3_OVERHEAD_BURST + limits.H3_OVERHEAD_PER_REQUEST + 1
CONNECTION_ERRORS = {
    "first frame is not SETTINGS": ([(UNI, b"\0" + frame(7, b"\0"), False)], "MISSING_SETTINGS"),
    "SETTINGS twice": ([(UNI, b"\0" + SETTINGS + SETTINGS, False)], "FRAME_UNEXPECTED"),
    "setting repeated": (
        [(UNI, b"\0" + frame(4, bytes((6, 1, 6, 1))), False)], "SETTINGS_ERROR",
    ),
    "setting of HTTP/2": (
        [(UNI, b"\0" + frame(4, encode_settings({2: 0})), False)], "SETTINGS_ERROR",
    ),
    "SETTINGS cut short": ([(UNI, b"\0" + frame(4, b"\x06"), False)], "FRAME_ERROR"),
    "DATA on control": ([(UNI, b"\0" + SETTINGS + frame(0), False)], "FRAME_UNEXPECTED"),
    "HEADERS on control": ([(UNI, b"\0" + SETTINGS + frame(1), False)], "FRAME_UNEXPECTED"),
    "HTTP/2 frame on control": ([(UNI, b"\0" + SETTINGS + frame(6), False)], "FRAME_UNEXPECTED"),
    "second control stream": (
        [(UNI, b"\0" + SETTINGS, False), (6, b"\0", False)], "STREAM_CREATION_ERROR",
    ),
    "second QPACK encoder stream": (
        [(UNI, b"\x02", False), (6, b"\x02", False)], "STREAM_CREATION_ERROR",
    ),
    "push stream from a client": ([(UNI, b"\x01\0", False)], "STREAM_CREATION_ERROR"),
    "control stream ends": ([(UNI, b"\0" + SETTINGS, True)], "CLOSED_CRITICAL_STREAM"),
    "QPACK decoder stream ends": ([(UNI, b"\x03", True)], "CLOSED_CRITICAL_STREAM"),
    "MAX_PUSH_ID goes down": (
        [(UNI, b"\0" + SETTINGS + frame(13, b"\x05") + frame(13, b"\x04"), False)], "ID_ERROR",
    ),
    "CANCEL_PUSH of nothing": ([(UNI, b"\0" + SETTINGS + frame(3, b"\0"), False)], "ID_ERROR"),
    "GOAWAY goes up": (
        [(UNI, b"\0" + SETTINGS + frame(7, b"\0") + frame(7, b"\x04"), False)], "ID_ERROR",
    ),
    "GOAWAY with bytes behind": (
        [(UNI, b"\0" + SETTINGS + frame(7, b"\0\0"), False)], "FRAME_ERROR",
    ),
    "control frame too large": (
        [(UNI, b"\0" + SETTINGS + encode_varint(7) + encode_varint(1 << 20), False)],
        "EXCESSIVE_LOAD",
    ),
    "PRIORITY_UPDATE of a push": (
        [(UNI, b"\0" + SETTINGS + frame(0xF0701, b"\0u=1"), False)], "ID_ERROR",
    ),
    "PRIORITY_UPDATE flood": (
        [(UNI, b"\0" + SETTINGS + frame(0xF0700, b"\0u=1") * FLOOD, False)], "EXCESSIVE_LOAD",
    ),
    "DATA before HEADERS": ([(REQUEST, frame(0, b"x"), False)], "FRAME_UNEXPECTED"),
    "DATA after trailers": (
        [(REQUEST, headers(GET) + headers([(b"x", b"y")]) + frame(0, b"x"), False)],
        "FRAME_UNEXPECTED",
    ),
    "HEADERS after trailers": (
        [(REQUEST, headers(GET) + headers([(b"x", b"y")]) * 2, False)], "FRAME_UNEXPECTED",
    ),
    "SETTINGS on a request": ([(REQUEST, SETTINGS, False)], "FRAME_UNEXPECTED"),
    "PUSH_PROMISE from a client": ([(REQUEST, frame(5, b"\0"), False)], "FRAME_UNEXPECTED"),
    "HTTP/2 frame on a request": ([(REQUEST, frame(2, b""), False)], "FRAME_UNEXPECTED"),
    "frame cut short": ([(REQUEST, headers(GET) + b"\0\x05ab", True)], "FRAME_ERROR"),
    "HEADERS cut short": ([(REQUEST, headers(GET)[:-1], True)], "FRAME_ERROR"),
    "unknown static entry": (
        [(REQUEST, frame(1, b"\0\0\xff\xff\x10"), False)], "QPACK_DECOMPRESSION_FAILED",
    ),
    "dynamic table that was refused": (
        [(UNI, b"\x02\x3f\xe1\x1f", False)], "QPACK_ENCODER_STREAM_ERROR",
    ),
    "insert count of nothing": ([(UNI, b"\x03\x05", False)], "QPACK_DECODER_STREAM_ERROR"),
    "MAX_PUSH_ID flood": (
        [(UNI, b"\0" + SETTINGS + frame(13, b"\0") * FLOOD, False)], "EXCESSIVE_LOAD",
    ),
    "unknown frames without end": ([(REQUEST, frame(0x21) * FLOOD, False)], "EXCESSIVE_LOAD"),
    "empty DATA without end": (
        [(REQUEST, headers(GET) + frame(0) * FLOOD, False)], "EXCESSIVE_LOAD",
    ),
    "negative Base": ([(REQUEST, frame(1, b"\0\x80\xd1"), False)], "QPACK_DECOMPRESSION_FAILED"),
    "insertion before Set Capacity": (
        [(UNI, b"\x02\x41a\x01b", False)], "QPACK_ENCODER_STREAM_ERROR",
    ),
    "PRIORITY_UPDATE of an upload of ours": (
        [(UNI, b"\0" + SETTINGS + frame(0xF0700, b"\x01u=1"), False)], "ID_ERROR",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("feeds", "code"), CONNECTION_ERRORS.values(), ids=CONNECTION_ERRORS.keys()
)
def test_connection_errors(feeds: list[tuple[int, bytes, bool]], code: str) -> None:
    wire = Wire()
    *before, last = feeds
    for feed in before:
        wire.h3.stream_data(*feed)
    with pytest.raises(H3Error) as caught:
        wire.h3.stream_data(*last)
    assert H3ErrorCode(caught.value.code).name == code


def test_resetting_or_stopping_a_critical_stream() -> None:
    with pytest.raises(H3Error) as caught:
        server().h3.stream_reset(2, 0)
    assert caught.value.code == H3ErrorCode.CLOSED_CRITICAL_STREAM
    with pytest.raises(H3Error) as caught:
        server().h3.stop_sending(3, 0)
    assert caught.value.code == H3ErrorCode.CLOSED_CRITICAL_STREAM


def test_clients_refuse_pushes() -> None:
    for stream_id, data in ((0, frame(5, b"\0")), (3, b"\x01\0")):
        with pytest.raises(H3Error) as caught:
            Wire(is_client=True).h3.stream_data(stream_id, data, False)
        assert caught.value.code == H3ErrorCode.ID_ERROR


@pytest.mark.parametrize(
    ("data", "length", "code"),
    [
        (frame(0, b"x" * 6), 5, "MESSAGE_ERROR"),
        (frame(0, b"x" * 4), 5, "MESSAGE_ERROR"),
        (frame(0, b"x" * 4) + headers([(b"x", b"y")]), 5, "MESSAGE_ERROR"),
    ],
)
def test_content_that_is_not_content_length_long(data: bytes, length: int, code: str) -> None:
    wire = server()
    wire.h3.stream_data(0, headers(GET), False)
    wire.h3.expect_length(0, length)
    before = wire.consumed
    wire.h3.stream_data(0, data, True)
    assert wire.stream_errors() == [(0, H3ErrorCode[code])]
    # What the handler was told of, it credits itself.
    assert wire.consumed - before + wire.payload == len(data)


def test_a_stream_that_ends_before_its_head() -> None:
    wire = server()
    wire.h3.stream_data(0, b"", True)
    assert wire.stream_errors() == [(0, H3ErrorCode.REQUEST_INCOMPLETE)]


@pytest.mark.parametrize(
    "head",
    [
        encode_varint(1) + encode_varint(1 << 20),
        headers([*GET, *[(b"x", b"y" * 3500)] * 20]),
        headers(GET * 40),
    ],
    ids=["declared too large", "decoded too large", "too many lines"],
)
def test_a_head_over_the_limits_is_reported_and_the_rest_dropped(head: bytes) -> None:
    wire = server()
    wire.h3.stream_data(0, head, False)
    assert [entry[:2] for entry in wire.told] == [("on_field_section_too_large", 0)]
    before = wire.consumed
    wire.h3.stream_data(0, b"z" * 5000, False)
    assert wire.consumed == before + 5000
    assert len(wire.told) == 1


def test_trailers_over_the_limits_reset_the_stream() -> None:
    wire = server()
    wire.h3.stream_data(0, headers(GET), False)
    wire.h3.stream_data(0, headers([(b"x", b"y" * 3500)] * 20), False)
    assert wire.stream_errors() == [(0, H3ErrorCode.EXCESSIVE_LOAD)]


def test_a_qpack_bomb_is_counted_before_it_goes_off() -> None:
    """One large dynamic entry, referred to by a byte each time (quic-go CVE-2025-64702)."""
    wire = server(qpack_max_table_capacity=4096, qpack_blocked_streams=16)
    encoder = pylsqpack.Encoder()
    instructions = encoder.apply_settings(4096, 16)
    for _ in range(3):  # the encoder inserts what it sees again
        more, _ = encoder.encode(0, [(b"x", b"y" * 3000)])
        instructions += more
    wire.h3.stream_data(6, b"\x02" + instructions, False)
    block = b"\x02\x00" + b"\x80" * 60_000
    tracemalloc.start()
    wire.h3.stream_data(0, frame(1, block), False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert wire.told == [("on_field_section_too_large", 0, [])]
    assert peak < 2_000_000


def cut(data: bytes, at: list[int]) -> list[bytes]:
    points = sorted({point % (len(data) + 1) for point in at} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(points)]


MESSAGE = (
    headers(GET) + frame(0x21, b"grease") + frame(0, b"hello") + frame(0, b"")
    + frame(0, b"w" * 300) + headers([(b"x-sum", b"1")])
)  # fmt: skip


@given(st.lists(st.integers(0, 2000), max_size=8))
def test_any_fragmentation_reads_the_same_and_credits_every_byte(at: list[int]) -> None:
    wire = server()
    start = wire.consumed
    pieces = cut(MESSAGE, at)
    for index, piece in enumerate(pieces):
        wire.h3.stream_data(0, piece, index == len(pieces) - 1)
    assert [entry[0] for entry in wire.told if entry[0] != "on_end"] == [
        "on_headers", "on_data", "on_trailers",
    ]  # fmt: skip
    assert wire.told[1][2] == b"hello" + b"w" * 300
    assert wire.told[2][2] == [(b"x-sum", b"1")]
    assert wire.consumed - start + wire.payload == len(MESSAGE)


@given(st.lists(st.tuples(st.sampled_from([0, 2, 4, 6, 10]), st.binary(max_size=40)), max_size=8))
def test_random_bytes_raise_nothing_else(feeds: list[tuple[int, bytes]]) -> None:
    wire = Wire()
    with suppress(H3Error):
        for stream_id, data in feeds:
            wire.h3.stream_data(stream_id, data, False)


class _Quic:
    """What aioquic's H3Connection needs of a QUIC connection."""

    def __init__(self, is_client: bool) -> None:
        self.configuration = QuicConfiguration(is_client=is_client)
        self._quic_logger = None
        self._remote_max_datagram_frame_size = None
        self.sent: list[tuple[int, bytes, bool]] = []
        self._next = {False: 0 if is_client else 1, True: 2 if is_client else 3}

    def get_next_available_stream_id(self, is_unidirectional: bool = False) -> int:
        return self._next[is_unidirectional]

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        if stream_id == self._next[bool(stream_id & 2)]:
            self._next[bool(stream_id & 2)] += 4
        self.sent.append((stream_id, data, end_stream))


@pytest.mark.parametrize("capacity", [0, 4096])
@pytest.mark.parametrize("we_are_client", [False, True])
def test_aioquics_codec_on_the_other_side(we_are_client: bool, capacity: int) -> None:
    wire = Wire(
        is_client=we_are_client, qpack_max_table_capacity=capacity, qpack_blocked_streams=16
    )
    quic = _Quic(is_client=not we_are_client)
    other = AioquicH3(quic)  # type: ignore[arg-type]
    fields = GET if not we_are_client else [(b":status", b"200"), (b"server", b"x")]

    def deliver_ours() -> list[Any]:
        events: list[Any] = []
        for stream_id, data in list(wire.sent.items()):
            if data or stream_id in wire.ended:
                end = stream_id in wire.ended
                wire.ended.discard(stream_id)
                events += other.handle_event(StreamDataReceived(bytes(data), end, stream_id))
                data.clear()
        return events

    deliver_ours()
    for stream_id in (0, 4):
        other.send_headers(stream_id, fields)
        other.send_data(stream_id, b"body", end_stream=True)
    for stream_id, data, end in quic.sent:
        wire.h3.stream_data(stream_id, data, end)
    for stream_id in (0, 4):
        assert ("on_headers", stream_id, fields, False) in wire.told
        assert ("on_data", stream_id, b"body") in wire.told
        assert ("on_end", stream_id) in wire.told

    ours = [(b":status", b"200"), (b"x", b"y")] if not we_are_client else GET
    wire.h3.send_headers(8, ours)
    wire.h3.send_data(8, b"answer")
    wire.h3.send_trailers(8, [(b"x-sum", b"1")])
    events = deliver_ours()
    heads = [e.headers for e in events if isinstance(e, HeadersReceived)]
    assert heads == [ours, [(b"x-sum", b"1")]]
    assert b"".join(e.data for e in events if isinstance(e, DataReceived)) == b"answer"


def test_limits_are_what_is_announced() -> None:
    wire = Wire()
    assert limits.MAX_FIELD_SECTION_SIZE == 65536
    assert encode_settings({6: 65536}) in bytes(wire.sent[3])


def test_tiny_data_frames_are_delivered_together() -> None:
    wire = server()
    deliveries: list[bytes] = []
    wire.on_data = lambda _, data: deliveries.append(data)  # type: ignore[method-assign]
    pieces = [b"%02d" % (number % 100) for number in range(1000)]
    trailers = headers([(b"a", b"b")])
    data = headers(GET) + b"".join(frame(0, piece) for piece in pieces)
    before = wire.consumed
    wire.h3.stream_data(REQUEST, data + trailers, True)
    assert deliveries == [b"".join(pieces)]
    assert [entry[0] for entry in wire.told[-2:]] == ["on_headers", "on_trailers"]
    assert wire.consumed - before == len(data + trailers) - 2000


def test_a_trace_shows_each_data_frame() -> None:
    wire = server()
    logged: list[dict[str, Any]] = []
    trace = SimpleNamespace(log=lambda event: logged.append(getattr(event, "frame", {})))
    trace_codec(wire.h3, cast(Trace, trace))
    sizes = [1, 2, 63, 64, 300, 5]
    data = headers(GET) + b"".join(frame(0, b"x" * size) for size in sizes)
    wire.h3.stream_data(REQUEST, data, True)
    assert [f["raw"]["payload_length"] for f in logged if f.get("frame_type") == "data"] == sizes
    assert wire.payload == sum(sizes)


def test_a_trace_that_has_ended_gets_no_further_frame() -> None:
    wire = server()
    logged: list[Any] = []
    trace_codec(wire.h3, cast(Trace, SimpleNamespace(log=logged.append)))
    wire.h3.stream_data(REQUEST, headers(GET), False)
    before = len(logged)
    wire.h3.observer = None
    wire.h3.stream_data(REQUEST, frame(0, b"x"), True)
    wire.h3.send_data(REQUEST, b"y", end_stream=True)
    assert len(logged) == before > 0


@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_a_whole_message_is_what_its_parts_are(size: int) -> None:
    whole, parts = Wire(), Wire()
    head, content = [(b":status", b"200"), (b"a", b"b")], b"x" * size
    whole.h3.send_message(REQUEST, head, content)
    parts.h3.send_headers(REQUEST, head)
    parts.h3.send_data(REQUEST, content, end_stream=True)
    assert whole.sent == parts.sent
    assert whole.ended == parts.ended == {REQUEST}


@pytest.mark.parametrize("length", [1, 40, 200, 20_000])
def test_a_message_that_is_its_head_reads_the_same_in_one_piece_and_in_two(length: int) -> None:
    encoder = pylsqpack.Encoder()
    fields = [*GET, (b"x-long", b"v" * length)]
    _, block = encoder.encode(0, fields)
    frame = encode_frame(FrameType.HEADERS, block)
    alone, cut = Wire(), Wire()
    alone.h3.stream_data(0, frame, True)
    cut.h3.stream_data(0, frame[:-1], False)
    cut.h3.stream_data(0, frame[-1:], True)
    assert alone.told == cut.told == [("on_headers", 0, fields, True), ("on_end", 0)]
    assert alone.consumed == cut.consumed == len(frame)
    assert not alone.h3.unfinished_heads()


def test_a_head_alone_that_waits_for_the_encoder_stream_is_read_once_that_has_come() -> None:
    wire = Wire(qpack_max_table_capacity=4096, qpack_blocked_streams=4)
    encoder = pylsqpack.Encoder()
    instructions = encoder.apply_settings(max_table_capacity=4096, blocked_streams=4)
    wire.h3.stream_data(2, encode_varint(0) + SETTINGS, False)
    fields = [*GET, (b"x-field", b"in the dynamic table")]
    for number in (0, 4):
        more, block = encoder.encode(number, fields)
        instructions += more
    wire.h3.stream_data(4, encode_frame(FrameType.HEADERS, block), True)
    assert not wire.told
    wire.h3.stream_data(6, encode_varint(2) + instructions, False)
    assert wire.told == [("on_headers", 4, fields, True), ("on_end", 4)]


@pytest.mark.parametrize(
    "frame",
    [
        encode_frame(FrameType.HEADERS, b""),
        encode_frame(FrameType.HEADERS, b"\0\0" + b"\xd1" * 80)[:-1],
        encode_frame(FrameType.HEADERS, b"\0\0\xd1") + b"\0",
    ],
)
def test_what_only_resembles_a_head_alone_is_refused(frame: bytes) -> None:
    wire = Wire()
    with pytest.raises(H3Error):
        wire.h3.stream_data(0, frame, True)
