"""A pull parser for JSON texts that do not fit into memory."""

from __future__ import annotations

import json
import re
from typing import Any

from quicedge.config.tracelimits import QLOG_MAX_EVENT
from quicedge.qlog.source import Source

_SPACE = re.compile(r"[ \t\r\n]*")
_scan = json.JSONDecoder().raw_decode


class NotJson(Exception):
    """The text is not valid JSON at `offset` (bytes)."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(offset, reason)
        self.offset = offset
        self.reason = reason


class Truncated(NotJson):
    """The text ends at `offset`, where more was expected."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset, "the file ends here")


class JsonStream:
    """Reads one JSON value at a time; memory use is bounded by the largest value.

    The window is decoded as Latin-1, in which every byte is one character: the scanner of the
    standard library, which is written in C, can then process bytes of any encoding, and its
    positions are offsets in the file. Non-ASCII values are decoded again as UTF-8.

    `peek` and `value` skip white space; `skip` is only valid right after `peek`.
    """

    def __init__(self, source: Source, head: bytes, base: int = 0) -> None:
        self._source = source
        self._window = head.decode("latin-1")
        self._at = 0
        self._base = base
        self._ended = False
        self.repaired: int | None = None
        """The offset of invalid UTF-8 in the last value; the caller resets it to None."""

    @property
    def offset(self) -> int:
        """Bytes from the start of the file."""
        return self._base + self._at

    def _fill(self) -> bool:
        """Read more and discard what was consumed; False at the end of the file."""
        if self._ended:
            return False
        piece = self._source.read()
        if not piece:
            self._ended = True
            return False
        self._window = self._window[self._at :] + piece.decode("latin-1")
        self._base += self._at
        self._at = 0
        return True

    def go_to(self, offset: int) -> None:
        """Skip forward to `offset` bytes from the start of the file, or to its end."""
        while self._base + len(self._window) < offset:
            self._at = len(self._window)
            if not self._fill():
                return
        self._at = offset - self._base

    def close(self) -> None:
        """Close the file, if the stream owns its source."""
        self._source.close()

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            self._at = _SPACE.match(self._window, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._fill():
                return ""

    def skip(self) -> None:
        """Consume the character returned by `peek`."""
        self._at += 1

    def expect(self, character: str) -> None:
        """Consume this character; raises `NotJson` if there is another one."""
        found = self.peek()
        if not found:
            raise Truncated(self.offset)
        if found != character:
            raise NotJson(self.offset, f"expected {character!r}, found {found!r}")
        self._at += 1

    def value(self, largest: int = QLOG_MAX_EVENT) -> Any:
        """Read a JSON value of at most `largest` bytes; does not move if it raises `NotJson`."""
        if not self.peek():
            raise Truncated(self.offset)
        while True:
            try:
                value, end = _scan(self._window, self._at)
            except RecursionError:
                raise NotJson(self.offset, "nested too deeply") from None
            except ValueError as error:
                if len(self._window) - self._at < largest and self._fill():
                    continue
                place = getattr(error, "pos", self._at)
                reason = getattr(error, "msg", str(error))
                if self._ended and (
                    place >= len(self._window) - 1 or reason.startswith("Unterminated")
                ):
                    reason += " (the file ends too early)"
                elif len(self._window) - self._at >= largest:
                    reason += f" (within {largest} bytes)"
                raise NotJson(self._base + place, reason) from None
            # A number at the end of the window may continue beyond it.
            if end == len(self._window) and self._fill():
                continue
            piece = self._window[self._at : end]
            start = self.offset
            self._at = end
            return value if piece.isascii() else self._decode(piece, start)

    def _decode(self, piece: str, offset: int) -> Any:
        """Decode a value, given as Latin-1 characters, as UTF-8."""
        octets = piece.encode("latin-1")
        try:
            return json.loads(octets.decode("utf-8"))
        except UnicodeDecodeError as error:
            self.repaired = offset + error.start
            return json.loads(octets.decode("utf-8", "replace"))

    def find(self, pattern: re.Pattern[str]) -> bool:
        """Skip to the end of the next match; if there is none, to the end of the file (False).

        Only matches shorter than 64 bytes are found.
        """
        while True:
            match = pattern.search(self._window, self._at)
            if match is not None:
                self._at = match.end()
                return True
            self._at = max(self._at, len(self._window) - 64)
            if not self._fill():
                self._at = len(self._window)
                return False
