"""Heads of HTTP/1.1 responses on their way to the parser, line by line."""

from __future__ import annotations

import re

# RFC 9112 section 5.1: a proxy MUST remove whitespace between a field name and its colon from a
# response message. The parser refuses it, as a server must in requests.
_SPACED = re.compile(rb"^([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]+:", re.MULTILINE)


class HeadFilter:
    """Cuts heads out of the bytes of a response and mends their field lines."""

    __slots__ = ("_at_start", "_line", "mended")

    def __init__(self) -> None:
        self._at_start = True
        """The status line has not come to its end."""
        self._line = b""
        """A field line whose end has not come."""
        self.mended = False
        """Whether whitespace was removed."""

    def is_plain(self, data: bytes) -> bool:
        """Whether bytes that begin a response hold all of its one head, with nothing to mend."""
        end = data.find(b"\r\n\r\n")
        return (
            end >= 0
            and self._at_start
            and data[9:10] != b"1"  # of an interim status: another head follows
            and data.find(b" :", 0, end) < 0
            and data.find(b"\t:", 0, end) < 0
        )

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """What the parser may have of a head, and what it may not have yet.

        The latter is to be given back, if there is any, unless the parser saw the head end.
        """
        if self._at_start:
            # As it comes: what is no status line is refused before its end.
            end = data.find(b"\n") + 1
            self._at_start = end == 0
            return (data[:end], data[end:]) if end else (data, b"")
        data = self._line + data
        self._line = b""
        # Lines are taken whole, so an empty one here is the end of the head.
        end = 2 if data.startswith(b"\r\n") else data.find(b"\r\n\r\n") + 4
        if end == 3:
            end = data.rfind(b"\n") + 1
            self._line = data[end:]
            return self._mend(data[:end]), b""
        self._at_start = True
        return self._mend(data[:end]), data[end:]

    def _mend(self, lines: bytes) -> bytes:
        mended, count = _SPACED.subn(rb"\1:", lines)
        self.mended |= count > 0
        return mended
