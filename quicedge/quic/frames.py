"""Every QUIC frame: how it is parsed, encoded and described, and which packets may carry it.

One table (`FRAME_TYPES`) serves the receive path, the packer and qlog. RFC 9000 sections 12.4 and
19, RFC 9221; descriptions follow draft-ietf-quic-qlog-quic-events-13 section 7.13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple

import msgspec

from quicedge import native
from quicedge.quic.ecn import Counts
from quicedge.quic.errors import transport_error_name

MAX_VARINT = (1 << 62) - 1
MAX_STREAM_COUNT = 1 << 60
"""RFC 9000 section 19.11: a count beyond this cannot be expressed as a stream ID."""
PATH_DATA_LENGTH = 8
RESET_TOKEN_LENGTH = 16
MAX_CONNECTION_ID_LENGTH = 20


class Epoch(IntEnum):
    """Encryption levels, numbered as aioquic's TLS engine numbers them."""

    INITIAL = 0
    ZERO_RTT = 1
    HANDSHAKE = 2
    ONE_RTT = 3


class FrameType(IntEnum):
    PADDING = 0x00
    PING = 0x01
    ACK = 0x02
    ACK_ECN = 0x03
    RESET_STREAM = 0x04
    STOP_SENDING = 0x05
    CRYPTO = 0x06
    NEW_TOKEN = 0x07
    STREAM = 0x08
    STREAM_LAST = 0x0F
    MAX_DATA = 0x10
    MAX_STREAM_DATA = 0x11
    MAX_STREAMS_BIDI = 0x12
    MAX_STREAMS_UNI = 0x13
    DATA_BLOCKED = 0x14
    STREAM_DATA_BLOCKED = 0x15
    STREAMS_BLOCKED_BIDI = 0x16
    STREAMS_BLOCKED_UNI = 0x17
    NEW_CONNECTION_ID = 0x18
    RETIRE_CONNECTION_ID = 0x19
    PATH_CHALLENGE = 0x1A
    PATH_RESPONSE = 0x1B
    TRANSPORT_CLOSE = 0x1C
    APPLICATION_CLOSE = 0x1D
    HANDSHAKE_DONE = 0x1E
    DATAGRAM = 0x30
    DATAGRAM_WITH_LENGTH = 0x31


STREAM_FIN = 0x01
STREAM_LENGTH = 0x02
STREAM_OFFSET = 0x04


class FrameError(ValueError):
    """A malformed frame: connection error FRAME_ENCODING_ERROR."""


# --- variable-length integers (RFC 9000 section 16) ---------------------------------------------


_ONE_BYTE = tuple(bytes((value,)) for value in range(0x40))


def encode_varint(value: int) -> bytes:
    """A variable-length integer in its shortest form."""
    if value < 0x40:
        return _ONE_BYTE[value]
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x40000000:
        return (value | 0x80000000).to_bytes(4, "big")
    return (value | 0xC000000000000000).to_bytes(8, "big")


def decode_varint(data: bytes, at: int) -> tuple[int, int]:
    """The integer at `at` and the offset after it; raises FrameError if truncated."""
    try:
        first = data[at]
        if first < 0x40:
            return first, at + 1
        if first < 0x80:
            return (first & 0x3F) << 8 | data[at + 1], at + 2
    except IndexError:
        raise FrameError("truncated integer") from None
    size = 4 if first < 0xC0 else 8
    end = at + size
    if end > len(data):
        raise FrameError("truncated integer")
    return int.from_bytes(data[at:end], "big") & ((1 << (8 * size - 2)) - 1), end


def _bytes(data: bytes, at: int, length: int) -> tuple[bytes, int]:
    end = at + length
    if end > len(data):
        raise FrameError("frame is cut short")
    return data[at:end], end


# --- frames -------------------------------------------------------------------------------------


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A parsed frame. `encode` returns its bytes, `describe` its qlog representation."""

    def encode(self) -> bytes:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        raise NotImplementedError


class _Integers(Frame, frozen=True, gc=False):
    """A frame that consists of integers; members have qlog's names."""

    kind: ClassVar[int]
    qlog_type: ClassVar[str]
    qlog_constants: ClassVar[dict[str, Any]] = {}

    @classmethod
    def parse(cls, data: bytes, at: int, kind: int) -> tuple[Frame, int]:
        values = []
        for _ in cls.__struct_fields__:
            value, at = decode_varint(data, at)
            values.append(value)
        return cls(*values), at

    def encode(self) -> bytes:
        values = [encode_varint(getattr(self, name)) for name in self.__struct_fields__]
        return encode_varint(self.kind) + b"".join(values)

    def describe(self) -> dict[str, Any]:
        members = {name: getattr(self, name) for name in self.__struct_fields__}
        return {"frame_type": self.qlog_type, **self.qlog_constants, **members}


