"""Errors, settings and interfaces of the HTTP/2 codec."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from quicedge.config import limits
from quicedge.http.hpack import Section
from quicedge.http.message import Field, Fields
from quicedge.shares.rank import Rank


class H2Error(Exception):
    """A connection error: close the connection with `code`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = int(code)
        self.reason = reason


class H2StreamError(Exception):
    """A stream error: the codec resets the stream with `code`.

    Handlers may raise it; the codec reports it to `Handler.on_stream_error` and continues.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = int(code)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class H2Settings:
    """Our settings, announced to the client and enforced."""

    max_streams: int = limits.MAX_STREAMS_BIDI
    stream_window: int = limits.STREAM_WINDOW
    connection_window: int = limits.CONNECTION_WINDOW
    max_field_section_size: int = limits.MAX_FIELD_SECTION_SIZE
    max_fields: int = limits.MAX_FIELDS
    extended_connect: bool = False
    """Announce SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3)."""


class H2Stream:
    """The state of one stream; only the codec writes to it, except for `app`."""

    __slots__ = (
        "app", "content", "content_length", "credit", "ending", "head_at", "head_turn",
        "id", "is_new", "local_open", "offset", "pending", "rank", "receive_window", "received",
        "remote_open", "scheduled", "sent", "stop_code", "trailers", "unsent", "window",
    )  # fmt: skip

    def __init__(self, stream_id: int, receive_window: int, window: int, rank: Rank) -> None:
        self.id = stream_id
        self.app: Any = None
        """The handler's object for the request."""
        # Receiving.
        self.remote_open = True
        """More of the request may arrive."""
        self.receive_window = receive_window
        """Bytes that the client may send."""
        self.credit = 0
        """Bytes consumed and not yet announced."""
        self.content_length: int | None = None
        self.received = 0
        self.content: list[bytes | memoryview] = []
        """Content received in this turn and not yet delivered."""
        # Sending.
        self.local_open = True
        """More of the response may be sent."""
        self.window = window
        """Bytes that we may send; negative after the client has reduced its window."""
        self.pending: deque[bytes] = deque()
        self.offset = 0
        """Bytes of the first pending piece that are sent."""
        self.unsent = 0
        """Bytes pending."""
        self.sent = 0
        """Bytes of content sent."""
        self.ending = False
        """The response is completely written."""
        self.trailers: Sequence[Field] = ()
        self.stop_code: int | None = None
        """Reset the stream with this code once the response is sent; NO_ERROR: if the request is
        not complete by then."""
        self.rank = rank
        self.scheduled = False
        self.is_new = False
        """It is among those written to since the last output."""
        self.head_at = 0
        """Where its last HEADERS frame is in the output of turn `head_turn`."""
        self.head_turn = -1


class Handler(Protocol):
    """Callbacks to the application.

    Per stream: `on_request`, `on_data` any number of times, then `on_trailers`, `on_end` or
    `on_cut_short`. Nothing follows `on_reset` or `on_stream_error`.
    """

    def on_request(self, stream: H2Stream, section: Section, ended: bool) -> None:
        """A request head; `ended`: it is the whole request, and `on_end` is not called.

        If `section.too_large`, the rest of the stream should be refused.
        """

    def on_data(self, stream: H2Stream, data: bytes) -> None:
        """Content; the application must return its flow-control credit."""

    def on_trailers(self, stream: H2Stream, fields: Fields) -> None:
        """A trailer section, which completes the message."""

    def on_end(self, stream: H2Stream) -> None:
        """The message is complete."""

    def on_cut_short(self, stream: H2Stream) -> bool:
        """The message has ended short of its content-length: whether that is in order, because the
        client has given its request up and gets the response; False: the message is malformed."""

    def on_reset(self, stream: H2Stream, code: int) -> None:
        """The client reset the stream."""

    def on_stream_error(self, stream: H2Stream, error: H2StreamError) -> None:
        """A message is malformed, or a rule was broken; the stream has been reset."""

    def on_refused(self) -> None:
        """A stream was refused, or a frame of a closed one was answered with a reset."""

    def on_exhausted(self, reason: str) -> None:
        """The client sent too many frames without content: accept no new requests."""
