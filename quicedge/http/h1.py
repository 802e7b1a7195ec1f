"""Reads the requests of an HTTP/1.1 connection, one at a time (RFC 9112)."""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

from quicedge.config.limits import H1_CHUNK_SHARE, H1_PIECE
from quicedge.http.grammar import TOKEN
from quicedge.http.h1_chunked import ChunkedDecoder
from quicedge.http.h1_head import HeadReader, RequestHead
from quicedge.http.message import Fields
from quicedge.http.validation import MessageError, validate_trailers

_CR = 13


class Handler(Protocol):
    """Receives the requests of a connection (`downstream.http1.Http1Session`).

    Called in this order per request: `on_request`; unless it has ended, `on_data` any number of
    times and `on_end`. `on_malformed` may replace any of them and is the last call.
    """

    def on_request(self, head: RequestHead) -> None: ...

    def on_data(self, data: bytes) -> None: ...

    def on_end(self, trailers: Fields) -> None: ...

    def on_ahead(self, size: int) -> None:
        """So many bytes of further requests, or of content that is held, are kept."""

    def on_small_chunks(self, count: int) -> None:
        """Received that many chunks more than their content justifies."""

    def on_malformed(self, error: MessageError, head: bytes | None) -> None:
        """`head`: what was received of a malformed head; None if the content is malformed."""


class _State(Enum):
    HEAD = auto()
    """Before or within a head."""
    LENGTH = auto()
    """Within content of a declared length."""
    CHUNKED = auto()
    """Within chunked content."""
    HELD = auto()
    """Before content that `hold` keeps back."""
    COMPLETE = auto()
    """After a request, until `proceed`."""
    TUNNEL = auto()
    """The connection has switched protocols: bytes are passed on as they are."""
    CLOSED = auto()
    """Everything else is ignored: nothing after a malformed message can be trusted."""


