"""The HTTP/3 session of one connection: turns transport events into exchanges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeAlias

from quicedge.config.limits import RESPONSE_MEMORY_GRAIN
from quicedge.config.schema import Route
from quicedge.downstream.close_reason import close_reason
from quicedge.downstream.conduct import Conduct
from quicedge.downstream.early_data import SAFE_METHODS, EarlyData
from quicedge.downstream.held_requests import HeldRequests
from quicedge.downstream.http3_client import Http3Client
from quicedge.downstream.http3_progress import Http3Progress
from quicedge.downstream.paused_origins import PausedOrigins
from quicedge.downstream.progress import Progress
from quicedge.downstream.response_account import ResponseAccount
from quicedge.downstream.stalls import Stalls, reset_stalled
from quicedge.downstream.stream_timeouts import StreamTimeouts
from quicedge.http.errors import H3ErrorCode
from quicedge.http.h3 import H3Error, H3StreamError
from quicedge.http.known_sections import KnownSection
from quicedge.http.message import Field, Fields, Request, Response
from quicedge.http.priority import Priority, parse_priority
from quicedge.http.validation import MessageError, validate_request, validate_trailers
from quicedge.proxy.accounting import route_label
from quicedge.proxy.error_response import error_response
from quicedge.proxy.exchange import Exchange, HeadTooLarge
from quicedge.proxy.gateway import Gateway
from quicedge.quic import events
from quicedge.quic.connection import Connection
from quicedge.quic.ending import Delivery, Ending
from quicedge.shares import Client
from quicedge.telemetry.outcomes import Outcome

MAX_REQUEST_STREAM_ID = 2**62 - 4
"""The highest possible ID of a request stream (RFC 9000 section 2.1)."""


class Codec(Protocol):
    """An HTTP codec (`http.h3.H3Connection`), which calls the `on_*` methods of a session."""

    def stream_data(self, stream_id: int, data: bytes, end_stream: bool) -> None: ...

    def stream_reset(self, stream_id: int, error_code: int) -> None: ...

    def stop_sending(self, stream_id: int, error_code: int) -> None: ...

    def expect_length(self, stream_id: int, length: int) -> None: ...

    def unfinished_heads(self) -> list[int]: ...

    def drop(self, stream_id: int) -> None: ...

    def can_send(self, fields: Sequence[Field]) -> bool: ...

    def send_headers(self, stream_id: int, fields: Fields, end_stream: bool = False) -> None: ...

    def send_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None: ...

    def send_message(self, stream_id: int, fields: Fields, data: bytes) -> None: ...

    def send_trailers(self, stream_id: int, fields: Fields) -> None: ...

    def send_goaway(self, stream_id: int) -> None: ...


CodecFactory: TypeAlias = Callable[["Http3Session"], Codec]
"""Makes the codec of an application protocol when a session has negotiated it."""


class Host(Protocol):
    """What a session needs of the worker (`worker.edge.Edge`)."""

    early_data: EarlyData

    @property
    def max_streams(self) -> int:
        """Maximum number of concurrent requests per connection."""

    def wake(self, connection: Connection) -> None:
        """Schedule a transmit at the end of this event loop iteration."""

    def make_codec(self, session: Http3Session, alpn: str | None) -> Codec:
        """Create the codec for the negotiated application protocol."""

    def negotiated(self, session: Http3Session) -> None:
        """The session has its codec now."""

    def handshake_completed(self, session: Http3Session) -> None: ...

    def session_ended(self, session: Http3Session) -> None:
        """The connection has ended, and so have all exchanges."""


class RequestStream:
    """The client's side of one exchange (`proxy.exchange.Downstream`)."""

    __slots__ = ("exchange", "paused", "session", "stream_id")

    def __init__(self, session: Http3Session, stream_id: int) -> None:
        self.session = session
        self.stream_id = stream_id
        self.paused = False
        self.exchange: Exchange | None = None

    def accepted(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.session.accepted(self, exchange)

    def done(self, exchange: Exchange) -> None:
        session = self.session
        session.exchange_done(self.stream_id, exchange.outcome is Outcome.COMPLETE)
        if not exchange.status and session.memory.abandoned():
            session.settle_memory()
        self.exchange = None  # break the reference cycle

    def informational(self, response: Response) -> None:
        # One that exceeds the client's limit is omitted: the final response matters.
        if self.paused:
            return
        with suppress(HeadTooLarge):
            self._send_head(response, end=False)
            self._pause_if_full()

    def response(self, response: Response, end: bool) -> None:
        self.session.memory.answered()
        self._send_head(response, end)

    def _send_head(self, response: Response, end: bool) -> None:
        session = self.session
        if not session.connection.streams.can_send(self.stream_id):
            return
        head = [(b":status", b"%d" % response.status), *response.fields]
        if not session.h3.can_send(head):
            raise HeadTooLarge
        session.h3.send_headers(self.stream_id, head, end_stream=end)
        if end:
            self._await_delivery()
        session.wake()

    def write(self, data: bytes) -> None:
        session = self.session
        if not session.connection.streams.can_send(self.stream_id):
            return
        session.h3.send_data(self.stream_id, data)
        if len(data) >= RESPONSE_MEMORY_GRAIN:
            session.settle_memory()
        self._pause_if_full()
        session.wake()

    def _pause_if_full(self) -> None:
        """Stop reading from the origin while the client is behind."""
        session = self.session
        if not self.paused and self.unsent > session.send_buffer_limit:
            session.paused.pause(self)

    @property
    def unsent(self) -> int:
        """Bytes written and not yet sent."""
        return self.session.connection.streams.unsent(self.stream_id)

    def end(self, trailers: Sequence[Field]) -> None:
        session = self.session
        if session.connection.streams.can_send(self.stream_id):
            # Trailers beyond the client's limit are discarded, as RFC 9110 section 6.5.1 allows.
            if trailers and session.h3.can_send(trailers):
                session.h3.send_trailers(self.stream_id, list(trailers))
            else:
                session.h3.send_data(self.stream_id, b"", end_stream=True)
            self._await_delivery()
            session.wake()

    def whole(self, response: Response, data: bytes) -> None:
        session = self.session
        session.memory.answered()
        if not session.connection.streams.can_send(self.stream_id):
            return
        head = [(b":status", b"%d" % response.status), *response.fields]
        if not session.h3.can_send(head):
            raise HeadTooLarge
        session.h3.send_message(self.stream_id, head, data)
        if len(data) >= RESPONSE_MEMORY_GRAIN:
            session.settle_memory()
        self._await_delivery()
        session.wake()

    def _await_delivery(self) -> None:
        if self.exchange is not None:
            self.session.delivering[self.stream_id] = self

    @property
    def undelivered(self) -> int:
        return self.session.connection.streams.unacknowledged(self.stream_id)

    def reset(self, internal: bool) -> None:
        code = H3ErrorCode.INTERNAL_ERROR if internal else H3ErrorCode.REQUEST_CANCELLED
        self.session.reset(self.stream_id, code)

    def consumed(self, nbytes: int) -> None:
        self.session.connection.consume(self.stream_id, nbytes)
        self.session.wake()

    def stop_request(self) -> None:
        self.session.stop(self.stream_id, H3ErrorCode.NO_ERROR)


class Http3Session:
    """The HTTP/3 server side of one QUIC connection.

    Implements `quic.connection.ConnectionHandler` for the transport and `http.h3_types.Handler` for
    the codec. `h3` exists from the negotiation of the protocol until the connection has ended; the
    transport's ConnectionTerminated event is the last. Draining: `announce_drain`, a round trip
    later `drain`, then the session closes itself once no exchange is left.

    Invariants: a request is either held (`held`) or has an exchange in `streams`; a stream in
    `paused` or `delivering` is in `streams` too.
    """

    def __init__(self, connection: Connection, gateway: Gateway, host: Host) -> None:
        self.connection = connection
        self.client = Http3Client(connection)
        self.h3: Codec
        self._gateway = gateway
        self._host = host
        self.wake = partial(host.wake, connection)
        """Transmits what the connection has to send at the end of this event loop iteration."""
        self.streams: dict[int, RequestStream] = {}
        self.paused: PausedOrigins[RequestStream] = PausedOrigins()
        self.delivering: dict[int, RequestStream] = {}
        """Streams whose response is completely written but not completely acknowledged."""
        self._acknowledged = 0
        """`Recovery.delivered` when `delivering` was last checked."""
        self.requests = 0
        self.memory = ResponseAccount(gateway.policy.response_memory, self.client.share)
        self.held: HeldRequests[RequestStream] = HeldRequests(
            gateway,
            self.memory,
            self,
            may_run=self._may_run,
            start=self._start,
            refuse=self._refuse_late,
        )
        """Requests that wait for the handshake to complete, for the verdict on their early data,
        for the client's address to be validated, or for memory."""
        self.stalls = Stalls()
        self._runs_early: bool | None = None
        """Whether requests may run before the handshake is complete; None: not yet decided."""
        self.resets_received = 0
        self.resets_sent = 0
        self.stops_received = 0
        self.stops_sent = 0
        self.routes: set[str] = set()
        """Routes of its requests, as `HOST` and `PATH` of the configuration."""
        self._last_route: Route | None = None
        self.progress: Progress = Http3Progress(connection)
        """Progress of its streams."""
        self.timeouts = StreamTimeouts()
        self._leave_by = 0.0
        """Until then, the connection is closed only once the client has seen the GOAWAY."""
        self.going_away = False
        """GOAWAY was sent: accept no new requests, and close once the running ones are done."""
        self._conduct = Conduct(self, gateway, host.max_streams)
        self._closing = False
        self._negotiated = False
        self._highest_stream_id = -4

    @property
    def share(self) -> Client:
        """The client that its resources are charged to."""
        return self.client.share

    @property
    def is_busy(self) -> bool:
        """Whether any deadline on progress is running."""
        return bool(self.streams) or self.connection.streams.peer_bidi_open > 0

    # --- from the transport -------------------------------------------------------------------

    def handle_event(self, event: events.QuicEvent) -> None:
        if self._closing and not isinstance(event, events.ConnectionTerminated):
            return
        try:
            if isinstance(event, events.StreamDataReceived):
                if self._negotiated:
                    self.h3.stream_data(event.stream_id, event.data, event.end_stream)
            elif isinstance(event, events.StreamReset):
                self.resets_received += 1
                self.h3.stream_reset(event.stream_id, event.error_code)
            elif isinstance(event, events.StopSendingReceived):
                self.stops_received += 1
                self.h3.stop_sending(event.stream_id, event.error_code)
            elif isinstance(event, events.ProtocolNegotiated):
                self.h3 = self._host.make_codec(self, event.alpn_protocol)
                self._negotiated = True
                self._host.negotiated(self)
            elif isinstance(event, events.HandshakeCompleted):
                self._host.handshake_completed(self)
                self.held.release()
            elif isinstance(event, events.OverheadExhausted):
                self.on_exhausted("too many packets without stream data")
            elif isinstance(event, events.ConnectionTerminated):
                self._lost()
        except H3Error as error:
            if error.code == H3ErrorCode.EXCESSIVE_LOAD:
                self._conduct.note()
            self._close_at_fault(error.code, error.reason)

    def after_transmit(self) -> None:
        """Settle deliveries, resume origins whose clients caught up, close when drained."""
        connection = self.connection
        acknowledged = connection.recovery.delivered
        if not connection.is_alive:
            self._end_exchanges()
        elif self.delivering and acknowledged != self._acknowledged:
            self._acknowledged = acknowledged
            for stream_id in connection.streams.delivered(self.delivering):
                self._delivered(self.delivering[stream_id])
        if self.streams or self.memory.account.held:
            self.settle_memory()
        if self.held.requests and connection.handshake_complete:
            # An address that changed during the handshake may be validated only now.
            self.held.release()
        if self.going_away:
            self.close_if_drained()
        if self.paused.streams:
            caught_up = self.paused.caught_up()
            if caught_up:
                self.paused.resume(caught_up, self.send_buffer_limit)

    def _delivered(self, stream: RequestStream) -> None:
        self.delivering.pop(stream.stream_id, None)
        if stream.exchange is not None:
            stream.exchange.delivered()

    def _end_exchanges(self) -> None:
        """End all exchanges when the connection closes, not after the closing period."""
        if not self.streams:
            return
        by_edge = self.connection.ending is Ending.LOCAL_CLOSE
        outcome = Outcome.CONNECTION_CLOSED if by_edge else Outcome.CLIENT_GONE
        event = self.connection.close_event
        told = (
            event.reason_phrase if by_edge and event is not None else close_reason(self.connection)
        )
        satisfied = self._client_is_satisfied
        for stream in list(self.streams.values()):
            stream_id = stream.stream_id
            state = self.connection.streams.delivery(stream_id)
            if stream_id in self.delivering and (
                state is Delivery.DELIVERED or (satisfied and state is Delivery.IN_FLIGHT)
            ):
                self._delivered(stream)
            # A tunnel goes on after its origin's half is delivered.
            if stream.exchange is not None:
                stream.exchange.connection_lost(outcome, told or "")

    @property
    def _client_is_satisfied(self) -> bool:
        """Whether the client closed without an error.

        Many clients close as soon as they have the last byte, without acknowledging it.
        """
        event = self.connection.close_event
        if event is None or self.connection.ending is not Ending.PEER_CLOSE:
            return False
        application = event.frame_type is None
        return event.error_code == 0 or (application and event.error_code == H3ErrorCode.NO_ERROR)

    def _lost(self) -> None:
        self._end_exchanges()
        self.streams.clear()
        self.held.clear()
        self.paused.clear()
        self.delivering.clear()
        self.memory.account.settle(0)
        self._host.session_ended(self)
        self._conduct.end()
        if self._negotiated:
            self._negotiated = False
            del self.h3  # break the reference cycle

    # --- from the codec (http.h3_types.Handler) -------------------------------------------------

    def on_headers(self, stream_id: int, fields: list[Field], end_stream: bool) -> None:
        if self._rejects_late(stream_id):
            return
        if not self.connection.streams.can_send(stream_id):
            self._stop_unwanted(stream_id)  # STOP_SENDING arrived first
            return
        self.requests += 1
        stream = RequestStream(self, stream_id)
        try:
            limits = self._gateway.message_limits
            if isinstance(fields, KnownSection):
                request = fields.as_request(limits)
            else:
                request = validate_request(fields, limits, is_measured=True)
            request.ended = end_stream
            if request.content_length is not None:
                if end_stream and request.content_length:
                    raise MessageError("content short of content-length")
                self.h3.expect_length(stream_id, request.content_length)
        except MessageError as error:
            self._reject(stream, fields, error, end_stream)
            return
        if b"priority" in dict(fields):
            self._prioritize(stream_id, fields)
        if self._may_run(request):
            self._gateway.handle(request, stream, self.client)
        else:
            self.held.hold(stream, request)

    def memory_is_free(self) -> None:
        """Start requests that waited for memory (`response_memory.Waiter`)."""
        if self.connection.is_alive:
            self.held.release()
            self.held.wait_for_memory()
            self.wake()

    def _rejects_late(self, stream_id: int) -> bool:
        """Reject a request beyond the GOAWAY or on a closing connection; True if it was."""
        if self._closing:
            return True
        if self.going_away and stream_id > self._highest_stream_id:
            # RFC 9114 section 5.2: requests above the GOAWAY id are not processed.
            self.reset(stream_id, H3ErrorCode.REQUEST_REJECTED)
            self.stop(stream_id, H3ErrorCode.REQUEST_REJECTED)
            self._conduct.refused()
            return True
        if stream_id > self._highest_stream_id:
            self._highest_stream_id = stream_id
        return False

    def _start(self, stream: RequestStream, request: Request) -> None:
        self._gateway.handle(request, stream, self.client)

    def accepted(self, stream: RequestStream, exchange: Exchange) -> None:
        """A request of this connection was accepted."""
        self.streams[stream.stream_id] = stream
        route = exchange.route
        if route is not None and route is not self._last_route:
            self._last_route = route
            self.routes.add(route_label(route))
        if self.memory.started():
            self.settle_memory()

    def _may_run(self, request: Request) -> bool:
        if self.memory.is_short:
            return False
        if self._gateway.policy.needs_address and self.connection.validated_path is None:
            return False
        # RFC 8470 section 3: early data may be a replay until the handshake is complete.
        return self.connection.handshake_complete or self._may_run_early(request)

    def _may_run_early(self, request: Request) -> bool:
        if request.method not in SAFE_METHODS:
            return False
        if self._runs_early is None:
            use = self.connection.handshake.early_data_use
            self._runs_early = self._host.early_data.is_first(use, self._early_data_is_first)
        return self._runs_early

    def _early_data_is_first(self) -> None:
        """The ticket was not used before: release safe requests."""
        if self.connection.handshake_complete or not self.connection.is_alive:
            return
        self._runs_early = True
        self.held.release()
        self.wake()

    def check_idle(self, now: float, timeout: float) -> None:
        """QUIC has an idle timeout of its own (RFC 9000 section 10.1)."""

    def check_held(self, now: float) -> None:
        """Start held requests that no longer have to wait; refuse those that waited too long."""
        if not self.held:
            return
        if self.connection.handshake_complete:
            self.held.release()
        self.held.refuse_late(now)
        self.wake()

    def _refuse_late(self, stream: RequestStream, request: Request) -> None:
        self._gateway.refuse_late(request, stream, self.client)

    def _prioritize(self, stream_id: int, fields: list[Field]) -> None:
        for name, value in fields:
            # RFC 9218 section 7: a PRIORITY_UPDATE received before the request overrides it.
            if name == b"priority" and not self.connection.streams.is_prioritized(stream_id):
                self.connection.prioritize(stream_id, *parse_priority(value))

    def on_data(self, stream_id: int, data: bytes) -> None:
        if stream_id in self.held.requests:
            self.held.data(stream_id, data)
            return
        stream = self.streams.get(stream_id)
        if stream is None or stream.exchange is None:
            self.connection.consume(stream_id, len(data))
        else:
            stream.exchange.request_data(data)

    def on_end(self, stream_id: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id in self.held.requests:
                self.held.end(stream_id)
        elif stream.exchange is not None:
            stream.exchange.request_end()

    def on_trailers(self, stream_id: int, fields: list[Field]) -> None:
        stream = self.streams.get(stream_id)
        is_held = stream_id in self.held
        if not is_held and (stream is None or stream.exchange is None):
            return
        if stream is not None and stream.exchange is not None and stream.exchange.is_tunnel:
            # RFC 9114 section 4.4: only DATA is permitted; H3_FRAME_UNEXPECTED.
            raise H3Error(H3ErrorCode.FRAME_UNEXPECTED, "HEADERS in a tunnel")
        try:
            trailers = validate_trailers(fields, limits=self._gateway.message_limits)
        except MessageError as error:
            raise H3StreamError(H3ErrorCode.MESSAGE_ERROR, str(error), stream_id) from error
        if is_held:
            self.held.end(stream_id, trailers)
        elif stream is not None and stream.exchange is not None:
            stream.exchange.request_end(trailers)

    def on_cut_short(self, stream_id: int) -> bool:
        stream = self.streams.get(stream_id)
        if stream is None or stream.exchange is None:
            # The response is delivered, or the request waits to be started.
            return stream_id not in self.held
        return stream.exchange.give_up_request()

    def on_reset(self, stream_id: int, error_code: int) -> None:
        self._count_cancelled(stream_id)
        self.held.forget(stream_id)
        stream = self.streams.get(stream_id)
        if stream is not None and stream.exchange is not None:
            stream.exchange.request_aborted()
        elif self.connection.streams.can_send(stream_id):
            # Its head never arrived: leaving our half open would occupy a stream slot forever.
            self.reset(stream_id, H3ErrorCode.REQUEST_CANCELLED)

    def on_stop_sending(self, stream_id: int, error_code: int) -> None:
        self._count_cancelled(stream_id)
        self.held.forget(stream_id)
        stream = self.streams.get(stream_id)
        if stream is not None and stream.exchange is not None:
            stream.exchange.response_stopped()
        self._stop_unwanted(stream_id)

    def _stop_unwanted(self, stream_id: int) -> None:
        """Stop reading a request whose response the client has refused."""
        self.h3.drop(stream_id)
        self.stop(stream_id, H3ErrorCode.REQUEST_CANCELLED)

    def on_goaway(self, stream_id: int) -> None:
        """A client's GOAWAY limits pushes; we never push."""

    def on_priority_update(self, element_id: int, priority: Priority) -> None:
        # RFC 9218 section 7.2: one beyond the stream limits SHOULD be treated as H3_ID_ERROR.
        if element_id >> 2 >= self.connection.streams.peer_bidi.granted:
            raise H3Error(H3ErrorCode.ID_ERROR, "PRIORITY_UPDATE beyond the stream limit")
        self.connection.prioritize(element_id, *priority)

    def on_field_section_too_large(self, stream_id: int, fields: list[Field]) -> None:
        """Answer a request head that exceeds our limits with 431."""
        if self._rejects_late(stream_id):
            return
        self._reject(
            RequestStream(self, stream_id),
            fields,
            MessageError("field section too large", status_hint=431),
            end_stream=False,
        )

    def unfinished_heads(self) -> list[int]:
        """Streams whose request head is incomplete."""
        if not self._negotiated:
            return []
        # The codec has not heard of streams whose beginning is missing.
        return self.h3.unfinished_heads() + self.connection.streams.without_beginning()

    def refuse_head(self, stream_id: int, status: int, reason: str) -> None:
        """Answer a request whose head was never completed."""
        self.h3.drop(stream_id)
        error = MessageError(reason, status_hint=status)
        self._reject(RequestStream(self, stream_id), (), error, end_stream=False)

    def _count_cancelled(self, stream_id: int) -> None:
        """Account for a stream that the client reset or stopped before its response."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.exchange is None:
            if stream_id in self.held or stream_id > self._highest_stream_id:
                self._conduct.cancelled(0.0)
        elif not stream.exchange.response_started:
            self._conduct.cancelled(self._gateway.now() - stream.exchange.started_at)

    def on_exhausted(self, reason: str) -> None:
        """The client has exhausted a budget of its transport or codec."""
        if not self._closing:
            self._conduct.exhausted(reason)

    def close_for_abuse(self, reason: str) -> None:
        """Close because of the load that the client causes."""
        if not self._closing:
            self._close_at_fault(H3ErrorCode.EXCESSIVE_LOAD, reason)

    def _close_at_fault(self, code: int, reason: str) -> None:
        """Close because of the client's behaviour."""
        self._closing = True
        self._gateway.policy.note_closed(self.client, code, reason)
        self.close(code, reason)
        self._end_exchanges()

    # --- refusing and ending ----------------------------------------------------------------------

    def _reject(
        self,
        stream: RequestStream,
        fields: Sequence[Field],
        error: MessageError,
        end_stream: bool,
    ) -> None:
        """Answer a malformed request; RFC 9114 section 4.1.2 allows a response before the reset.

        `fields`: its field section, as far as it could be decoded.
        """
        self._conduct.refused()
        method = next((value for name, value in fields if name == b":method"), None)
        head, body = error_response(error.status_hint, method)
        # RFC 9110 section 6.6.1: an origin server with a clock MUST generate Date in 4xx responses.
        head.fields.append((b"date", self._gateway.date()))
        self._gateway.rejected(self.client, stream.stream_id, fields, error, len(body))
        try:
            stream.response(head, end=not body)
        except HeadTooLarge:
            stream.reset(internal=True)
        if body:
            stream.write(body)
            stream.end(())
        if not end_stream:
            self.stop(stream.stream_id, H3ErrorCode.MESSAGE_ERROR)

    def on_stream_error(self, error: H3StreamError) -> None:
        """Reset the stream of a malformed message; the connection continues."""
        self._conduct.refused()
        self.held.forget(error.stream_id)
        # Reset before the exchange does so with H3_REQUEST_CANCELLED. A complete response is still
        # delivered, whatever the client sent after its request.
        if self.connection.streams.can_send(error.stream_id):
            self.reset(error.stream_id, error.code)
        self.stop(error.stream_id, error.code)
        stream = self.streams.get(error.stream_id)
        if stream is not None and stream.exchange is not None:
            stream.exchange.request_malformed(error.reason)

    def reset(self, stream_id: int, code: int) -> None:
        """Reset our half of a stream, even if the response is completely written."""
        if self.connection.streams.can_reset(stream_id):
            self.resets_sent += 1
            self.connection.reset_stream(stream_id, code)
            self.wake()

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the client to stop sending."""
        if self.connection.streams.can_receive(stream_id):
            self.stops_sent += 1
            self.connection.stop_stream(stream_id, code)
            self.wake()

    def exchange_done(self, stream_id: int, complete: bool) -> None:
        if complete:
            self._conduct.completed()
        self.streams.pop(stream_id, None)
        if self.paused.streams:
            self.paused.forget(stream_id)
        self.delivering.pop(stream_id, None)
        if self.going_away:
            self.close_if_drained()

    # --- memory -----------------------------------------------------------------------------------

    def settle_memory(self) -> None:
        """Account for the memory of responses: unsent and unacknowledged bytes, exchanges."""
        connection = self.connection
        self.memory.settle(
            connection.streams.unsent_total + connection.recovery.bytes_in_flight, len(self.streams)
        )

    def release_reservations(self) -> None:
        """Stop reserving memory for responses that did not start within a second."""
        self.memory.release_reservations()
        self.settle_memory()

    @property
    def send_buffer_limit(self) -> int:
        """Unsent bytes per stream above which its origin is paused."""
        return self.memory.send_buffer_limit(self.connection.streams.unsent_total)

    @property
    def unread_bytes(self) -> int:
        """Request bytes received that no origin has taken."""
        return self.connection.streams.window.unread

    def reset_stalled(self) -> int:
        """Reset stalled streams, those that hold most first, until the client holds less than its
        share of the memory; returns their number."""
        return reset_stalled(self.streams, self.memory, self._abandon_stalled)

    def _abandon_stalled(self, stream: RequestStream) -> None:
        self.reset(stream.stream_id, H3ErrorCode.EXCESSIVE_LOAD)
        if stream.exchange is not None:
            stream.exchange.response_timed_out()
        self.settle_memory()

    # --- drain ------------------------------------------------------------------------------------

    def announce_drain(self) -> None:
        """Send the first GOAWAY: new requests are still served, but should go elsewhere.

        RFC 9114 section 5.2: a server SHOULD first send a GOAWAY with the highest possible ID,
        and the final one after a round trip.
        """
        # The identifier must not increase from one GOAWAY to the next.
        if self._negotiated and self.connection.is_alive and not self.going_away:
            self.h3.send_goaway(MAX_REQUEST_STREAM_ID)
            self.wake()

    def drain(self, patience: float = 0.0) -> None:
        """Send the final GOAWAY: finish running requests, reject new ones.

        A client behind a NAT that has changed its port learns of it only when it next sends: for
        `patience` seconds the connection stays open until the GOAWAY is acknowledged. A request
        that comes meanwhile is rejected, and thus known not to have been processed.
        """
        self._leave_by = self._gateway.now() + patience
        if not self.going_away and self._negotiated and self.connection.is_alive:
            self.h3.send_goaway(self._highest_stream_id + 4)
        self.going_away = True
        self.close_if_drained()
        self.wake()

    def close(self, code: int, reason: str) -> None:
        """Close the connection now."""
        if self.connection.is_alive:
            self.connection.close(error_code=code, reason_phrase=reason)
            self.wake()

    def close_if_drained(self) -> None:
        """Close the connection if GOAWAY was sent and no exchange is left."""
        # Not while a response is in flight: closing would truncate it.
        if (
            not self.going_away
            or self.streams
            or self.held
            or not self.connection.streams.responses_delivered
            or self._gateway.now() < self._conduct.leave_from
            or (
                self._gateway.now() < self._leave_by
                and not self.connection.streams.own_streams_delivered
            )
        ):
            return
        if self._conduct.reason is None:
            self.close(H3ErrorCode.NO_ERROR, "shutting down")
        else:
            self.close_for_abuse(self._conduct.reason)
