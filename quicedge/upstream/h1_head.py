"""Filters heads of HTTP/1.1 responses line by line before they reach the parser."""

from __future__ import annotations

import re

# RFC 9112 section 5.1: a proxy MUST remove whitespace between a field name and its colon from a
# response message. The parser rejects it, as a server must in requests.
_SPACED = re.compile(rb"^([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]+:", re.MULTILINE)


_MAX_NAME = 256
"""Bytes that are buffered until a colon is found; longer names are not repaired."""


def is_plain(data: bytes) -> bool:
    """Whether data at the start of a response holds one complete head that needs no repair."""
    end = data.find(b"\r\n\r\n")
    return (
        end >= 0
        and data[9:10] != b"1"  # interim status: another head follows
        and data.find(b" :", 0, end) < 0
        and data.find(b"\t:", 0, end) < 0
    )


class HeadFilter:
    """Separates heads from the bytes of a response and repairs their field lines."""

    __slots__ = ("_begun", "_in_fields", "_in_line", "_line", "repaired")

    def __init__(self) -> None:
        self._begun = False
        """Part of a head was received."""
        self._in_fields = False
        """Its status line is complete."""
        self._line = b""
        """The start of a field line, before its colon."""
        self._in_line = False
        """Past the colon: the rest of the line passes unchanged."""
        self.repaired = False
        """Whether whitespace was removed."""

    def is_plain(self, data: bytes) -> bool:
        """Whether the first bytes of a response hold one complete head that needs no repair."""
        return not self._begun and is_plain(data)

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Split data into the part for the parser and the rest.

        Pass the rest, if any, to `take` again, unless the parser has reached the end of the head.
        """
        self._begun = True
        if not self._in_fields:
            # Unbuffered: the parser rejects an invalid status line before its end.
            end = data.find(b"\n") + 1
            self._in_fields = end > 0
            return (data[:end], data[end:]) if end else (data, b"")
        if self._in_line:
            end = data.find(b"\n") + 1
            self._in_line = end == 0
            return (data[:end], data[end:]) if end else (data, b"")
        data = self._line + data
        self._line = b""
        # Lines are consumed completely, so an empty one is the end of the head.
        end = 2 if data.startswith(b"\r\n") else data.find(b"\r\n\r\n") + 4
        if end == 3:
            end = data.rfind(b"\n") + 1
            if b":" not in data[end:] and len(data) - end < _MAX_NAME:
                self._line = data[end:]
                return self._mend(data[:end]), b""
            self._in_line = True
            return self._mend(data), b""
        self._begun = self._in_fields = False
        return self._mend(data[:end]), data[end:]

    def _mend(self, lines: bytes) -> bytes:
        repaired, count = _SPACED.subn(rb"\1:", lines)
        self.repaired |= count > 0
        return repaired
