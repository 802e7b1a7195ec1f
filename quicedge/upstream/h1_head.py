"""Heads of HTTP/1.1 responses on their way to the parser, line by line."""

from __future__ import annotations

import re

# RFC 9112 section 5.1: a proxy MUST remove whitespace between a field name and its colon from a
# response message. The parser refuses it, as a server must in requests.
_SPACED = re.compile(rb"^([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]+:", re.MULTILINE)


_MAX_NAME = 256
"""Bytes that are kept until their colon comes; no name that anybody mends is longer."""


class HeadFilter:
    """Cuts heads out of the bytes of a response and mends their field lines."""

    __slots__ = ("_begun", "_in_fields", "_in_line", "_line", "mended")

    def __init__(self) -> None:
        self._begun = False
        """Something of a head has come."""
        self._in_fields = False
        """Its status line has come to its end."""
        self._line = b""
        """The beginning of a field line, without a colon yet."""
        self._in_line = False
        """The rest of a line passes as it is: its colon has passed."""
        self.mended = False
        """Whether whitespace was removed."""

    def is_plain(self, data: bytes) -> bool:
        """Whether bytes that begin a response hold all of its one head, with nothing to mend."""
        end = data.find(b"\r\n\r\n")
        return (
            end >= 0
            and not self._begun
            and data[9:10] != b"1"  # of an interim status: another head follows
            and data.find(b" :", 0, end) < 0
            and data.find(b"\t:", 0, end) < 0
        )

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """What the parser may have of a head, and what it may not have yet.

        The latter is to be given back, if there is any, unless the parser saw the head end.
        """
        self._begun = True
        if not self._in_fields:
            # As it comes: what is no status line is refused before its end.
            end = data.find(b"\n") + 1
            self._in_fields = end > 0
            return (data[:end], data[end:]) if end else (data, b"")
        if self._in_line:
            end = data.find(b"\n") + 1
            self._in_line = end == 0
            return (data[:end], data[end:]) if end else (data, b"")
        data = self._line + data
        self._line = b""
        # Lines are taken whole, so an empty one here is the end of the head.
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
        mended, count = _SPACED.subn(rb"\1:", lines)
        self.mended |= count > 0
        return mended
