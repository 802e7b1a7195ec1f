"""Error codes of HTTP/3, QPACK and HTTP/2, and how they map onto each other and to status codes."""

from __future__ import annotations

from enum import IntEnum


class H3ErrorCode(IntEnum):
    """RFC 9114 section 8.1 and RFC 9204 section 6."""

    NO_ERROR = 0x100
    GENERAL_PROTOCOL_ERROR = 0x101
    INTERNAL_ERROR = 0x102
    STREAM_CREATION_ERROR = 0x103
    CLOSED_CRITICAL_STREAM = 0x104
    FRAME_UNEXPECTED = 0x105
    FRAME_ERROR = 0x106
    EXCESSIVE_LOAD = 0x107
    ID_ERROR = 0x108
    SETTINGS_ERROR = 0x109
    MISSING_SETTINGS = 0x10A
    REQUEST_REJECTED = 0x10B
    REQUEST_CANCELLED = 0x10C
    REQUEST_INCOMPLETE = 0x10D
    MESSAGE_ERROR = 0x10E
    CONNECT_ERROR = 0x10F
    VERSION_FALLBACK = 0x110
    QPACK_DECOMPRESSION_FAILED = 0x200
    QPACK_ENCODER_STREAM_ERROR = 0x201
    QPACK_DECODER_STREAM_ERROR = 0x202


_UPSTREAM_STATUS = {
    "connect_timeout": 504,
    "first_byte_timeout": 504,
    "idle_timeout": 504,
    "no_server": 503,
    "overloaded": 503,
}


def status_of_upstream_error(kind: str) -> int:
    """The status a client gets for an `UpstreamError.kind` (RFC 9110 section 15.6)."""
    return _UPSTREAM_STATUS.get(kind, 502)