class _StreamCount(_Integers, frozen=True, gc=False):
    """A frame with a number of streams, which cannot exceed 2^60."""

    @classmethod
    def parse(cls, data: bytes, at: int, kind: int) -> tuple[Frame, int]:
        count, at = decode_varint(data, at)
        if count > MAX_STREAM_COUNT:
            raise FrameError("stream count exceeds 2^60")
        return cls(count), at


class Padding(Frame, frozen=True, gc=False):
    """A run of PADDING frames, the type included."""

    length: int

    @classmethod
    def parse(cls, data: bytes, at: int, kind: int) -> tuple[Frame, int]:
        end = len(data) - len(data[at:].lstrip(b"\0"))
        return cls(end - at + 1), end

    def encode(self) -> bytes:
        return bytes(self.length)

    def describe(self) -> dict[str, Any]:
        return {"frame_type": "padding", "raw": {"length": self.length}}


class Ping(_Integers, frozen=True, gc=False):
    kind = FrameType.PING
    qlog_type = "ping"


class Ack(Frame, frozen=True, gc=False):
    """ACK; `ranges` ascend, their `stop` exclusive; `delay` is encoded with the exponent."""

    ranges: list[tuple[int, int]]
    delay: int
    ecn: Counts | None = None

    @classmethod
    def parse(cls, data: bytes, at: int, kind: int) -> tuple[Ack, int]:
        found = parse_ack(data, at, kind)
        if found is None:
            raise FrameError("ACK is cut short, or of a negative packet number")
        ranges, delay, ecn, end = found
        return cls(ranges, delay, ecn), end

    def encode(self) -> bytes:
        return encode_ack(self.ranges, self.delay, 1 << 16, self.ecn)[0]

    def describe(self, exponent: int = 3) -> dict[str, Any]:
        frame: dict[str, Any] = {
            "frame_type": "ack",
            "ack_delay": round((self.delay << exponent) / 1000, 3),
            "acked_ranges": [
                [start] if stop == start + 1 else [start, stop - 1] for start, stop in self.ranges
            ],
        }
        if self.ecn is not None:
            frame["ect0"], frame["ect1"], frame["ce"] = self.ecn
        return frame


@native.twin
def parse_ack(
    payload: bytes, at: int, kind: int
) -> tuple[list[tuple[int, int]], int, Counts | None, int] | None:
    """The ACK frame of type `kind` whose fields start at `at`: its ranges, ascending, its delay and
    ECN counts, and where it ends; None when it is malformed."""
    try:
        largest, at = decode_varint(payload, at)
        delay, at = decode_varint(payload, at)
        count, at = decode_varint(payload, at)
        first, at = decode_varint(payload, at)
        start = largest - first
        # RFC 9000 section 19.3.1: if any computed packet number is negative, an endpoint MUST
        # generate a connection error of type FRAME_ENCODING_ERROR.
        if start < 0:
            return None
        ranges = [(start, largest + 1)]
        for _ in range(count):
            gap, at = decode_varint(payload, at)
            length, at = decode_varint(payload, at)
            stop = start - gap - 1
            start = stop - length - 1
            if start < 0:
                return None
            ranges.append((start, stop))
        ranges.reverse()
        if kind != FrameType.ACK_ECN:
            return ranges, delay, None, at
        ect0, at = decode_varint(payload, at)
        ect1, at = decode_varint(payload, at)
        ce, at = decode_varint(payload, at)
        return ranges, delay, (ect0, ect1, ce), at
    except FrameError:
        return None


_ACK = bytes((FrameType.ACK,))


