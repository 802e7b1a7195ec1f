"""QPACK (RFC 9204) over pylsqpack, with the bounds that it lacks."""

from __future__ import annotations

from pylsqpack import (
    Decoder,
    DecoderStreamError,
    DecompressionFailed,
    Encoder,
    EncoderStreamError,
    StreamBlocked,
)

from quicedge.http.message import Fields


class SectionTooLarge(ValueError):
    """More field lines, or more bytes decoded, than are taken."""


def count_field_lines(block: bytes, limit: int) -> int:
    """Field lines in an encoded field section, counted up to `limit` + 1 (RFC 9204 section 4.5).

    Needs no table: each representation says its own length. A section that is malformed counts
    as far as it can be read; the decoder will say what is wrong with it.
    """
    lines = 0
    try:
        _, at = _integer(block, 0, 8)
        _, at = _integer(block, at, 7)
        while at < len(block) and lines <= limit:
            first = block[at]
            if first & 0x80:  # indexed, static or dynamic
                _, at = _integer(block, at, 6)
            elif first & 0x40:  # literal with name reference
                _, at = _integer(block, at, 4)
                at = _skip_string(block, at, 7)
            elif first & 0x20:  # literal with literal name
                at = _skip_string(block, at, 3)
                at = _skip_string(block, at, 7)
            elif first & 0x10:  # indexed, post-base
                _, at = _integer(block, at, 4)
            else:  # literal with post-base name reference
                _, at = _integer(block, at, 3)
                at = _skip_string(block, at, 7)
            lines += 1
    except IndexError:
        pass
    return lines


def _integer(data: bytes, at: int, bits: int) -> tuple[int, int]:
    """A prefixed integer (RFC 7541 section 5.1)."""
    mask = (1 << bits) - 1
    value = data[at] & mask
    at += 1
    if value < mask:
        return value, at
    shift = 0
    while True:
        byte = data[at]
        at += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80 or shift > 62:
            return value, at


def _skip_string(data: bytes, at: int, bits: int) -> int:
    length, at = _integer(data, at, bits)
    return at + length


class FieldDecoder:
    """Decodes field sections; never more than `max_fields` lines at once.

    pylsqpack decodes a reference to a large dynamic entry as often as it is asked to, so 100 KB
    can become hundreds of megabytes; counting the lines first bounds what they decode to.
    """

    def __init__(self, capacity: int, blocked_streams: int, max_fields: int) -> None:
        self._decoder = Decoder(capacity, blocked_streams)
        self._dynamic = capacity > 0
        self._max_fields = max_fields

    def decode(self, stream_id: int, block: bytes) -> tuple[bytes, Fields]:
        """Decoder stream bytes and fields; raises SectionTooLarge, StreamBlocked or
        DecompressionFailed."""
        # Every line takes a byte at least: a short block cannot hold too many.
        if (
            len(block) > self._max_fields
            and count_field_lines(block, self._max_fields) > self._max_fields
        ):
            raise SectionTooLarge("too many field lines")
        return self._decoder.feed_header(stream_id, block)

    def resume(self, stream_id: int) -> tuple[bytes, Fields]:
        """As `decode`, for a section that was blocked."""
        return self._decoder.resume_header(stream_id)

    def feed(self, data: bytes) -> list[int]:
        """Encoder stream bytes; returns the streams they unblock; raises EncoderStreamError."""
        return self._decoder.feed_encoder(data)

    def cancel(self, stream_id: int) -> bytes:
        """A stream is given up (RFC 9204 section 4.4.2): decoder stream bytes."""
        return self._decoder.cancel_stream(stream_id) if self._dynamic else b""


__all__ = [
    "DecoderStreamError",
    "DecompressionFailed",
    "Encoder",
    "EncoderStreamError",
    "FieldDecoder",
    "SectionTooLarge",
    "StreamBlocked",
    "count_field_lines",
]
