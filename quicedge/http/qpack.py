"""QPACK (RFC 9204) on pylsqpack, with the resource bounds that it lacks."""

from __future__ import annotations

from typing import NamedTuple

from pylsqpack import (
    Decoder,
    DecoderStreamError,
    DecompressionFailed,
    Encoder,
    EncoderStreamError,
    StreamBlocked,
)

from quicedge.config.limits import (
    MAX_COOKIE_CRUMBS,
    MAX_QPACK_STRING,
    QPACK_STATIC_UNCOUNTED,
)
from quicedge.http.message import FIELD_OVERHEAD, Fields

_HUFFMAN_SHORTEST = 5
"""Bits of the shortest Huffman code (RFC 7541 appendix B): eight of these bytes hold at most 12."""
_SET_CAPACITY = 0x20
_INSTRUCTION = 0xE0


class SectionTooLarge(ValueError):
    """The section exceeds the allowed number of field lines or decoded bytes."""


class MalformedSection(ValueError):
    """The section is correctly encoded but not valid in HTTP."""


class Outline(NamedTuple):
    """Size estimates from an encoded field section (RFC 9204 section 4.5)."""

    lines: int
    dynamic: int
    """Field lines that reference the dynamic table; they may decode to much more."""
    longest: int
    """Upper bound of the decoded length of the longest string, in bytes."""
    nameless: bool
    """Some field name is empty."""


def outline(block: bytes) -> Outline:
    """Scan a section without decoding it; does not need the dynamic table.

    A malformed section is scanned up to the error, which the decoder will report.
    """
    lines = dynamic = longest = 0
    nameless = False
    try:
        _, at = _integer(block, 0, 8)
        _, at = _integer(block, at, 7)
        while at < len(block):
            first = block[at]
            lines += 1
            if first & 0x80:  # indexed
                dynamic += not first & 0x40
                _, at = _integer(block, at, 6)
                continue
            if first & 0x40:  # literal with name reference
                dynamic += not first & 0x10
                _, at = _integer(block, at, 4)
            elif first & 0x20:  # literal with literal name
                start = at
                size, at = _string(block, at, 3)
                nameless |= at == start + 1
                longest = max(longest, size)
            elif first & 0x10:  # indexed, post-base
                dynamic += 1
                _, at = _integer(block, at, 4)
                continue
            else:  # literal with post-base name reference
                dynamic += 1
                _, at = _integer(block, at, 3)
            size, at = _string(block, at, 7)
            longest = max(longest, size)
    except IndexError:
        pass
    return Outline(lines, dynamic, longest, nameless)


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


def _string(data: bytes, at: int, bits: int) -> tuple[int, int]:
    """Upper bound of a string's decoded length (RFC 9204 section 4.1.2), and its end."""
    is_huffman = data[at] >> bits & 1
    length, at = _integer(data, at, bits)
    return length * 8 // _HUFFMAN_SHORTEST if is_huffman else length, at + length


class FieldDecoder:
    """Decodes field sections within bounds.

    pylsqpack decodes a reference to a large dynamic entry every time it occurs, so that 100 KB can
    expand to hundreds of megabytes; scanning the lines first bounds the decoded size. Errors that
    concern one request are distinguished from those that end the connection.

    `decode` raises StreamBlocked for a section that needs more of the encoder stream; when `feed`
    returns its stream, call `resume`. Call `cancel` when a stream is abandoned.
    """

    def __init__(
        self, capacity: int, blocked_streams: int, max_fields: int, max_section: int
    ) -> None:
        self._settings = capacity, blocked_streams
        self._made: Decoder | None = None
        self._dynamic = capacity > 0
        self._capacity_set = False
        # Each line adds FIELD_OVERHEAD to the size of its section.
        self._max_lines = max_section // FIELD_OVERHEAD
        self._max_dynamic = max_fields + MAX_COOKIE_CRUMBS
        # Each line takes at least one byte, so shorter blocks need no outline.
        self._outlined_from = min(self._max_lines, self._max_dynamic)
        """For sections that may refer to the dynamic table."""
        self._blocked: dict[int, Outline] = {}

    @property
    def _decoder(self) -> Decoder:
        """Made when it is needed, as it takes 4 KB: many connections are opened in advance."""
        decoder = self._made
        if decoder is None:
            decoder = self._made = Decoder(*self._settings)
        return decoder

    def decode(self, stream_id: int, block: bytes) -> tuple[bytes, Fields]:
        """Decode a section; returns bytes for the decoder stream, and the fields.

        Raises SectionTooLarge, MalformedSection, StreamBlocked or DecompressionFailed.
        """
        # RFC 9204 section 4.5.1.2: a negative Base MUST be rejected as a connection error.
        # pylsqpack checks this only if the Required Insert Count is not 0.
        if len(block) > 1 and not block[0] and block[1] & 0x80:
            raise DecompressionFailed("negative Base")
        # With a Required Insert Count of 0 nothing may refer to the dynamic table, or decoding
        # fails: each byte expands to one entry of the static table at most.
        if len(block) > self._outlined_from and (block[0] or len(block) > QPACK_STATIC_UNCOUNTED):
            seen = outline(block)
            if seen.lines > self._max_lines or seen.dynamic > self._max_dynamic:
                raise SectionTooLarge("too many field lines")
        try:
            return (self._made or self._decoder).feed_header(stream_id, block)
        except StreamBlocked:
            self._blocked[stream_id] = outline(block)
            raise
        except DecompressionFailed as error:
            raise _cause(outline(block), error) from error

    def resume(self, stream_id: int) -> tuple[bytes, Fields]:
        """Decode a section that was blocked; like `decode`."""
        seen = self._blocked.pop(stream_id)
        try:
            return self._decoder.resume_header(stream_id)
        except DecompressionFailed as error:
            raise _cause(seen, error) from error

    def feed(self, data: bytes) -> list[int]:
        """Receive encoder stream bytes; returns unblocked streams. Raises EncoderStreamError."""
        if data and not self._capacity_set:
            # RFC 9204 section 3.2.2: the capacity is 0 until it is set, and an entry larger than
            # the capacity is a connection error. pylsqpack starts with the capacity we announced.
            if data[0] & _INSTRUCTION != _SET_CAPACITY:
                raise EncoderStreamError("an insertion before the capacity is set")
            self._capacity_set = True
        return self._decoder.feed_encoder(data) if data else []

    def cancel(self, stream_id: int) -> bytes:
        """Cancel a stream (RFC 9204 section 4.4.2); returns bytes for the decoder stream."""
        self._blocked.pop(stream_id, None)
        return self._decoder.cancel_stream(stream_id) if self._dynamic else b""


def _cause(seen: Outline, error: DecompressionFailed) -> Exception:
    """Find the cause of a decoding failure.

    pylsqpack's dynamic table stays intact, so an error in one request need not end the connection.
    """
    if seen.longest > MAX_QPACK_STRING:
        return SectionTooLarge("a field is too long")
    if seen.nameless:
        return MalformedSection("a field without a name")
    return error


__all__ = [
    "DecoderStreamError",
    "DecompressionFailed",
    "Encoder",
    "EncoderStreamError",
    "FieldDecoder",
    "MalformedSection",
    "Outline",
    "SectionTooLarge",
    "StreamBlocked",
    "outline",
]