def encode_ack(
    ranges: Sequence[tuple[int, int]], delay: int, room: int, ecn: Counts | None = None
) -> tuple[bytes, int]:
    """An ACK frame of the newest of `ranges` (ascending, `stop` exclusive) that fit in `room`.

    `delay` is encoded already (RFC 9000 section 19.3). Returns the frame and how many ranges it
    holds.
    """
    start, stop = ranges[-1]
    if len(ranges) == 1 and ecn is None:
        first = encode_varint(stop - start - 1)
        return b"".join((_ACK, encode_varint(stop - 1), encode_varint(delay), b"\0", first)), 1
    tail = b"" if ecn is None else b"".join(map(encode_varint, ecn))
    head = encode_varint(stop - 1) + encode_varint(delay)
    first = encode_varint(stop - start - 1)
    left = room - 1 - len(head) - len(first) - len(tail) - 2
    gaps = []
    smallest = start
    for index in range(len(ranges) - 2, -1, -1):
        start, stop = ranges[index]
        gap = encode_varint(smallest - stop - 1) + encode_varint(stop - start - 1)
        left -= len(gap)
        if left < 0:
            break
        gaps.append(gap)
        smallest = start
    kind = FrameType.ACK if ecn is None else FrameType.ACK_ECN
    frame = b"".join((bytes((kind,)), head, encode_varint(len(gaps)), first, *gaps, tail))
    return frame, len(gaps) + 1


class ResetStream(_Integers, frozen=True, gc=False):
    kind = FrameType.RESET_STREAM
    qlog_type = "reset_stream"
    qlog_constants: ClassVar[dict[str, Any]] = {"error": "unknown"}

    stream_id: int
    error_code: int
    final_size: int


class StopSending(_Integers, frozen=True, gc=False):
    kind = FrameType.STOP_SENDING
    qlog_type = "stop_sending"
    qlog_constants: ClassVar[dict[str, Any]] = {"error": "unknown"}

    stream_id: int
    error_code: int


class Crypto(Frame, frozen=True, gc=False):
    offset: int
    data: bytes

    @classmethod
    def parse(cls, data: bytes, at: int, kind: int) -> tuple[Crypto, int]:
        offset, at = decode_varint(data, at)
        length, at = decode_varint(data, at)
        if offset + length > MAX_VARINT:
            raise FrameError("offset + length cannot exceed 2^62 - 1")
        content, at = _bytes(data, at, length)
        return cls(offset, content), at

    def encode(self) -> bytes:
        head = bytes((FrameType.CRYPTO,)) + encode_varint(self.offset)
        return head + encode_varint(len(self.data)) + self.data

    def describe(self) -> dict[str, Any]:
        raw = {"payload_length": len(self.data)}
        return {"frame_type": "crypto", "offset": self.offset, "raw": raw}


class NewToken(Frame, frozen=True, gc=False):
    token: bytes

    @classmethod
    def parse(cls, data: bytes, at: int, kind: int) -> tuple[NewToken, int]:
        length, at = decode_varint(data, at)
        token, at = _bytes(data, at, length)
        return cls(token), at

    def encode(self) -> bytes:
        return bytes((FrameType.NEW_TOKEN,)) + encode_varint(len(self.token)) + self.token

    def describe(self) -> dict[str, Any]:
        """Only the size of the token, as anyone could use it."""
        token = {"type": "resumption", "raw": {"length": len(self.token)}}
        return {"frame_type": "new_token", "token": token}


class Stream(Frame, frozen=True, gc=False):
    stream_id: int
    offset: int
    data: bytes
    fin: bool

    @classmethod
    def parse(cls, data: bytes, at: int, kind: int) -> tuple[Stream, int]:
        stream_id, at = decode_varint(data, at)
        offset = 0
        if kind & STREAM_OFFSET:
            offset, at = decode_varint(data, at)
        if kind & STREAM_LENGTH:
            length, at = decode_varint(data, at)
            stop = at + length
            if stop > len(data):
                raise FrameError("frame is cut short")
        else:
            stop = len(data)
        if offset + stop - at > MAX_VARINT:
            raise FrameError("offset + length cannot exceed 2^62 - 1")
        return cls(stream_id, offset, data[at:stop], bool(kind & STREAM_FIN)), stop

    def encode(self) -> bytes:
        kind = FrameType.STREAM | STREAM_LENGTH | (STREAM_FIN if self.fin else 0)
        head = stream_head(self.stream_id, self.offset)
        kind |= STREAM_OFFSET if self.offset else 0
        return bytes((kind,)) + head + encode_varint(len(self.data)) + self.data

    def describe(self) -> dict[str, Any]:
        frame: dict[str, Any] = {
            "frame_type": "stream",
            "stream_id": self.stream_id,
            "offset": self.offset,
        }
        if self.fin:
            frame["fin"] = True
        frame["raw"] = {"payload_length": len(self.data)}
        return frame


