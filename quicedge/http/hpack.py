"""HPACK (RFC 7541) for the server side of HTTP/2: tables from `hpack`, Huffman decoding in C.

Both directions remember what they have translated. A block that inserts nothing into the dynamic
table means the same until another one does, so the requests of a client that repeats itself cost a
dictionary lookup each; so do the fields of responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pylsqpack
from hpack import Encoder
from hpack.table import HeaderTable

from quicedge.config import limits
from quicedge.http.message import FIELD_OVERHEAD, Field, Fields, count_lines

_STATIC = len(HeaderTable.STATIC_TABLE)
_HUFFMAN_SHORTEST = 5
"""Bits of the shortest Huffman code (RFC 7541 appendix B): eight encoded bytes hold 12 at most."""
_OVERSIZED = bytes(limits.H2_MAX_STRING + 1)
"""Stands for a string that is not decoded, which exceeds every limit and every table."""
_QPACK_LITERAL = b"\0\0\x21a"
"""The beginning of a QPACK section with one literal field, named "a": its value has the coding of
an HPACK string (RFC 9204 section 4.1.2)."""


class HpackError(ValueError):
    """A block cannot be decoded: the connection is lost (RFC 9113 section 4.3)."""


class SectionBomb(ValueError):
    """A block expands far beyond the limits: decoding stopped, and the connection is lost."""


class Section:
    """A decoded field section."""

    __slots__ = ("fields", "memo", "too_large")

    def __init__(self, fields: Fields, too_large: bool) -> None:
        self.fields = fields
        self.too_large = too_large
        """It exceeds the limits; `fields` has only its beginning."""
        self.memo: Any = None
        """What the user of the codec has derived from the fields, kept for equal blocks."""


class FieldDecoder:
    """Decodes the field sections of one connection within bounds.

    A section beyond the bounds is decoded to its end, because later ones depend on what it inserts,
    but its fields are not kept: a small block can refer to a large entry thousands of times.
    """

    def __init__(self, max_section: int, max_fields: int) -> None:
        self._max_section = max_section
        self._max_fields = max_fields
        self._sections: dict[bytes, Section] = {}

    @cached_property
    def _table(self) -> HeaderTable:
        # Not before it is needed: many connections are opened in advance and not used.
        table = HeaderTable()
        table.maxsize = limits.H2_HEADER_TABLE
        return table

    @cached_property
    def _huffman(self) -> pylsqpack.Decoder:
        return pylsqpack.Decoder(0, 0)

    def decode(self, block: bytes) -> Section:
        """Decode a section; raises HpackError or SectionBomb."""
        section = self._sections.get(block)
        if section is None:
            try:
                section, changes = self._decode(block)
            except IndexError as error:
                raise HpackError("a field section is cut short") from error
            if changes:
                self._sections.clear()
            elif len(block) <= limits.H2_CACHED_BLOCK:
                if len(self._sections) >= limits.H2_CACHED_SECTIONS:
                    self._sections.clear()
                self._sections[block] = section
        return section

    def _decode(self, block: bytes) -> tuple[Section, bool]:
        table = self._table
        entries = table.dynamic_entries
        static = HeaderTable.STATIC_TABLE
        fields: Fields = []
        at, end, size = 0, len(block), 0
        most = limits.H2_SECTION_FACTOR * self._max_section
        changes = False
        while at < end:
            first = block[at]
            if first >= 0x80:  # indexed
                index = first & 0x7F
                at += 1
                if index == 0x7F:
                    index, at = _integer(block, at, index)
                if 0 < index <= _STATIC:
                    field = static[index - 1]
                elif 0 < index <= _STATIC + len(entries):
                    field = entries[index - _STATIC - 1]
                else:
                    raise HpackError("an index beyond the table")
            elif 0x20 <= first < 0x40:  # size update
                # RFC 7541 section 4.2: at the beginning of a block; section 6.3: within the limit.
                size_update, at = self._size_update(block, at)
                if fields or size:
                    raise HpackError("a table size update after a field")
                table.maxsize = size_update
                changes = True
                continue
            else:  # literal
                inserts = first >= 0x40
                mask = 0x3F if inserts else 0x0F
                index = first & mask
                at += 1
                if index == mask:
                    index, at = _integer(block, at, index)
                name: bytes | None
                if not index:
                    name, at = self._string(block, at)
                elif index <= _STATIC:
                    name = static[index - 1][0]
                elif index <= _STATIC + len(entries):
                    name = entries[index - _STATIC - 1][0]
                else:
                    raise HpackError("an index beyond the table")
                value, at = self._string(block, at)
                is_kept = name is not None and value is not None
                field = (name or b"", value or b"") if is_kept else (b"", _OVERSIZED)
                if inserts:
                    table.add(*field)
                    changes = True
            size += len(field[0]) + len(field[1]) + FIELD_OVERHEAD
            if size <= self._max_section:
                fields.append(field)
            elif size > most:
                raise SectionBomb("a field section expands without bounds")
        too_large = size > self._max_section or (
            len(fields) > self._max_fields and count_lines(fields) > self._max_fields
        )
        return Section(fields, too_large), changes

    @staticmethod
    def _size_update(block: bytes, at: int) -> tuple[int, int]:
        size = block[at] & 0x1F
        at += 1
        if size == 0x1F:
            size, at = _integer(block, at, size)
        if size > limits.H2_HEADER_TABLE:
            raise HpackError("a table size beyond the setting")
        return size, at

    def _string(self, block: bytes, at: int) -> tuple[bytes | None, int]:
        """A string literal and the position behind it (RFC 7541 section 5.2).

        None in place of one that may be longer than H2_MAX_STRING.
        """
        start = at
        first = block[at]
        length = first & 0x7F
        at += 1
        if length == 0x7F:
            length, at = _integer(block, at, length)
        stop = at + length
        if stop > len(block):
            raise HpackError("a string is cut short")
        if first < 0x80:
            return block[at:stop] if length <= limits.H2_MAX_STRING else None, stop
        if length * 8 // _HUFFMAN_SHORTEST > limits.H2_MAX_STRING:
            return None, stop
        try:
            _, decoded = self._huffman.feed_header(0, _QPACK_LITERAL + block[start:stop])
        except pylsqpack.DecompressionFailed as error:
            raise HpackError("a string is not Huffman-coded") from error
        return decoded[0][1], stop


def _integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """The rest of an integer whose prefix was full (RFC 7541 section 5.1)."""
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 28:
            raise HpackError("an integer is too long")


class FieldEncoder:
    """Encodes the field sections of one connection.

    A field enters the dynamic table when it occurs for the second time: values that never repeat
    would only displace others and change the meaning of every index.
    """

    def __init__(self) -> None:
        self._table_size = limits.H2_HEADER_TABLE
        self._smallest = limits.H2_HEADER_TABLE
        self._resized = False
        self._known: dict[Field, bytes] = {}
        """Fields whose encoding is the same until the next insertion."""
        self._seen: set[Field] = set()
        self._insertions = 0
        self._inserted: dict[Field, int] = {}
        """Fields in the dynamic table, by the number of their insertion."""

    @cached_property
    def _encoder(self) -> Encoder:
        # As the decoder's table.
        encoder = Encoder()
        encoder.header_table_size = self._table_size
        return encoder

    def use_table(self, size: int) -> None:
        """The client's decoder keeps a table of `size` bytes."""
        size = min(size, limits.H2_HEADER_TABLE)
        if size != self._table_size:
            self._table_size = self._encoder.header_table_size = size
            self._smallest = min(self._smallest, size)
            self._resized = True
            self._known.clear()

    def encode(self, fields: Sequence[Field]) -> bytes:
        """Encode a section."""
        get = self._known.get
        # Sequential: an insertion clears what is known, and so changes the fields that follow.
        block = b"".join([get(field) or self._field(field) for field in fields])
        return self._size_updates() + block if self._resized else block

    def _size_updates(self) -> bytes:
        # RFC 7541 section 4.2: the smallest size since the last block, then the current one.
        size = self._table_size
        updates = _prefixed(0x20, 0x1F, self._smallest) if self._smallest < size else b""
        self._smallest = size
        self._resized = False
        return updates + _prefixed(0x20, 0x1F, size)

    def _field(self, field: Field) -> bytes:
        name, value = field
        entries = self._encoder.header_table.dynamic_entries
        age = self._insertions - self._inserted.get(field, -1)
        static = HeaderTable.STATIC_TABLE_MAPPING.get(name, _ABSENT)[1].get(value)
        if static is not None:
            encoded = _prefixed(0x80, 0x7F, static)
        elif age < len(entries) and entries[age] == field:
            encoded = _prefixed(0x80, 0x7F, _STATIC + 1 + age)
        elif name in _NEVER_INSERTED:
            encoded = _literal(name, value)
        elif field in self._seen:
            return self._insert(field)
        else:
            if len(self._seen) >= limits.H2_CACHED_FIELDS:
                self._seen.clear()
            self._seen.add(field)
            return _literal(name, value)
        if len(self._known) >= limits.H2_CACHED_FIELDS:
            self._known.clear()
        self._known[field] = encoded
        return encoded

    def _insert(self, field: Field) -> bytes:
        """A literal that enters the table, which changes the meaning of every index."""
        self._known.clear()
        entries, inserted = self._encoder.header_table.dynamic_entries, self._inserted
        newest = entries[0] if entries else None
        encoded = self._encoder.add(field, sensitive=False, huffman=True)
        if entries and entries[0] is not newest:
            if len(inserted) >= limits.H2_CACHED_FIELDS:
                inserted.clear()
            self._insertions += 1
            inserted[field] = self._insertions
        return encoded


_ABSENT: tuple[int, dict[bytes, int]] = 0, {}
_NEVER_INSERTED = frozenset(
    (
        b"age", b"content-length", b"content-range", b"date", b"etag", b"last-modified",
        b"location", b"set-cookie",
    )
)  # fmt: skip
"""Fields that rarely repeat, or that must not be guessed by their compression (RFC 7541 section
7.1)."""


def _literal(name: bytes, value: bytes) -> bytes:
    """A literal without indexing (RFC 7541 section 6.2.2)."""
    index = HeaderTable.STATIC_TABLE_MAPPING.get(name, _ABSENT)[0]
    named = b"\0" + _prefixed(0, 0x7F, len(name)) + name
    head = _prefixed(0, 0x0F, index) if index else named
    return head + _prefixed(0, 0x7F, len(value)) + value


def _prefixed(pattern: int, most: int, value: int) -> bytes:
    """An integer behind a bit pattern (RFC 7541 section 5.1); `most`: the prefix, all ones."""
    if value < most:
        return bytes((pattern | value,))
    value -= most
    encoded = bytearray((pattern | most,))
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
