"""Encoding and decoding of HTTP/3 frames and settings (RFC 9114 section 7, RFC 9204 section 5)."""

from __future__ import annotations

from enum import IntEnum

from quicedge.quic.frames import encode_varint


class FrameType(IntEnum):
    """RFC 9114 section 7.2 and RFC 9218 section 7.2."""

    DATA = 0x0
    HEADERS = 0x1
    CANCEL_PUSH = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    GOAWAY = 0x7
    MAX_PUSH_ID = 0xD
    PRIORITY_UPDATE = 0xF0700
    PRIORITY_UPDATE_PUSH = 0xF0701


class StreamType(IntEnum):
    """Unidirectional streams (RFC 9114 section 6.2, RFC 9204 section 4.2)."""

    CONTROL = 0x0
    PUSH = 0x1
    QPACK_ENCODER = 0x2
    QPACK_DECODER = 0x3


class Setting(IntEnum):
    """RFC 9114 section 7.2.4.1, RFC 9204 section 5 and RFC 9220 section 5."""

    QPACK_MAX_TABLE_CAPACITY = 0x1
    MAX_FIELD_SECTION_SIZE = 0x6
    QPACK_BLOCKED_STREAMS = 0x7
    ENABLE_CONNECT_PROTOCOL = 0x8


CONTROL_FRAMES = frozenset(
    (
        FrameType.CANCEL_PUSH,
        FrameType.SETTINGS,
        FrameType.GOAWAY,
        FrameType.MAX_PUSH_ID,
        FrameType.PRIORITY_UPDATE,
        FrameType.PRIORITY_UPDATE_PUSH,
    )
)
"""Frame types allowed on the control stream (RFC 9114 section 7.2)."""

HTTP2_FRAMES = frozenset((0x2, 0x6, 0x8, 0x9))
"""Reserved frame types from HTTP/2 (RFC 9114 section 11.2.1)."""

HTTP2_SETTINGS = frozenset((0x0, 0x2, 0x3, 0x4, 0x5))
"""Reserved settings from HTTP/2 (RFC 9114 section 11.2.2)."""


class Truncated(ValueError):
    """More bytes are needed."""


def decode_varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Decode the integer at `at`; returns it and the position after it. Raises Truncated."""
    if at >= len(data):
        raise Truncated
    first = data[at]
    size = 1 << (first >> 6)
    end = at + size
    if end > len(data):
        raise Truncated
    return int.from_bytes(data[at:end], "big") & ((1 << (8 * size - 2)) - 1), end


def encode_frame(kind: int, payload: bytes) -> bytes:
    return encode_varint(kind) + encode_varint(len(payload)) + payload


def encode_settings(settings: dict[int, int]) -> bytes:
    return b"".join(encode_varint(k) + encode_varint(v) for k, v in settings.items())


def decode_settings(payload: bytes) -> dict[int, int]:
    """Decode a SETTINGS payload; raises Truncated or ValueError (H3_SETTINGS_ERROR)."""
    settings: dict[int, int] = {}
    at = 0
    while at < len(payload):
        identifier, at = decode_varint(payload, at)
        value, at = decode_varint(payload, at)
        # RFC 9114 section 7.2.4: the same identifier MUST NOT occur more than once; section
        # 7.2.4.1: receipt of HTTP/2's MUST be treated as an error H3_SETTINGS_ERROR.
        if identifier in settings or identifier in HTTP2_SETTINGS:
            raise ValueError(f"setting 0x{identifier:x} is repeated or reserved")
        settings[identifier] = value
    return settings


__all__ = [
    "CONTROL_FRAMES",
    "HTTP2_FRAMES",
    "FrameType",
    "Setting",
    "StreamType",
    "Truncated",
    "decode_settings",
    "decode_varint",
    "encode_frame",
    "encode_settings",
    "encode_varint",
]
