"""QUIC frames as qlog writes them (draft-ietf-quic-qlog-quic-events-13 section 7.13)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from quicedge.quic.ending import Ending
from quicedge.quic.events import ConnectionTerminated
from quicedge.quic.frames import (
    FRAME_ACK,
    FRAME_ACK_ECN,
    FRAME_PADDING,
    FRAME_STREAM_FIRST,
    FRAME_STREAM_LAST,
    STREAM_FIN,
    STREAM_LENGTH,
    STREAM_OFFSET,
    FrameError,
    decode_ack,
    decode_varint,
)
from quicedge.telemetry.events import ConnectionClosed

Frame = dict[str, Any]


def ack_frame(
    ranges: Iterable[tuple[int, int]], delay: float, counts: tuple[int, int, int] | None = None
) -> Frame:
    """`ranges` with `stop` exclusive; `delay` in seconds; `counts` of ECT(0), ECT(1), CE."""
    frame: Frame = {
        "frame_type": "ack",
        "ack_delay": round(delay * 1000, 3),
        "acked_ranges": [
            [start] if stop == start + 1 else [start, stop - 1] for start, stop in ranges
        ],
    }
    if counts is not None:
        frame["ect0"], frame["ect1"], frame["ce"] = counts
    return frame


def stream_frame(stream_id: int, offset: int, length: int, fin: bool) -> Frame:
    frame: Frame = {"frame_type": "stream", "stream_id": stream_id, "offset": offset}
    if fin:
        frame["fin"] = True
    frame["raw"] = {"payload_length": length}
    return frame


def lone_stream_frame(payload: bytes) -> tuple[int, int, int] | None:
    """Stream, offset and length of the STREAM frame without FIN that fills a packet, if one does.

    The short way for the packets that an upload is made of; `describe` reads all others.
    """
    kind = payload[0] if payload else 0
    if not FRAME_STREAM_FIRST <= kind <= FRAME_STREAM_LAST or kind & STREAM_FIN:
        return None
    try:
        stream_id, at = decode_varint(payload, 1)
        offset = 0
        if kind & STREAM_OFFSET:
            offset, at = decode_varint(payload, at)
        length = len(payload) - at
        if kind & STREAM_LENGTH:
            length, at = decode_varint(payload, at)
    except FrameError:
        return None
    return (stream_id, offset, length) if at + length == len(payload) else None


def describe(payload: bytes, ack_delay_exponent: int) -> list[Frame]:
    """The frames of a 1-RTT packet; what cannot be read ends the list as an unknown frame."""
    frames: list[Frame] = []
    at, end = 0, len(payload)
    kind = 0
    try:
        while at < end:
            start = at
            kind, at = decode_varint(payload, at)
            if FRAME_STREAM_FIRST <= kind <= FRAME_STREAM_LAST:
                frame, at = _stream(payload, at, kind)
            elif kind in (FRAME_ACK, FRAME_ACK_ECN):
                frame, at = _ack(payload, at, kind, ack_delay_exponent)
            elif kind == FRAME_PADDING:
                at = end - len(payload[at:].lstrip(b"\0"))
                frame = {"frame_type": "padding", "raw": {"length": at - start}}
            elif kind in _OTHERS:
                frame, at = _OTHERS[kind](payload, at)
            else:
                raise FrameError("unknown frame type")
            if at > end:
                raise FrameError("frame is cut short")
            frames.append(frame)
    except FrameError:
        frames.append({"frame_type": "unknown", "frame_type_bytes": kind})
    return frames


def _stream(payload: bytes, at: int, kind: int) -> tuple[Frame, int]:
    stream_id, at = decode_varint(payload, at)
    offset = 0
    if kind & STREAM_OFFSET:
        offset, at = decode_varint(payload, at)
    length = len(payload) - at
    if kind & STREAM_LENGTH:
        length, at = decode_varint(payload, at)
    return stream_frame(stream_id, offset, length, bool(kind & STREAM_FIN)), at + length


def _ack(payload: bytes, at: int, kind: int, exponent: int) -> tuple[Frame, int]:
    ranges, delay, at = decode_ack(payload, at)
    counts = None
    if kind == FRAME_ACK_ECN:
        ect0, at = decode_varint(payload, at)
        ect1, at = decode_varint(payload, at)
        ce, at = decode_varint(payload, at)
        counts = ect0, ect1, ce
    return ack_frame(ranges, (delay << exponent) / 1e6, counts), at


def _plain(
    frame_type: str, *members: str, **constants: str
) -> Callable[[bytes, int], tuple[Frame, int]]:
    """A reader of a frame that is a row of integers."""

    def read(payload: bytes, at: int) -> tuple[Frame, int]:
        frame: Frame = {"frame_type": frame_type, **constants}
        for member in members:
            frame[member], at = decode_varint(payload, at)
        return frame, at

    return read


def _sized(frame_type: str, build: Callable[[int], Frame]) -> Callable[..., tuple[Frame, int]]:
    """A reader of a frame that is a length and as many bytes."""

    def read(payload: bytes, at: int) -> tuple[Frame, int]:
        length, at = decode_varint(payload, at)
        return {"frame_type": frame_type, **build(length)}, at + length

    return read


def _data(frame_type: str) -> Callable[[bytes, int], tuple[Frame, int]]:
    """A reader of PATH_CHALLENGE and PATH_RESPONSE."""

    def read(payload: bytes, at: int) -> tuple[Frame, int]:
        return {"frame_type": frame_type, "data": payload[at : at + 8].hex()}, at + 8

    return read


def _crypto(payload: bytes, at: int) -> tuple[Frame, int]:
    offset, at = decode_varint(payload, at)
    length, at = decode_varint(payload, at)
    return crypto_frame(offset, length), at + length


def crypto_frame(offset: int, length: int) -> Frame:
    return {"frame_type": "crypto", "offset": offset, "raw": {"payload_length": length}}


def new_token_frame(length: int) -> Frame:
    """Of the token only its size: whoever has it can use it."""
    return {"frame_type": "new_token", "token": {"type": "resumption", "raw": {"length": length}}}


def _new_connection_id(payload: bytes, at: int) -> tuple[Frame, int]:
    sequence_number, at = decode_varint(payload, at)
    retire_prior_to, at = decode_varint(payload, at)
    length = payload[at] if at < len(payload) else 0
    at += 1
    cid = payload[at : at + length]
    return new_connection_id_frame(sequence_number, retire_prior_to, cid), at + length + 16


def new_connection_id_frame(sequence_number: int, retire_prior_to: int, cid: bytes) -> Frame:
    """Without its stateless reset token, which would let a reader end the connection."""
    return {
        "frame_type": "new_connection_id",
        "sequence_number": sequence_number,
        "retire_prior_to": retire_prior_to,
        "connection_id_length": len(cid),
        "connection_id": cid.hex(),
    }


def close_frame(error_code: int, frame_type: int | None, reason: str) -> Frame:
    """CONNECTION_CLOSE; `frame_type` is None for one of the application."""
    frame: Frame = {
        "frame_type": "connection_close",
        "error_space": "application" if frame_type is None else "transport",
        "error": "unknown" if frame_type is None else transport_error(error_code),
        "error_code": error_code,
        "reason": reason,
    }
    if frame_type is not None:
        frame["trigger_frame_type"] = frame_type
    return frame


def _close(payload: bytes, at: int, application: bool) -> tuple[Frame, int]:
    code, at = decode_varint(payload, at)
    kind = None
    if not application:
        kind, at = decode_varint(payload, at)
    length, at = decode_varint(payload, at)
    reason = payload[at : at + length].decode("utf-8", "replace")
    return close_frame(code, kind, reason), at + length


_TRANSPORT_ERRORS = (
    "no_error", "internal_error", "connection_refused", "flow_control_error", "stream_limit_error",
    "stream_state_error", "final_size_error", "frame_encoding_error", "transport_parameter_error",
    "connection_id_limit_error", "protocol_violation", "invalid_token", "application_error",
    "crypto_buffer_exceeded", "key_update_error", "aead_limit_reached", "no_viable_path",
)  # fmt: skip


def transport_error(code: int) -> str:
    """The name of an error code of RFC 9000 section 20.1, or of a TLS alert."""
    if code < len(_TRANSPORT_ERRORS):
        return _TRANSPORT_ERRORS[code]
    return f"crypto_error_0x{code:03x}" if 0x100 <= code < 0x200 else "unknown"


_TRIGGERS = {
    Ending.IDLE_TIMEOUT: "idle_timeout",
    Ending.STATELESS_RESET: "stateless_reset",
    Ending.HANDSHAKE_TIMEOUT: "aborted",
    Ending.ABORTED: "aborted",
}
_BY_PEER = (Ending.PEER_CLOSE, Ending.STATELESS_RESET)


def connection_closed(event: ConnectionTerminated, ending: Ending) -> ConnectionClosed:
    """The end of a connection; an error code is there only when one of the two sent it."""
    initiator = "remote" if ending in _BY_PEER else "local"
    if not ending.has_code:
        return ConnectionClosed(
            initiator=initiator, reason=event.reason_phrase, trigger=_TRIGGERS[ending]
        )
    code, application = event.error_code, event.frame_type is None
    return ConnectionClosed(
        initiator=initiator,
        application_error="unknown" if application else None,
        connection_error=None if application else transport_error(code),
        error_code=code,
        reason=event.reason_phrase,
        trigger="application" if application or not code else "error",
    )


_BIDI, _UNI = {"stream_type": "bidirectional"}, {"stream_type": "unidirectional"}
_UNKNOWN_ERROR = {"error": "unknown"}  # its meaning is the application's

_OTHERS: dict[int, Callable[[bytes, int], tuple[Frame, int]]] = {
    0x01: _plain("ping"),
    0x04: _plain("reset_stream", "stream_id", "error_code", "final_size", **_UNKNOWN_ERROR),
    0x05: _plain("stop_sending", "stream_id", "error_code", **_UNKNOWN_ERROR),
    0x06: _crypto,
    0x07: _sized("new_token", lambda length: new_token_frame(length)),
    0x10: _plain("max_data", "maximum"),
    0x11: _plain("max_stream_data", "stream_id", "maximum"),
    0x12: _plain("max_streams", "maximum", **_BIDI),
    0x13: _plain("max_streams", "maximum", **_UNI),
    0x14: _plain("data_blocked", "limit"),
    0x15: _plain("stream_data_blocked", "stream_id", "limit"),
    0x16: _plain("streams_blocked", "limit", **_BIDI),
    0x17: _plain("streams_blocked", "limit", **_UNI),
    0x18: _new_connection_id,
    0x19: _plain("retire_connection_id", "sequence_number"),
    0x1A: _data("path_challenge"),
    0x1B: _data("path_response"),
    0x1C: lambda payload, at: _close(payload, at, application=False),
    0x1D: lambda payload, at: _close(payload, at, application=True),
    0x1E: _plain("handshake_done"),
    0x31: _sized("datagram", lambda length: {"raw": {"payload_length": length}}),
}


def endpoint_of(path: Any) -> dict[str, Any]:
    """A network path's far end as qlog's TupleEndpointInfo."""
    remote = getattr(path, "remote", path)
    family = "v6" if ":" in str(remote[0]) else "v4"
    return {f"ip_{family}": str(remote[0]), f"port_{family}": remote[1]}