def stream_head(stream_id: int, offset: int) -> bytes:
    """What follows the type of a STREAM frame: its ID, and its offset unless that is 0."""
    return encode_varint(stream_id) + (encode_varint(offset) if offset else b"")


class MaxData(_Integers, frozen=True, gc=False):
    kind = FrameType.MAX_DATA
    qlog_type = "max_data"

    maximum: int


class MaxStreamData(_Integers, frozen=True, gc=False):
    kind = FrameType.MAX_STREAM_DATA
    qlog_type = "max_stream_data"

    stream_id: int
    maximum: int


_BIDI: dict[str, Any] = {"stream_type": "bidirectional"}
_UNI: dict[str, Any] = {"stream_type": "unidirectional"}


class MaxStreamsBidi(_StreamCount, frozen=True, gc=False):
    kind = FrameType.MAX_STREAMS_BIDI
    qlog_type = "max_streams"
    qlog_constants = _BIDI

    maximum: int


class MaxStreamsUni(_StreamCount, frozen=True, gc=False):
    kind = FrameType.MAX_STREAMS_UNI
    qlog_type = "max_streams"
    qlog_constants = _UNI

    maximum: int


class DataBlocked(_Integers, frozen=True, gc=False):
    kind = FrameType.DATA_BLOCKED
    qlog_type = "data_blocked"

    limit: int


class StreamDataBlocked(_Integers, frozen=True, gc=False):
    kind = FrameType.STREAM_DATA_BLOCKED
    qlog_type = "stream_data_blocked"

    stream_id: int
    limit: int


class StreamsBlockedBidi(_StreamCount, frozen=True, gc=False):
    kind = FrameType.STREAMS_BLOCKED_BIDI
    qlog_type = "streams_blocked"
    qlog_constants = _BIDI

    limit: int


class StreamsBlockedUni(_StreamCount, frozen=True, gc=False):
    kind = FrameType.STREAMS_BLOCKED_UNI
    qlog_type = "streams_blocked"
    qlog_constants = _UNI

    limit: int


