"""Errors, settings and interfaces of the HTTP/3 codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from quicedge.config import limits
from quicedge.http.message import Field, Fields
from quicedge.http.priority import Priority


class H3Error(Exception):
    """A connection error: close the connection with `code`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = int(code)
        self.reason = reason


class H3StreamError(Exception):
    """A stream error: reset both directions of `stream_id` with `code`.

    Handlers may raise it; the codec reports it to `Handler.on_stream_error` and continues.
    """

    def __init__(self, code: int, reason: str, stream_id: int) -> None:
        super().__init__(reason)
        self.code = int(code)
        self.reason = reason
        self.stream_id = stream_id


class Transport(Protocol):
    """What the codec needs of a QUIC connection."""

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None: ...

    def get_next_available_stream_id(self, is_unidirectional: bool = False) -> int: ...

    def consume(self, stream_id: int, nbytes: int) -> None: ...


class Handler(Protocol):
    """Callbacks to the application; fields are as received, pseudo-header fields first.

    Per stream: `on_headers`, `on_data` any number of times, then `on_trailers`, `on_end` or
    `on_cut_short`. Nothing follows `on_field_section_too_large` or `on_stream_error`.
    """

    def on_headers(self, stream_id: int, fields: Fields, end_stream: bool) -> None: ...

    def on_data(self, stream_id: int, data: bytes) -> None:
        """Content; the application must return its flow-control credit."""

    def on_trailers(self, stream_id: int, fields: Fields) -> None:
        """A trailer section, which completes the message."""

    def on_end(self, stream_id: int) -> None:
        """The message is complete; also called after a head that arrived with `end_stream`."""

    def on_cut_short(self, stream_id: int) -> bool:
        """The message has ended short of its content-length: whether that is in order, because the
        client has given its request up and gets the response; False: the message is malformed."""

    def on_reset(self, stream_id: int, error_code: int) -> None: ...

    def on_stop_sending(self, stream_id: int, error_code: int) -> None: ...

    def on_goaway(self, stream_id: int) -> None: ...

    def on_priority_update(self, element_id: int, priority: Priority) -> None: ...

    def on_field_section_too_large(self, stream_id: int, fields: Fields) -> None:
        """A request head exceeds the limits; the rest of the stream is ignored.

        `fields`: the section, if it was decoded.
        """

    def on_stream_error(self, error: H3StreamError) -> None:
        """A message is malformed; the rest of its stream is ignored."""

    def on_exhausted(self, reason: str) -> None:
        """The peer has exhausted its budget for frames without content: accept no new requests."""


class Observer(Protocol):
    """Observes frames as they are sent and received (`h3_qlog.QlogObserver`)."""

    def headers_sent(self, stream_id: int, fields: Sequence[Field]) -> None: ...

    def data_sent(self, stream_id: int, length: int) -> None: ...

    def goaway_sent(self, control_stream: int, value: int) -> None: ...

    def headers_received(self, stream_id: int, fields: Sequence[Field]) -> None: ...

    def data_received(self, stream_id: int, length: int) -> None: ...

    def settings_received(self, settings: dict[int, int]) -> None: ...

    def goaway_received(self, control_stream: int, value: int) -> None: ...

    def priority_updated(self, element_id: int, value: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class H3Settings:
    """Our settings, announced to the peer and enforced."""

    qpack_max_table_capacity: int = 0
    qpack_blocked_streams: int = 0
    max_field_section_size: int = limits.MAX_FIELD_SECTION_SIZE
    max_fields: int = limits.MAX_FIELDS
    extended_connect: bool = False
    """Clients may request tunnels (RFC 9220)."""


class StreamState:
    """The receiving state of a stream."""

    __slots__ = (
        "blocked", "blocked_fin", "buffer", "content_length", "delivered", "dropped", "frame",
        "headers_done", "kind", "left", "received", "trailers_done",
    )  # fmt: skip

    def __init__(self) -> None:
        self.buffer = b""
        self.kind: int | None = None  # type of a unidirectional stream
        self.frame: int | None = None  # type of the frame being read
        self.left = 0  # payload bytes of the frame still to be read
        self.headers_done = False
        self.trailers_done = False
        self.delivered = 0  # content bytes of the current read that the handler will credit
        self.dropped = False  # the rest is ignored
        self.blocked = False  # on the QPACK encoder stream
        self.blocked_fin = False
        self.content_length: int | None = None
        self.received = 0
