"""The HTTP/2 session of one connection: turns streams into exchanges."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from quicedge.config.limits import (
    H2_EARLY_RESPONSE_LEAD,
    H2_UNSENT_FRAMES,
    H2_WRITE_HIGH,
    H2_WRITE_LOW,
)
from quicedge.downstream.conduct import Conduct
from quicedge.downstream.held_requests import HeldRequests
from quicedge.downstream.http2_delivery import Connection, Delivery
from quicedge.downstream.http2_stream import RequestStream
from quicedge.downstream.paused_origins import PausedOrigins
from quicedge.downstream.progress import Progress
from quicedge.downstream.response_account import ResponseAccount
from quicedge.downstream.stalls import Stalls, reset_stalled
from quicedge.downstream.stream_timeouts import StreamTimeouts
from quicedge.http.errors import H2ErrorCode, H3ErrorCode, to_h2
from quicedge.http.h2 import H2Connection, H2Error, H2Settings, H2Stream, H2StreamError
from quicedge.http.h2_frames import MAX_STREAM_ID
from quicedge.http.hpack import Section
from quicedge.http.message import Field, Fields, Request
from quicedge.http.priority import Priority, parse_priority
from quicedge.http.validation import MessageError, validate_request, validate_trailers
from quicedge.proxy.accounting import route_label
from quicedge.proxy.client import ClientInfo
from quicedge.proxy.error_response import error_response
from quicedge.proxy.exchange import Exchange, HeadTooLarge
from quicedge.proxy.gateway import Gateway
from quicedge.shares import Client
from quicedge.telemetry.outcomes import Outcome

log = structlog.get_logger(__name__)


class Host(Protocol):
    """What a session needs of the worker (`worker.edge.Edge`)."""

    loop: asyncio.AbstractEventLoop
    h2_settings: H2Settings

    def session_ended(self, session: Http2Session) -> None:
        """The connection has ended, and so have all exchanges."""


class Http2Session(asyncio.Protocol):
    """The HTTP/2 server side of one connection.

    The protocol of its transport, from `start` on; `connection_lost` is the last call. What all
    streams produce in one turn of the loop is written at once. Draining: `announce_drain`, a round
    trip later `drain`, then the session closes itself once no exchange is left.

    Invariants: a request is either held (`held`) or has an exchange in `streams`; a stream in
    `paused` is in `streams` too.
    """

    __slots__ = (
        "_close_reason", "_closing", "_conduct", "_flush_scheduled", "_gateway", "_host",
        "_idle_since", "_is_corked", "_loop", "_reading_paused", "_transport", "_unread",
        "client", "codec", "connection", "delivery", "going_away", "held",
        "memory", "paused", "requests", "resets_received", "resets_sent", "routes", "stalls",
        "streams", "timeouts", "writing_paused",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, client: ClientInfo, gateway: Gateway, host: Host
    ) -> None:
        self.connection = connection
        self.client = client
        self._gateway = gateway
        self._host = host
        self._loop = host.loop
        self._transport = connection.transport
        self.codec = H2Connection(self, host.h2_settings, gateway.now)
        self.streams: dict[int, RequestStream] = {}
        self.paused: PausedOrigins[RequestStream] = PausedOrigins()
        self.delivery = Delivery(connection, self.codec, self.streams, host.loop)
        self.memory = ResponseAccount(gateway.policy.response_memory, client.share)
        self.held: HeldRequests[RequestStream] = HeldRequests(
            gateway,
            self.memory,
            self,
            may_run=self._may_run,
            start=self._start,
            refuse=self._refuse_late,
        )
        """Requests that wait for memory."""
        self._conduct = Conduct(self, gateway, host.h2_settings.max_streams)
        self.stalls = Stalls()
        self.timeouts = StreamTimeouts()
        self.requests = 0
        self.routes: set[str] = set()
        """Routes of its requests, as `HOST` and `PATH` of the configuration."""
        self.resets_received = 0
        self.resets_sent = 0
        self.going_away = False
        """The final GOAWAY was sent: accept no new requests, and close once none is running."""
        self._closing = False
        self._close_reason: str | None = None
        self._flush_scheduled = False
        self._is_corked = False
        """A flush follows anyway in this call."""
        self.writing_paused = False
        """The client does not read: its transport is full."""
        self._reading_paused = False
        self._unread = 0
        """Bytes written since the client stopped reading."""
        self._idle_since = gateway.now()

    def start(self) -> None:
        """The transport is ready, and this its protocol."""
        self._transport.set_write_buffer_limits(H2_WRITE_HIGH, H2_WRITE_LOW)
        self.codec.start()
        self._flush()

    # --- for the worker (downstream.session.Session) ----------------------------------------------

    @property
    def progress(self) -> Progress:
        """Progress of its streams."""
        return self.delivery

    @property
    def share(self) -> Client:
        """The client that its resources are charged to."""
        return self.client.share

    @property
    def is_busy(self) -> bool:
        """Whether any deadline on progress is running."""
        return bool(self.streams or self.held) or self.codec.unfinished_head is not None

    @property
    def unread_bytes(self) -> int:
        """Request bytes received that no origin has taken."""
        return self.codec.unread_bytes

    def unfinished_heads(self) -> list[int]:
        """Streams whose request head is incomplete: one at most."""
        unfinished = self.codec.unfinished_head
        return [] if unfinished is None else [unfinished]

    def refuse_head(self, stream_id: int, status: int, reason: str) -> None:
        """End the connection: nothing can be received before the header block is complete."""
        self._close_at_fault(H2ErrorCode.ENHANCE_YOUR_CALM, reason)

    def check_idle(self, now: float, timeout: float) -> None:
        """Close a connection that has had no requests for `timeout` seconds."""
        if self.is_busy or self._closing:
            return
        if self.memory.account.held:
            self.settle_memory()  # the transport has written the rest of its responses
        if now - self._idle_since > timeout:
            self.close(H3ErrorCode.NO_ERROR, "idle")

    def check_held(self, now: float) -> None:
        """Start held requests that no longer have to wait; refuse those that waited too long."""
        if self.held:
            self.held.release()
            self.held.refuse_late(now)
            self.wake()

    def memory_is_free(self) -> None:
        """Start requests that waited for memory (`response_memory.Waiter`)."""
        if not self._closing:
            self.held.release()
            self.held.wait_for_memory()
            self.wake()

    # --- from the transport (asyncio.Protocol) ----------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self._closing:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        codec = self.codec
        self._is_corked = True
        try:
            codec.receive(data)
        except H2Error as error:
            if error.code == H2ErrorCode.ENHANCE_YOUR_CALM:
                self._conduct.note()
            self._close_at_fault(error.code, error.reason)
            return
        except Exception as error:
            self._fail(error)
            return
        finally:
            self._is_corked = False
        if codec.has_waiting and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
            self._loop.call_soon(self._receive_more)
        if codec.sender.has_output or self.going_away:
            self._flush()

    def _receive_more(self) -> None:
        """Handle the frames of the next turn; a turn of its own reads again."""
        if not self._closing:
            self._receive(b"")
        if self._closing:
            return
        if self.codec.has_waiting:
            self._loop.call_soon(self._receive_more)
        else:
            self._reading_paused = False
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """The client will send nothing more, not even window updates: the connection ends."""
        return False

    def pause_writing(self) -> None:
        self.writing_paused = True
        self._unread = 0

    def resume_writing(self) -> None:
        self.writing_paused = False
        self.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        by_edge = self._closing
        self._closing = True
        if exc is None and not by_edge and not self.writing_paused:
            # Many clients close as soon as they have the last byte.
            self.delivery.settle_all()
        reason = self._close_reason if by_edge else str(exc or "")
        outcome = Outcome.CONNECTION_CLOSED if by_edge else Outcome.CLIENT_GONE
        self._end_exchanges(outcome, reason or "")
        self.delivery.close()
        self.held.clear()
        self.memory.account.settle(0)
        self._host.session_ended(self)
        # Break the reference cycles.
        del self.codec, self.delivery, self.held, self._conduct

    def _end_exchanges(self, outcome: Outcome, reason: str) -> None:
        for stream in list(self.streams.values()):
            if stream.exchange is not None:
                stream.exchange.connection_lost(outcome, reason)

    # --- output -----------------------------------------------------------------------------------

    def wake(self) -> None:
        """There is something to send: write at the end of this turn of the loop."""
        if not self._flush_scheduled and not self._is_corked:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if not self._closing:
            try:
                self._write()
            except Exception as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """A fault of ours costs this connection alone."""
        context = {"message": "handling HTTP/2 failed", "exception": error}
        self._loop.call_exception_handler(context)
        self._close(H2ErrorCode.INTERNAL_ERROR, "internal error")

    def _write(self) -> None:
        """Write what all streams have, settle what became of it, resume origins."""
        codec = self.codec
        out = codec.poll(0 if self.writing_paused else H2_WRITE_HIGH)
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            self._transport.write(data)
            self.delivery.bytes_written += len(data)
            if self.writing_paused:
                self._bound_unread(len(data))
        sender = codec.sender
        if sender.finished:
            self.delivery.written(codec.take_finished())
            for h2 in codec.take_stopping():
                self._loop.call_later(H2_EARLY_RESPONSE_LEAD, self._stop, h2)
        if self.paused:
            caught_up = self.paused.caught_up()
            if caught_up:
                self.paused.resume(caught_up, self.send_buffer_limit)
        if sender.has_output and not self.writing_paused:
            self.wake()
        if sender.unsent or self.memory.account.held:
            self.settle_memory()
        if self.going_away:
            self.close_if_drained()

    def _stop(self, h2: H2Stream) -> None:
        """Stop the rest of a request whose response was sent."""
        if not self._closing and h2.remote_open and h2.stop_code is not None:
            self.reset_stream(h2, h2.stop_code)

    def _bound_unread(self, nbytes: int) -> None:
        """Bound what a client that does not read makes us write: heads and control frames."""
        self._unread += nbytes
        if self._unread > H2_UNSENT_FRAMES:
            self._conduct.note()
            self._close_at_fault(H2ErrorCode.ENHANCE_YOUR_CALM, "replies are not read")
            self._transport.abort()

    # --- from the codec (http.h2_types.Handler) ---------------------------------------------------

    def on_request(self, h2: H2Stream, section: Section, ended: bool) -> None:
        if self.going_away or self._closing:
            # RFC 9113 section 6.8: streams above the one of the GOAWAY are not processed.
            self.codec.reset(h2, H2ErrorCode.REFUSED_STREAM)
            self._conduct.refused()
            return
        self.requests += 1
        stream = h2.app = RequestStream(self, h2)
        try:
            known: tuple[Request, Priority | None] | None = section.memo
            if known is None:
                known = section.memo = self._validate(section)
            prototype, priority = known
            request = prototype.with_fields(prototype.fields.copy())
            request.ended = ended
            if request.content_length is not None:
                if ended and request.content_length:
                    raise MessageError("content short of content-length")
                h2.content_length = request.content_length
        except MessageError as error:
            self._reject(stream, section.fields, error, ended)
            return
        if priority is not None:
            self.codec.prioritize(h2, priority)
        if self.memory.is_short:
            self.held.hold(stream, request)
        else:
            self._gateway.handle(request, stream, self.client)

    def _validate(self, section: Section) -> tuple[Request, Priority | None]:
        """The request of a field section, and its priority if it has one."""
        if section.too_large:
            raise MessageError("field section too large", status_hint=431)
        request = validate_request(section.fields, limits=self._gateway.message_limits)
        value = next((value for name, value in request.fields if name == b"priority"), None)
        return request, parse_priority(value) if value is not None else None

    def _may_run(self, request: Request) -> bool:
        return not self.memory.is_short

    def _start(self, stream: RequestStream, request: Request) -> None:
        self._gateway.handle(request, stream, self.client)

    def _refuse_late(self, stream: RequestStream, request: Request) -> None:
        self._gateway.refuse_late(request, stream, self.client)

    def accepted(self, stream: RequestStream, exchange: Exchange) -> None:
        """A request of this connection was accepted."""
        self.streams[stream.stream_id] = stream
        if exchange.route is not None:
            self.routes.add(route_label(exchange.route))
        if self.memory.started():
            self.settle_memory()

    def on_data(self, h2: H2Stream, data: bytes) -> None:
        if h2.id in self.held:
            self.held.data(h2.id, data)
            return
        exchange = _exchange_of(h2)
        if exchange is None:
            self.codec.consume(h2, len(data))
        else:
            exchange.request_data(data)

    def on_end(self, h2: H2Stream) -> None:
        if h2.id in self.held:
            self.held.end(h2.id)
        elif (exchange := _exchange_of(h2)) is not None:
            exchange.request_end()

    def on_trailers(self, h2: H2Stream, fields: Fields) -> None:
        is_held = h2.id in self.held
        exchange = _exchange_of(h2)
        if not is_held and exchange is None:
            return
        if exchange is not None and exchange.is_tunnel:
            # RFC 8441 section 5 with RFC 9113 section 8.5: only DATA is permitted.
            raise H2StreamError(H2ErrorCode.PROTOCOL_ERROR, "HEADERS in a tunnel")
        try:
            trailers = validate_trailers(fields, limits=self._gateway.message_limits)
        except MessageError as error:
            raise H2StreamError(H2ErrorCode.PROTOCOL_ERROR, str(error)) from error
        if is_held:
            self.held.end(h2.id, trailers)
        elif exchange is not None:
            exchange.request_end(trailers)

    def on_cut_short(self, h2: H2Stream) -> bool:
        exchange = _exchange_of(h2)
        if exchange is None:
            # The response is delivered, or the request waits to be started.
            return h2.id not in self.held
        return exchange.give_up_request()

    def on_reset(self, h2: H2Stream, code: int) -> None:
        self.resets_received += 1
        exchange = _exchange_of(h2)
        if exchange is None:
            if h2.id in self.held:
                self._conduct.cancelled(0.0)
                self.held.forget(h2.id)
            return
        if not exchange.response_started:
            self._conduct.cancelled(self._gateway.now() - exchange.started_at)
        exchange.response_stopped()

    def on_stream_error(self, h2: H2Stream, error: H2StreamError) -> None:
        self.resets_sent += 1
        self._conduct.refused()
        self.held.forget(h2.id)
        if (exchange := _exchange_of(h2)) is not None:
            exchange.request_malformed(error.reason)
            exchange.response_stopped()  # in case it was complete, but not sent

    def on_refused(self) -> None:
        self.resets_sent += 1
        self._conduct.refused()

    def on_exhausted(self, reason: str) -> None:
        if not self._closing:
            self._conduct.exhausted(reason)

    # --- refusing and ending ----------------------------------------------------------------------

    def _reject(
        self, stream: RequestStream, fields: Sequence[Field], error: MessageError, ended: bool
    ) -> None:
        """Answer a malformed request; RFC 9113 section 8.1.1 allows a response before the reset.

        `fields`: its field section, as far as it was kept.
        """
        self._conduct.refused()
        method = next((value for name, value in fields if name == b":method"), None)
        head, body = error_response(error.status_hint, method)
        # RFC 9110 section 6.6.1: an origin server with a clock MUST generate Date in 4xx responses.
        head.fields.append((b"date", self._gateway.date()))
        self._gateway.rejected(self.client, stream.stream_id, fields, error, len(body))
        if not ended:
            # Clients that are still sending would take an error for the end of the response too.
            self.codec.stop_request(stream.h2)
        elif error.status_hint == 400:
            self.codec.stop_request(stream.h2, H2ErrorCode.PROTOCOL_ERROR)
        try:
            stream.response(head, end=not body)
        except HeadTooLarge:
            stream.reset(internal=True)
            return
        if body:
            stream.write(body)
            stream.end(())

    def reset(self, stream_id: int, code: int) -> None:
        """Reset a stream, even if its response is completely written; `code` is one of HTTP/3."""
        h2 = self.codec.streams.get(stream_id)
        if h2 is not None:
            self.reset_stream(h2, to_h2(code))

    def reset_stream(self, h2: H2Stream, code: int) -> None:
        """Abandon a stream in both directions."""
        if h2.local_open or h2.remote_open:
            self.resets_sent += 1
            self.codec.reset(h2, code)
            self.wake()

    def exchange_done(self, stream: RequestStream, complete: bool) -> None:
        """An exchange has ended."""
        if complete:
            self._conduct.completed()
        stream_id = stream.stream_id
        self.streams.pop(stream_id, None)
        if stream.paused:
            self.paused.forget(stream_id)
        if not self.streams:
            self._idle_since = self._gateway.now()
            if self.going_away:
                self.wake()

    # --- memory -----------------------------------------------------------------------------------

    def settle_memory(self) -> None:
        """Account for the memory of responses: unsent bytes, exchanges."""
        self.memory.settle(
            self.codec.sender.unsent + self._transport.get_write_buffer_size(), len(self.streams)
        )

    def release_reservations(self) -> None:
        """Stop reserving memory for responses that did not start within a second."""
        self.memory.release_reservations()
        self.settle_memory()

    @property
    def send_buffer_limit(self) -> int:
        """Unsent bytes per stream above which its origin is paused."""
        return self.memory.send_buffer_limit(self.codec.sender.unsent)

    def reset_stalled(self) -> int:
        """Reset stalled streams, those that hold most first, until the client holds less than its
        share of the memory; returns their number."""
        return reset_stalled(self.streams, self.memory, self._abandon_stalled)

    def _abandon_stalled(self, stream: RequestStream) -> None:
        self.reset_stream(stream.h2, H2ErrorCode.ENHANCE_YOUR_CALM)
        if stream.exchange is not None:
            stream.exchange.response_timed_out()
        self.settle_memory()

    # --- drain ------------------------------------------------------------------------------------

    def announce_drain(self) -> None:
        """Send the first GOAWAY: new requests are still served, but should go elsewhere.

        RFC 9113 section 6.8: a server SHOULD first send a GOAWAY with the highest possible ID, and
        the final one after a round trip.
        """
        if not self.going_away and not self._closing:
            self.codec.send_goaway(MAX_STREAM_ID)
            self.wake()

    def drain(self, patience: float = 0.0) -> None:
        """Send the final GOAWAY: finish running requests, reject new ones."""
        if not self.going_away and not self._closing:
            code = H2ErrorCode.NO_ERROR
            if self._conduct.reason is not None:
                code = H2ErrorCode.ENHANCE_YOUR_CALM
            self.codec.send_goaway(
                self.codec.highest_stream_id, code, self._conduct.reason or "shutting down"
            )
        self.going_away = True
        self.wake()

    def close_if_drained(self) -> None:
        """Close the connection if the final GOAWAY was sent and no exchange is left."""
        if (
            not self.going_away
            or self._closing
            or self.streams
            or self.held
            or self.codec.sender.unsent
            or self._gateway.now() < self._conduct.leave_from
        ):
            return
        if self._conduct.reason is None:
            self._close(H2ErrorCode.NO_ERROR, "shutting down")
        else:
            self.close_for_abuse(self._conduct.reason)

    def close(self, code: int, reason: str) -> None:
        """Close the connection now; `code` is one of HTTP/3."""
        self._close(to_h2(code), reason)

    def close_for_abuse(self, reason: str) -> None:
        """Close because of the load that the client causes."""
        self._close_at_fault(H2ErrorCode.ENHANCE_YOUR_CALM, reason)

    def _close_at_fault(self, code: int, reason: str) -> None:
        """Close because of the client's behaviour."""
        if not self._closing:
            self._gateway.policy.note_closed(self.client, code, reason)
            self._close(code, reason)

    def _close(self, code: int, reason: str) -> None:
        if self._closing:
            return
        self._close_reason = reason
        self.codec.send_goaway(self.codec.highest_stream_id, code, reason)
        frames = b"".join(self.codec.poll(0))
        self._closing = True
        self._transport.write(frames)
        self._transport.close()
        self._end_exchanges(Outcome.CONNECTION_CLOSED, reason)


def _exchange_of(h2: H2Stream) -> Exchange | None:
    """The exchange of a stream, while it has one."""
    stream: RequestStream | None = h2.app
    return None if stream is None else stream.exchange