class RequestReader:
    """Turns the bytes of a connection into requests.

    The next request is read only after `proceed`: what a client sends ahead (pipelining) is kept in
    `buffered`, which the owner bounds by not reading from the connection.
    """

    __slots__ = (
        "_at", "_authority", "_blank_line", "_chunks", "_content", "_data", "_handler", "_heads",
        "_left", "_line_checked", "_searched", "_state",
    )  # fmt: skip

    def __init__(self, handler: Handler, heads: HeadReader, default_authority: bytes) -> None:
        self._handler = handler
        self._heads = heads
        self._authority = default_authority
        self._state = _State.HEAD
        self._data = b""
        """Received, but not read yet from `_at` on."""
        self._at = 0
        self._searched = 0
        """Up to where `_data` has no end of a head."""
        self._line_checked = False
        """The request line of an incomplete head was found to be well-formed."""
        self._blank_line = False
        """An empty line came before the request."""
        self._left = 0
        """Bytes of content still to come, if its length was declared."""
        self._chunks: ChunkedDecoder | None = None
        self._content = _State.COMPLETE
        """The state after HELD."""

    @property
    def buffered(self) -> int:
        """Bytes that were received but not read."""
        return len(self._data) - self._at

    @property
    def in_head(self) -> bool:
        """Whether part of a head was received."""
        return self._state is _State.HEAD and len(self._data) > self._at

    @property
    def is_complete(self) -> bool:
        """Whether the last request was received completely."""
        return self._state is _State.COMPLETE

    @property
    def left(self) -> int | None:
        """Bytes of content still to come; None: unknown."""
        state = self._content if self._state is _State.HELD else self._state
        if state is _State.LENGTH:
            return self._left
        return 0 if state is _State.COMPLETE else None

    def receive(self, data: bytes) -> None:
        """Receive bytes from the client."""
        state = self._state
        if state is _State.HEAD:
            if self._data:
                data = self._data[self._at :] + data
                self._searched = max(self._searched - self._at, 0)
            self._data = data
            self._at = 0
            self._read_head()
        elif state is _State.LENGTH:
            self._read_length(data)
        elif state is _State.CHUNKED:
            self._read_chunks(data)
        elif state is _State.TUNNEL:
            self._handler.on_data(data)
        elif state is not _State.CLOSED:
            self._data = self._data[self._at :] + data
            self._at = 0
            self._handler.on_ahead(len(self._data))

    def hold(self) -> None:
        """Keep back the content of the request whose head is being handled, until `release`."""
        if self._state is not _State.COMPLETE and self._state is not _State.CLOSED:
            self._content = self._state
            self._state = _State.HELD

    def release(self) -> None:
        """Deliver the content that was kept back."""
        if self._state is _State.HELD:
            self._state = self._content
            self._read_rest()

    def proceed(self) -> bool:
        """The response is complete: a request that comes from now on is read. Returns whether more
        was sent ahead, to be read by `read_ahead`."""
        if self._state is not _State.COMPLETE:
            return False  # content is still to come
        self._state = _State.HEAD
        if self._data:
            return True
        self._at = 0
        return False

    def read_ahead(self) -> None:
        """Read the next request of what was sent ahead."""
        if self._state is _State.HEAD and self._data:
            self._read_head()

    def switch(self) -> None:
        """The response switches protocols: everything after the request belongs to the tunnel."""
        if self._state is _State.COMPLETE:
            self._state = _State.TUNNEL
            data, self._data = self._data[self._at :], b""
            self._at = 0
            if data:
                self._handler.on_data(data)

    def close(self) -> None:
        """Ignore everything from now on."""
        self._state = _State.CLOSED
        self._data = b""
        self._at = 0

    # --- heads ------------------------------------------------------------------------------------

    def _read_head(self) -> None:
        data, at = self._data, self._at
        if data[at] == _CR and not self._blank_line:
            # RFC 9112 section 2.2: SHOULD ignore at least one empty line before a request.
            if data[at:] == b"\r":
                return
            if data[at : at + 2] == b"\r\n":
                self._blank_line = True
                at += 2
                self._at = at
                if len(data) == at:
                    self._data = b""
                    self._at = 0
                    return
        end = data.find(b"\r\n\r\n", max(at, self._searched))
        if end < 0:
            self._check_start()
            return
        self._searched = 0
        self._line_checked = self._blank_line = False
        try:
            if end - at > self._heads.limits.max_size:
                raise self._too_large(data, at)
            head = self._heads.read(data[at:end], self._authority)
        except MessageError as error:
            self._fail(error, data[at:end])
            return
        end += 4
        if len(data) > end:
            self._at = end
        else:
            self._data = b""
            self._at = 0
        request = head.request
        if request.ended:
            self._state = _State.COMPLETE
        elif head.chunked:
            self._state = _State.CHUNKED
            self._chunks = ChunkedDecoder(self._heads.limits.max_size)
        else:
            self._state = _State.LENGTH
            self._left = request.content_length or 0
        self._handler.on_request(head)
        if self._data:
            self._read_rest()
            if self._data:
                self._handler.on_ahead(len(self._data) - self._at)

    def _read_rest(self) -> None:
        """Read what was received together with the head."""
        if self._state is _State.LENGTH or self._state is _State.CHUNKED:
            data = self._data[self._at :]
            self._data = b""
            self._at = 0
            if data:
                self.receive(data)

    def _check_start(self) -> None:
        """Check an incomplete head: it must not be kept if it can only be rejected."""
        data, at = self._data, self._at
        try:
            if len(data) - at > self._heads.limits.max_size:
                raise self._too_large(data, at)
            if not TOKEN.match(data, at):
                raise MessageError("the request does not begin with a method")
            if not self._line_checked and (end := data.find(b"\n", at)) >= 0:
                if data[end - 1] != _CR:
                    raise MessageError("the request line does not end with CRLF")
                self._heads.check_line(data[at : end - 1])
                self._line_checked = True
            start = max(at, self._searched)
            if data.count(b"\n", start) != data.count(b"\r\n", max(start - 1, 0)):
                raise MessageError("a field line does not end with CRLF")
        except MessageError as error:
            self._fail(error, data[at:])
            return
        self._searched = max(len(data) - 3, at)

    def _too_large(self, data: bytes, at: int) -> MessageError:
        """A head is too large: because of its request line, or of its fields."""
        if data.find(b"\r\n", at, at + self._heads.limits.max_size) < 0:
            return MessageError("the request line is too long", status_hint=414)
        return MessageError("field section too large", status_hint=431)

    # --- content ----------------------------------------------------------------------------------

    def _read_length(self, data: bytes) -> None:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            self._handler.on_data(data)
            return
        self._state = _State.COMPLETE
        if left < 0:
            self._data = data[left:]
            data = data[:left]
        self._left = 0
        self._handler.on_data(data)
        self._end([])
        if left < 0:
            self._handler.on_ahead(len(self._data))

    def _read_chunks(self, data: bytes) -> None:
        decoder, handler = self._chunks, self._handler
        assert decoder is not None
        before = decoder.chunks
        try:
            pieces = decoder.decode(data)
        except MessageError as error:
            self._fail(error, None)
            return
        if pieces:
            total = sum(map(len, pieces))
            small = decoder.chunks - before - total // H1_CHUNK_SHARE
            if small > 0:
                handler.on_small_chunks(small)
            if total < len(pieces) * H1_PIECE:
                pieces = [b"".join(pieces)]
            for piece in pieces:
                if self._state is not _State.CHUNKED:
                    return
                handler.on_data(piece)
        if decoder.complete and self._state is _State.CHUNKED:
            self._chunks = None
            self._data = decoder.rest
            try:
                trailers = validate_trailers(decoder.trailers, self._heads.limits)
            except MessageError as error:
                self._fail(error, None)
                return
            self._state = _State.COMPLETE
            self._end(trailers)
            if self._data:
                self._handler.on_ahead(len(self._data))

    def _end(self, trailers: Fields) -> None:
        # The handler may have closed.
        if self._state is _State.COMPLETE:
            self._handler.on_end(trailers)

    def _fail(self, error: MessageError, head: bytes | None) -> None:
        self.close()
        self._handler.on_malformed(error, head)
