"""HTTP/2 frames (RFC 9113 sections 4 and 6): types, flags, settings, and their encoding."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER: Final = 9
"""Bytes before a frame's payload."""
DEFAULT_WINDOW: Final = 65_535
MAX_WINDOW: Final = 2**31 - 1
MAX_STREAM_ID: Final = 2**31 - 1
SMALLEST_MAX_FRAME: Final = 16_384
LARGEST_MAX_FRAME: Final = 2**24 - 1

read_header = struct.Struct(">IBI").unpack_from
"""Length and type in one integer, flags, stream ID with the reserved bit."""
_HEADER = struct.Struct(">IBI").pack
read_setting = struct.Struct(">HI").iter_unpack
_SETTING = struct.Struct(">HI").pack
_U32 = struct.Struct(">I").pack


class FrameType(IntEnum):
    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9
    PRIORITY_UPDATE = 0x10
    """RFC 9218 section 7.1."""


class Flag(IntFlag):
    END_STREAM = 0x1
    ACK = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6
    ENABLE_CONNECT_PROTOCOL = 0x8
    """RFC 8441 section 3."""
    NO_RFC7540_PRIORITIES = 0x9
    """RFC 9218 section 2.1."""


def frame_header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """The nine bytes before a payload."""
    return _HEADER(length << 8 | kind, flags, stream_id)


def settings_frame(settings: Mapping[int, int]) -> bytes:
    payload = b"".join([_SETTING(setting, value) for setting, value in settings.items()])
    return frame_header(FrameType.SETTINGS, 0, 0, len(payload)) + payload


SETTINGS_ACK: Final = frame_header(FrameType.SETTINGS, Flag.ACK, 0, 0)


def ping_ack(payload: bytes) -> bytes:
    return frame_header(FrameType.PING, Flag.ACK, 0, 8) + payload


def window_update(stream_id: int, increment: int) -> bytes:
    return frame_header(FrameType.WINDOW_UPDATE, 0, stream_id, 4) + _U32(increment)


def reset_frame(stream_id: int, code: int) -> bytes:
    return frame_header(FrameType.RST_STREAM, 0, stream_id, 4) + _U32(code)


def goaway_frame(last_stream_id: int, code: int, reason: str) -> bytes:
    text = reason.encode()
    return (
        frame_header(FrameType.GOAWAY, 0, 0, 8 + len(text))
        + _U32(last_stream_id)
        + _U32(code)
        + text
    )


def header_frames(stream_id: int, block: bytes, end_stream: bool, most: int) -> list[bytes]:
    """HEADERS, and CONTINUATION for a block beyond `most` bytes; headers and payloads in turn."""
    end = 1 if end_stream else 0
    size = len(block)
    if size <= most:
        return [frame_header(FrameType.HEADERS, 4 | end, stream_id, size), block]
    pieces = [frame_header(FrameType.HEADERS, end, stream_id, most), block[:most]]
    for start in range(most, size, most):
        piece = block[start : start + most]
        last = Flag.END_HEADERS if start + most >= size else 0
        pieces.append(frame_header(FrameType.CONTINUATION, last, stream_id, len(piece)))
        pieces.append(piece)
    return pieces