class NewConnectionId(Frame, frozen=True, gc=False):
    sequence_number: int
    retire_prior_to: int
    connection_id: bytes
    reset_token: bytes

    @classmethod
    def parse(cls, data: bytes, at: int, kind: int) -> tuple[NewConnectionId, int]:
        sequence_number, at = decode_varint(data, at)
        retire_prior_to, at = decode_varint(data, at)
        length, at = _bytes(data, at, 1)
        connection_id, at = _bytes(data, at, length[0])
        reset_token, at = _bytes(data, at, RESET_TOKEN_LENGTH)
        # RFC 9000 section 19.15: values less than 1 and greater than 20 are invalid, and so is a
        # Retire Prior To greater than the Sequence Number.
        if not 1 <= length[0] <= MAX_CONNECTION_ID_LENGTH:
            raise FrameError("connection ID must have 1 to 20 bytes")
        if retire_prior_to > sequence_number:
            raise FrameError("Retire Prior To is greater than the Sequence Number")
        return cls(sequence_number, retire_prior_to, connection_id, reset_token), at

    def encode(self) -> bytes:
        return b"".join((
            bytes((FrameType.NEW_CONNECTION_ID,)), encode_varint(self.sequence_number),
            encode_varint(self.retire_prior_to), bytes((len(self.connection_id),)),
            self.connection_id, self.reset_token,
        ))  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Without the stateless reset token, with which a reader could terminate the connection."""
        return {
            "frame_type": "new_connection_id",
            "sequence_number": self.sequence_number,
            "retire_prior_to": self.retire_prior_to,
            "connection_id_length": len(self.connection_id),
            "connection_id": self.connection_id.hex(),
        }


class RetireConnectionId(_Integers, frozen=True, gc=False):
    kind = FrameType.RETIRE_CONNECTION_ID
    qlog_type = "retire_connection_id"

    sequence_number: int


class _PathData(Frame, frozen=True, gc=False):
    kind: ClassVar[int]
    qlog_type: ClassVar[str]

    data: bytes

    @classmethod
    def parse(cls, data: bytes, at: int, kind: int) -> tuple[Frame, int]:
        content, at = _bytes(data, at, PATH_DATA_LENGTH)
        return cls(content), at

    def encode(self) -> bytes:
        return bytes((self.kind,)) + self.data

    def describe(self) -> dict[str, Any]:
        return {"frame_type": self.qlog_type, "data": self.data.hex()}


class PathChallenge(_PathData, frozen=True, gc=False):
    kind = FrameType.PATH_CHALLENGE
    qlog_type = "path_challenge"


class PathResponse(_PathData, frozen=True, gc=False):
    kind = FrameType.PATH_RESPONSE
    qlog_type = "path_response"


class ConnectionClose(Frame, frozen=True, gc=False):
    """CONNECTION_CLOSE; `frame_type` is None if the application closed."""

    error_code: int
    frame_type: int | None
    reason: bytes

    @classmethod
    def parse(cls, data: bytes, at: int, kind: int) -> tuple[ConnectionClose, int]:
        error_code, at = decode_varint(data, at)
        frame_type = None
        if kind == FrameType.TRANSPORT_CLOSE:
            frame_type, at = decode_varint(data, at)
        length, at = decode_varint(data, at)
        reason, at = _bytes(data, at, length)
        return cls(error_code, frame_type, reason), at

    def encode(self) -> bytes:
        if self.frame_type is None:
            head = bytes((FrameType.APPLICATION_CLOSE,)) + encode_varint(self.error_code)
        else:
            head = bytes((FrameType.TRANSPORT_CLOSE,)) + encode_varint(self.error_code)
            head += encode_varint(self.frame_type)
        return head + encode_varint(len(self.reason)) + self.reason

    def describe(self) -> dict[str, Any]:
        application = self.frame_type is None
        frame: dict[str, Any] = {
            "frame_type": "connection_close",
            "error_space": "application" if application else "transport",
            "error": "unknown" if application else transport_error_name(self.error_code),
            "error_code": self.error_code,
            "reason": self.reason.decode("utf-8", "replace"),
        }
        if not application:
            frame["trigger_frame_type"] = self.frame_type
        return frame


class HandshakeDone(_Integers, frozen=True, gc=False):
    kind = FrameType.HANDSHAKE_DONE
    qlog_type = "handshake_done"


class Datagram(Frame, frozen=True, gc=False):
    """DATAGRAM (RFC 9221)."""

    data: bytes

    @classmethod
    def parse(cls, data: bytes, at: int, kind: int) -> tuple[Datagram, int]:
        length = len(data) - at
        if kind == FrameType.DATAGRAM_WITH_LENGTH:
            length, at = decode_varint(data, at)
        content, at = _bytes(data, at, length)
        return cls(content), at

    def encode(self) -> bytes:
        head = bytes((FrameType.DATAGRAM_WITH_LENGTH,)) + encode_varint(len(self.data))
        return head + self.data

    def describe(self) -> dict[str, Any]:
        return {"frame_type": "datagram", "raw": {"payload_length": len(self.data)}}


# --- the table ----------------------------------------------------------------------------------


class FrameSpec(NamedTuple):
    """Properties of a frame type."""

    name: str
    parse: Callable[[bytes, int, int], tuple[Any, int]]
    epochs: int
    """Bit `1 << epoch` is set for each epoch whose packets may carry it (RFC 9000 table 3)."""
    eliciting: bool = True
    """Whether it makes a packet ack-eliciting."""
    probing: bool = False
    """Whether it is a probing frame (RFC 9000 section 9.1)."""


def _epochs(letters: str) -> int:
    """A set of epochs by the letters of RFC 9000 table 3."""
    by_letter = {"I": Epoch.INITIAL, "H": Epoch.HANDSHAKE, "0": Epoch.ZERO_RTT, "1": Epoch.ONE_RTT}
    return sum(1 << by_letter[letter] for letter in letters)


def _spec(
    name: str,
    frame: type[Any],
    letters: str,
    *,
    eliciting: bool = True,
    probing: bool = False,
) -> FrameSpec:
    return FrameSpec(name, frame.parse, _epochs(letters), eliciting, probing)


FRAME_TYPES: dict[int, FrameSpec] = {
    FrameType.PADDING: _spec("PADDING", Padding, "IH01", eliciting=False, probing=True),
    FrameType.PING: _spec("PING", Ping, "IH01"),
    FrameType.ACK: _spec("ACK", Ack, "IH1", eliciting=False),
    FrameType.ACK_ECN: _spec("ACK", Ack, "IH1", eliciting=False),
    FrameType.RESET_STREAM: _spec("RESET_STREAM", ResetStream, "01"),
    FrameType.STOP_SENDING: _spec("STOP_SENDING", StopSending, "01"),
    FrameType.CRYPTO: _spec("CRYPTO", Crypto, "IH1"),
    FrameType.NEW_TOKEN: _spec("NEW_TOKEN", NewToken, "1"),
    **{
        kind: _spec("STREAM", Stream, "01")
        for kind in range(FrameType.STREAM, FrameType.STREAM_LAST + 1)
    },
    FrameType.MAX_DATA: _spec("MAX_DATA", MaxData, "01"),
    FrameType.MAX_STREAM_DATA: _spec("MAX_STREAM_DATA", MaxStreamData, "01"),
    FrameType.MAX_STREAMS_BIDI: _spec("MAX_STREAMS", MaxStreamsBidi, "01"),
    FrameType.MAX_STREAMS_UNI: _spec("MAX_STREAMS", MaxStreamsUni, "01"),
    FrameType.DATA_BLOCKED: _spec("DATA_BLOCKED", DataBlocked, "01"),
    FrameType.STREAM_DATA_BLOCKED: _spec("STREAM_DATA_BLOCKED", StreamDataBlocked, "01"),
    FrameType.STREAMS_BLOCKED_BIDI: _spec("STREAMS_BLOCKED", StreamsBlockedBidi, "01"),
    FrameType.STREAMS_BLOCKED_UNI: _spec("STREAMS_BLOCKED", StreamsBlockedUni, "01"),
    FrameType.NEW_CONNECTION_ID: _spec("NEW_CONNECTION_ID", NewConnectionId, "01", probing=True),
    # Section 12.5 excludes it from 0-RTT: nothing was received yet that it could answer.
    FrameType.RETIRE_CONNECTION_ID: _spec("RETIRE_CONNECTION_ID", RetireConnectionId, "1"),
    FrameType.PATH_CHALLENGE: _spec("PATH_CHALLENGE", PathChallenge, "01", probing=True),
    FrameType.PATH_RESPONSE: _spec("PATH_RESPONSE", PathResponse, "1", probing=True),
    FrameType.TRANSPORT_CLOSE: _spec("CONNECTION_CLOSE", ConnectionClose, "IH01", eliciting=False),
    FrameType.APPLICATION_CLOSE: _spec("CONNECTION_CLOSE", ConnectionClose, "01", eliciting=False),
    FrameType.HANDSHAKE_DONE: _spec("HANDSHAKE_DONE", HandshakeDone, "1"),
    FrameType.DATAGRAM: _spec("DATAGRAM", Datagram, "01"),
    FrameType.DATAGRAM_WITH_LENGTH: _spec("DATAGRAM", Datagram, "01"),
}
"""By type. `Frame` classes parse what follows the type."""


def parse_frame(payload: bytes, at: int) -> tuple[int, Any, int]:
    """The type and the frame at `at`, and the offset after it; raises FrameError."""
    kind, at = decode_varint(payload, at)
    spec = FRAME_TYPES.get(kind)
    if spec is None:
        raise FrameError("unknown frame type")
    frame, at = spec.parse(payload, at, kind)
    return kind, frame, at


def describe(payload: bytes, ack_delay_exponent: int) -> list[dict[str, Any]]:
    """The frames of a packet for qlog; an unreadable rest ends the list as an unknown frame."""
    frames: list[dict[str, Any]] = []
    at, end = 0, len(payload)
    kind = 0
    try:
        while at < end:
            start = at
            kind = decode_varint(payload, at)[0]
            _, frame, at = parse_frame(payload, at)
            if isinstance(frame, Ack):
                frames.append(frame.describe(ack_delay_exponent))
            elif isinstance(frame, Padding):
                # The type may be encoded in more than one byte.
                frames.append(Padding(at - start).describe())
            else:
                frames.append(frame.describe())
    except FrameError:
        frames.append({"frame_type": "unknown", "frame_type_bytes": kind})
    return frames


def lone_stream_frame(payload: bytes) -> Stream | None:
    """The STREAM frame without FIN that fills a packet, if any, as in bulk transfers."""
    kind = payload[0] if payload else 0
    if not FrameType.STREAM <= kind <= FrameType.STREAM_LAST or kind & STREAM_FIN:
        return None
    try:
        frame, at = Stream.parse(payload, 1, kind)
    except FrameError:
        return None
    return frame if at == len(payload) else None
