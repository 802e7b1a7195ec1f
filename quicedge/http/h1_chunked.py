"""Decodes chunked content of HTTP/1.1 requests (RFC 9112 section 7.1), strictly."""

from __future__ import annotations

import re
from enum import Enum, auto

from quicedge.config.limits import H1_CHUNK_LINE
from quicedge.http.message import Fields
from quicedge.http.validation import MessageError

# chunk-size CRLF, or with extensions, which a recipient MUST ignore (RFC 9112 section 7.1.1). Space
# around the size, a sign, a prefix, bare CR or LF: recipients disagree about them.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_START_OF_SIZE_LINE = re.compile(rb"[0-9A-Fa-f]{1,16}(?:;[\t\x20-\x7e\x80-\xff]*)?\r?")


class _Next(Enum):
    """What comes next."""

    SIZE = auto()
    CONTENT = auto()
    END_OF_CONTENT = auto()
    """CRLF after the content of a chunk."""
    TRAILERS = auto()
    NOTHING = auto()


class ChunkedDecoder:
    """Decodes the content of one request.

    Call `decode` with all that arrives until `complete`; then `trailers` and `rest` are set.
    """

    __slots__ = ("_left", "_max_trailers", "_next", "_pending", "chunks", "rest", "trailers")

    def __init__(self, max_trailers: int) -> None:
        """`max_trailers`: bytes of the trailer section."""
        self._next = _Next.SIZE
        self._left = 0
        self._pending = b""
        """An incomplete line, or an incomplete trailer section."""
        self._max_trailers = max_trailers
        self.chunks = 0
        """Chunks with content that have begun."""
        self.trailers: Fields = []
        """Not validated."""
        self.rest = b""
        """What follows the request."""

    @property
    def complete(self) -> bool:
        return self._next is _Next.NOTHING

    def decode(self, data: bytes) -> list[bytes]:
        """Decode more; returns pieces of content. Raises MessageError."""
        pieces: list[bytes] = []
        if self._pending:
            data = self._pending + data
            self._pending = b""
        at, size = 0, len(data)
        while at < size:
            following = self._next
            if following is _Next.CONTENT:
                end = at + self._left
                if end > size:
                    pieces.append(data[at:] if at else data)
                    self._left -= size - at
                    return pieces
                pieces.append(data[at:end])
                at = end
                self._next = _Next.END_OF_CONTENT
            elif following is _Next.SIZE:
                line = _SIZE_LINE.match(data, at)
                if line is None or line.end() - at > H1_CHUNK_LINE:
                    self._keep(data[at:], line is None)
                    return pieces
                at = line.end()
                self._left = int(line[1], 16)
                if self._left:
                    self.chunks += 1
                    self._next = _Next.CONTENT
                else:
                    self._next = _Next.TRAILERS
            elif following is _Next.END_OF_CONTENT:
                if data[at : at + 2] != b"\r\n":
                    if data[at:] == b"\r":
                        self._pending = b"\r"
                        return pieces
                    raise MessageError("a chunk does not end with CRLF")
                at += 2
                self._next = _Next.SIZE
            elif following is _Next.TRAILERS:
                self._read_trailers(data[at:])
                return pieces
            else:
                self.rest += data[at:]
                return pieces
        return pieces

    def _keep(self, start: bytes, may_continue: bool) -> None:
        """Keep the start of a chunk's line."""
        if len(start) > H1_CHUNK_LINE:
            raise MessageError("the line before a chunk is too long")
        if not may_continue or not _START_OF_SIZE_LINE.fullmatch(start):
            raise MessageError("the size of a chunk is malformed")
        self._pending = start

    def _read_trailers(self, data: bytes) -> None:
        end = 0 if data[:2] == b"\r\n" else data.find(b"\r\n\r\n")
        if (len(data) if end < 0 else end) > self._max_trailers:
            raise MessageError("trailer section too large", status_hint=431)
        if end < 0:
            if data.count(b"\n") != data.count(b"\r\n"):
                raise MessageError("a line of the trailer section does not end with CRLF")
            self._pending = data
            return
        for line in data[:end].split(b"\r\n") if end else ():
            name, colon, value = line.partition(b":")
            if not colon:
                raise MessageError("a trailer has no colon")
            self.trailers.append((name.lower(), value.strip(b" \t")))
        self._next = _Next.NOTHING
        self.rest = data[end + 4 if end else 2 :]
