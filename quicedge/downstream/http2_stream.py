"""The client's side of one exchange over HTTP/2 (`proxy.exchange.Downstream`)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from quicedge.config.limits import RESPONSE_MEMORY_GRAIN, SEND_BUFFER_FLOOR
from quicedge.downstream.http2_delivery import Delivery
from quicedge.downstream.paused_origins import PausedOrigins
from quicedge.downstream.response_account import ResponseAccount
from quicedge.http.errors import H2ErrorCode
from quicedge.http.h2 import H2Connection, H2Stream
from quicedge.http.message import Field, Response
from quicedge.proxy.exchange import Exchange, HeadTooLarge
from quicedge.telemetry.outcomes import Outcome

_STATUS = {status: (b":status", b"%d" % status) for status in range(100, 600)}


class Session(Protocol):
    """The session of the stream (`http2.Http2Session`)."""

    codec: H2Connection
    delivery: Delivery
    memory: ResponseAccount
    paused: PausedOrigins[RequestStream]
    writing_paused: bool

    @property
    def send_buffer_limit(self) -> int:
        """Unsent bytes per stream above which its origin is paused."""

    def wake(self) -> None:
        """There is something to send."""

    def settle_memory(self) -> None:
        """The memory of responses has changed."""

    def accepted(self, stream: RequestStream, exchange: Exchange) -> None:
        """The request was accepted."""

    def exchange_done(self, stream: RequestStream, complete: bool) -> None:
        """The exchange has ended."""

    def reset_stream(self, h2: H2Stream, code: int) -> None:
        """Abandon the stream in both directions."""


class RequestStream:
    """A stream with a request, in the session that knows its exchange."""

    __slots__ = ("end_offset", "exchange", "h2", "paused", "session", "stream_id")

    def __init__(self, session: Session, h2: H2Stream) -> None:
        self.session = session
        self.h2 = h2
        self.stream_id = h2.id
        self.paused = False
        self.exchange: Exchange | None = None
        self.end_offset = 0
        """Where its last byte is in what was written to the connection, once it was."""

    def accepted(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.session.accepted(self, exchange)

    def done(self, exchange: Exchange) -> None:
        session = self.session
        session.exchange_done(self, exchange.outcome is Outcome.COMPLETE)
        if not exchange.status and session.memory.abandoned():
            session.settle_memory()
        # Break the reference cycles.
        self.exchange = self.h2.app = None

    def informational(self, response: Response) -> None:
        # One that exceeds the client's limit, or that it would not read soon, is omitted: the final
        # response matters.
        if not (self.paused or self.session.writing_paused):
            with suppress(HeadTooLarge):
                self._send_head(response, end=False)

    def response(self, response: Response, end: bool) -> None:
        self.session.memory.answered()
        self._send_head(response, end)

    def _send_head(self, response: Response, end: bool) -> None:
        h2, session = self.h2, self.session
        if not h2.local_open:
            return
        status = _STATUS.get(response.status) or (b":status", b"%d" % response.status)
        head = [status, *response.fields]
        if not session.codec.can_send(head):
            raise HeadTooLarge
        session.codec.send_headers(h2, head, end)
        session.wake()

    def write(self, data: bytes) -> None:
        h2, session = self.h2, self.session
        session.codec.send_data(h2, data)
        if len(data) >= RESPONSE_MEMORY_GRAIN:
            session.settle_memory()
        if (
            h2.unsent > SEND_BUFFER_FLOOR
            and not self.paused
            and h2.unsent > session.send_buffer_limit
        ):
            # Stop reading from the origin while the client is behind.
            session.paused.pause(self)
        session.wake()

    def end(self, trailers: Sequence[Field]) -> None:
        session = self.session
        # Trailers beyond the client's limit are discarded, as RFC 9110 section 6.5.1 allows.
        if trailers and not session.codec.can_send(trailers):
            trailers = ()
        session.codec.end(self.h2, trailers)
        session.wake()

    def whole(self, response: Response, data: bytes) -> None:
        self.response(response, end=not data)
        if data:
            self.write(data)
            self.end(())

    @property
    def unsent(self) -> int:
        """Bytes of content written and not yet sent."""
        return self.h2.unsent

    @property
    def undelivered(self) -> int:
        """Bytes of the response that the client has not taken."""
        return self.session.delivery.unacknowledged_bytes(self.stream_id)

    def reset(self, internal: bool) -> None:
        code = H2ErrorCode.INTERNAL_ERROR if internal else H2ErrorCode.CANCEL
        self.session.reset_stream(self.h2, code)

    def consumed(self, nbytes: int) -> None:
        session = self.session
        session.codec.consume(self.h2, nbytes)
        if session.codec.sender.has_output:
            session.wake()

    def stop_request(self) -> None:
        self.session.codec.stop_request(self.h2)
        self.session.wake()
