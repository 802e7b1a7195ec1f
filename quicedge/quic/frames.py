"""Frames of the batched path, to and from bytes (RFC 9000 sections 16 and 19)."""

from __future__ import annotations

from collections.abc import Sequence

FRAME_PADDING = 0x00
FRAME_PING = 0x01
FRAME_ACK = 0x02
FRAME_ACK_ECN = 0x03
FRAME_STREAM_FIRST = 0x08
FRAME_STREAM_LAST = 0x0F
FRAME_MAX_STREAM_DATA = 0x11

STREAM_FIN = 0x01
STREAM_LENGTH = 0x02
STREAM_OFFSET = 0x04


class FrameError(ValueError):
    """Bytes that are no frame: a connection error FRAME_ENCODING_ERROR."""


def encode_varint(value: int) -> bytes:
    """A variable-length integer in its shortest form."""
    if value < 0x40:
        return bytes((value,))
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x40000000:
        return (value | 0x80000000).to_bytes(4, "big")
    return (value | 0xC000000000000000).to_bytes(8, "big")


def decode_varint(data: bytes, at: int) -> tuple[int, int]:
    """The integer at `at` and the position behind it; raises FrameError when cut short."""
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


def encode_ack(
    ranges: Sequence[range],
    delay: int,
    room: int,
    ecn_counts: tuple[int, int, int] | None = None,
) -> tuple[bytes, int]:
    """An ACK frame of the newest of `ranges` (ascending) that fit in `room` bytes.

    `delay` is encoded already (RFC 9000 section 19.3); `ecn_counts` are ECT(0), ECT(1) and CE.
    Returns the frame and how many ranges it holds.
    """
    newest = ranges[-1]
    tail = b"" if ecn_counts is None else b"".join(map(encode_varint, ecn_counts))
    head = encode_varint(newest.stop - 1) + encode_varint(delay)
    first = encode_varint(newest.stop - newest.start - 1)
    left = room - 1 - len(head) - len(first) - len(tail) - 2
    gaps = []
    smallest = newest.start
    for index in range(len(ranges) - 2, -1, -1):
        older = ranges[index]
        gap = encode_varint(smallest - older.stop - 1) + encode_varint(older.stop - older.start - 1)
        left -= len(gap)
        if left < 0:
            break
        gaps.append(gap)
        smallest = older.start
    kind = FRAME_ACK if ecn_counts is None else FRAME_ACK_ECN
    frame = b"".join((bytes((kind,)), head, encode_varint(len(gaps)), first, *gaps, tail))
    return frame, len(gaps) + 1


def decode_ack(data: bytes, at: int) -> tuple[list[tuple[int, int]], int, int]:
    """An ACK frame's body: ascending (start, stop) ranges, encoded delay, position behind them.

    The ECN counts of an ACK_ECN frame follow at that position.
    """
    largest, at = decode_varint(data, at)
    delay, at = decode_varint(data, at)
    count, at = decode_varint(data, at)
    first, at = decode_varint(data, at)
    start = largest - first
    # RFC 9000 section 19.3.1: if any computed packet number is negative, an endpoint MUST
    # generate a connection error of type FRAME_ENCODING_ERROR.
    if start < 0:
        raise FrameError("negative packet number")
    ranges = [(start, largest + 1)]
    for _ in range(count):
        gap, at = decode_varint(data, at)
        length, at = decode_varint(data, at)
        stop = start - gap - 1
        start = stop - length - 1
        if start < 0:
            raise FrameError("negative packet number")
        ranges.append((start, stop))
    ranges.reverse()
    return ranges, delay, at
