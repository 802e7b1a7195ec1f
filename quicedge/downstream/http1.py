"""The HTTP/1.1 session of one connection: turns requests into exchanges, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from quicedge.config.limits import (
    DELIVERY_CHECK_FIRST,
    DELIVERY_CHECK_LAST,
    H1_CHUNK_BURST,
    H1_CHUNK_RATE,
    H1_DRAINED,
    H1_PIPELINED,
    H1_UNTAKEN_HIGH,
    H1_UNTAKEN_LOW,
    H1_WRITE_SIZE,
    RESPONSE_MEMORY_GRAIN,
    SEND_BUFFER_FLOOR,
    SEND_BUFFER_HIGH,
    SEND_BUFFER_LOW,
)
from quicedge.config.schema import Route
from quicedge.downstream.held_requests import HeldRequests
from quicedge.downstream.http1_stream import RequestStream
from quicedge.downstream.progress import Progress
from quicedge.downstream.response_account import ResponseAccount
from quicedge.downstream.stalls import Stalls
from quicedge.downstream.stream_timeouts import StreamTimeouts
from quicedge.http.h1 import RequestReader
from quicedge.http.h1_head import HeadReader, RequestHead, describe_head
from quicedge.http.h1_response import encode_response
from quicedge.http.message import Fields, Request
from quicedge.http.upgrade import tunnel_request
from quicedge.http.validation import MessageError
from quicedge.proxy.accounting import route_label
from quicedge.proxy.client import ClientInfo
from quicedge.proxy.error_response import error_response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.gateway import Gateway
from quicedge.shares import Client, Standing, WorkBudget
from quicedge.telemetry.outcomes import Outcome, Refusal


class Connection(Protocol):
    """What a session needs of its connection (`tcp.connection.TcpConnection`)."""

    @property
    def transport(self) -> asyncio.Transport: ...

    @property
    def bytes_sent(self) -> int:
        """Bytes that were written."""

    def undelivered(self) -> int:
        """Bytes that were written and that the client has not acknowledged."""


class SessionClient(ClientInfo, Protocol):
    http_version: bytes


class Host(Protocol):
    """What a session needs of the worker (`worker.edge.Edge`)."""

    loop: asyncio.AbstractEventLoop
    heads: HeadReader

    def session_ended(self, session: Http1Session) -> None:
        """The connection has ended, and so has its exchange."""


class _TcpProgress:
    """Progress of the only stream of a connection (`downstream.progress`)."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def delivered(self) -> int:
        return max(self._connection.bytes_sent - self._connection.undelivered(), 0)

    def acknowledged_bytes(self, stream_id: int) -> int:
        return self.delivered

    def unacknowledged_bytes(self, stream_id: int) -> int:
        return self._connection.undelivered()

    def unsent_bytes(self, stream_id: int) -> int:
        return self._connection.transport.get_write_buffer_size()

    def is_flow_blocked(self, stream_id: int) -> bool:
        return False


class Http1Session(asyncio.Protocol):
    """The HTTP/1.1 server side of one connection.

    The protocol of its transport, from `start` on; `connection_lost` is the last call. A response
    gathers in `stream.pending` and is written once per turn of the loop. Requests that are sent
    ahead wait in the reader; one is started per turn.

    Invariants: a request is held, or has an exchange (`stream.exchange`), or its response is
    complete; the reader proceeds only then, and only if the connection persists.
    """

    __slots__ = (
        "_backlogged", "_check_after", "_chunks", "_close_reason", "_closed", "_delivering",
        "_ended", "_eof", "_gateway", "_host", "_idle_since", "_is_half_closed", "_is_tunnel",
        "_is_written", "_last_route", "_loop", "_reader", "_reading_paused", "_short", "_transport",
        "_untaken",
        "_writing_paused", "client", "connection", "going_away", "held", "is_draining", "memory",
        "requests", "routes", "stalls", "stream", "timeouts", "wake_scheduled",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        client: SessionClient,
        gateway: Gateway,
        host: Host,
        default_authority: bytes,
    ) -> None:
        """`default_authority`: of requests without Host, which only HTTP/1.0 allows."""
        self.connection = connection
        self.client = client
        self._gateway = gateway
        self._host = host
        self._loop = host.loop
        self._transport = connection.transport
        self._reader = RequestReader(self, host.heads, default_authority)
        self.stream = RequestStream(self)
        self.requests = 0
        self.routes: set[str] = set()
        self._last_route: Route | None = None
        self.memory = ResponseAccount(gateway.policy.response_memory, client.share)
        self.held: HeldRequests[RequestStream] = HeldRequests(
            gateway,
            self.memory,
            self,
            may_run=self._may_run,
            start=self._start_held,
            refuse=self._refuse_held,
        )
        """The request that waits for memory, if one does."""
        self.stalls = Stalls()
        self.timeouts = StreamTimeouts()
        self.going_away = False
        """The connection closes once its exchange is done."""
        self.is_draining = False
        """Responses say that the connection closes."""
        self.wake_scheduled = False
        self._ended = False
        """The last byte of a response is pending."""
        self._is_written = True
        """The response is written."""
        self._delivering = False
        """A response is written, but the client does not have all of it."""
        self._check_after = 0.0
        """Seconds until the kernel is asked again whether a response is delivered."""
        self._writing_paused = False
        self._short = False
        """The transport buffers less, because memory is short."""
        self._reading_paused = False
        self._untaken = 0
        """Bytes of content that the origin has not taken."""
        self._backlogged = False
        """Too much was sent ahead."""
        self._chunks: WorkBudget | None = None
        self._idle_since = gateway.now()
        self._eof = False
        """The client will send nothing more."""
        self._is_tunnel = False
        """The client has switched protocols."""
        self._is_half_closed = False
        """Our half of a tunnel has ended."""
        self._closed = False
        self._close_reason: str | None = None

    def start(self) -> None:
        """The transport is ready, and this its protocol."""
        self._transport.set_write_buffer_limits(SEND_BUFFER_HIGH, SEND_BUFFER_LOW)

    # --- for the worker (downstream.session.Session) ----------------------------------------------

    @property
    def streams(self) -> Mapping[int, RequestStream]:
        """The request in progress, if there is one."""
        stream = self.stream
        return {stream.stream_id: stream} if stream.exchange is not None else {}

    @property
    def progress(self) -> Progress:
        """Progress of its stream."""
        return _TcpProgress(self.connection)

    @property
    def share(self) -> Client:
        """The client that its resources are charged to."""
        return self.client.share

    @property
    def is_busy(self) -> bool:
        """Whether any deadline on progress is running."""
        return self.stream.exchange is not None or self._reader.in_head or bool(self.held)

    @property
    def unread_bytes(self) -> int:
        """Request bytes received that no origin has taken."""
        return self._untaken + self._reader.buffered

    def unfinished_heads(self) -> list[int]:
        """The next request, if part of its head was received."""
        return [self.stream.stream_id + 1] if self._reader.in_head else []

    def refuse_head(self, stream_id: int, status: int, reason: str) -> None:
        """Answer a request whose head was never completed."""
        self._reader.close()
        self._reject(MessageError(reason, status_hint=status), b"")

    def reset(self, stream_id: int, code: int) -> None:
        """Cut off the response, whatever of it the client has not read."""
        if stream_id == self.stream.stream_id:
            self.cut_off()

    def check_idle(self, now: float, timeout: float) -> None:
        """Close a connection without requests."""
        if not self.is_busy and now - self._idle_since > timeout:
            self.close(0, "idle")

    def release_reservations(self) -> None:
        """Settle the memory that its response holds."""
        self._settle_memory()

    def reset_stalled(self) -> int:
        """Break off a stalled response while the client holds its share of the memory."""
        exchange = self.stream.exchange
        if exchange is None or not exchange.stalled or not self.memory.is_short:
            return 0
        self.cut_off()
        exchange.response_timed_out()
        return 1

    def check_held(self, now: float) -> None:
        """Start the held request if it no longer has to wait; refuse it if it waited too long."""
        if self.held:
            self.held.release()
            self.held.refuse_late(now)

    def announce_drain(self) -> None:
        """Responses say from now on that the connection closes."""
        self.is_draining = True

    def drain(self, patience: float = 0.0) -> None:
        """Close once the running exchange is done."""
        self.is_draining = self.going_away = True
        self.close_if_drained()

    def close_if_drained(self) -> None:
        """Close if it is going away and no exchange is left."""
        if self.going_away and not self.is_busy:
            self.close(0, "shutting down")

    def close(self, code: int, reason: str) -> None:
        """Close the connection now, whatever runs on it."""
        if not self._closed:
            self._close_reason = reason
            if self.stream.exchange is None:
                self.finish()
            else:
                self.cut_off()

    def memory_is_free(self) -> None:
        """Start a request that waited for memory (`response_memory.Waiter`)."""
        if not self._closed:
            self.held.release()
            self.held.wait_for_memory()

    # --- from the transport -----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._reader.receive(data)

    def eof_received(self) -> bool:
        """The client sends nothing more; whether the transport stays open for the response."""
        self._eof = True
        if self._delivering and not self.connection.undelivered():
            self._deliver()
        self._check_eof()
        return not self._closed

    def _check_eof(self) -> None:
        """Nothing more comes: give up a request that is not complete."""
        reader = self._reader
        if self._is_tunnel:
            if self.stream.exchange is not None:
                self.stream.exchange.request_end()
            if self._is_half_closed:
                self.finish()
            return
        if self._closed or reader.is_complete or self.held:
            if not reader.buffered:
                self.stream.persistent = False
            return
        exchange = self.stream.exchange
        if exchange is not None and not exchange.request_over:
            self.stream.persistent = False
            exchange.request_aborted()
        else:
            self.finish()

    def pause_writing(self) -> None:
        self._writing_paused = True
        if self.stream.exchange is not None:
            self.stream.exchange.pause_response()

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self.stream.exchange is not None:
            self.stream.exchange.resume_response()
        self._settle_memory()
        if self._is_written and not self._closed:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        by_edge = self._closed
        self._closed = True
        if self._delivering and exc is None and not self._writing_paused:
            # Many clients close as soon as they have the last byte.
            self._deliver()
        exchange = self.stream.exchange
        if exchange is not None:
            if by_edge:
                exchange.connection_lost(Outcome.CONNECTION_CLOSED, self._close_reason or "")
            else:
                exchange.connection_lost(Outcome.CLIENT_GONE, str(exc) if exc is not None else "")
        self._delivering = False
        self._reader.close()
        self.held.clear()
        self.stream.pending.clear()
        self.memory.account.settle(0)
        self._host.session_ended(self)

    # --- from the reader (http.h1.Handler) --------------------------------------------------------

    def on_request(self, head: RequestHead) -> None:
        self.requests += 1
        stream = self.stream
        if stream.exchange is not None:
            self._deliver()  # the client goes on
        stream.begin(head)
        self._is_written = False
        self.client.http_version = b"1.1" if head.minor else b"1.0"
        request = head.request
        if head.upgrade:
            try:
                request = tunnel_request(request, head.upgrade) or request
            except MessageError as error:
                self._refuse_upgrade(head, error)
                return
        if self.memory.is_short:
            self._reader.hold()
            self.held.hold(stream, request)
        else:
            self._gateway.handle(request, stream, self.client)

    def on_data(self, data: bytes) -> None:
        exchange = self.stream.exchange
        if exchange is None:
            return  # of a refused request
        self._untaken += len(data)
        exchange.request_data(data)
        if self._untaken > H1_UNTAKEN_HIGH and not self._reading_paused:
            self._control_reading()

    def on_end(self, trailers: Fields) -> None:
        if self._is_written:
            self._go_on()
        elif self.stream.exchange is not None:
            self.stream.exchange.request_end(trailers)

    def on_ahead(self, size: int) -> None:
        if size > H1_PIPELINED and not self._backlogged:
            self._backlogged = True
            self._control_reading()

    def on_small_chunks(self, count: int) -> None:
        now = self._gateway.now()
        if self._chunks is None:
            self._chunks = WorkBudget(H1_CHUNK_BURST, H1_CHUNK_RATE, now)
        if self._chunks.spend(count, now) is not Standing.GOOD:
            self._gateway.policy.count(Refusal.ABUSE)
            self._reader.close()
            self.on_malformed(MessageError("too many small chunks"), None)

    def on_malformed(self, error: MessageError, head: bytes | None) -> None:
        exchange = self.stream.exchange
        if head is not None:
            if exchange is not None:
                self._deliver()
            self._reject(error, head)
        elif exchange is None or self._is_written:
            self.finish()
        else:
            self.stream.persistent = False
            exchange.refuse(error.status_hint, Outcome.MALFORMED, reason=str(error))
            exchange.request_malformed(str(error))

    def _refuse_upgrade(self, head: RequestHead, error: MessageError) -> None:
        """Answer a malformed opening handshake; the connection persists, as after any request."""
        stream, request = self.stream, head.request
        response, body = error_response(error.status_hint, request.method)
        response.fields.append((b"date", self._gateway.date()))
        fields = [
            (b":method", request.method), (b":authority", request.authority),
            (b":path", request.path), *request.fields,
        ]  # fmt: skip
        self._gateway.rejected(self.client, stream.stream_id, fields, error, len(body))
        stream.response(response, end=False)
        stream.write(body)
        stream.end(())

    # --- from the stream (http1_stream.Session) ---------------------------------------------------

    def accepted(self, exchange: Exchange) -> None:
        """A request of this connection was accepted."""
        route = exchange.route
        if route is not None and route is not self._last_route:
            self._last_route = route
            self.routes.add(route_label(route))

    def may_persist(self) -> bool:
        """Whether another request may follow although the running one is not complete."""
        # Its rest has to be read first, or the connection is of no further use.
        left = self._reader.left
        return left == 0 or (
            left is not None and left <= H1_DRAINED and not self._awaits_continue()
        )

    def _awaits_continue(self) -> bool:
        """Whether the client may omit the content: what follows could be another request."""
        request = self.stream.head.request
        return not request.ended and any(name == b"expect" for name, _ in request.fields)

    def wake(self) -> None:
        """Write what is pending at the end of this turn of the loop."""
        if not self.wake_scheduled:
            self.wake_scheduled = True
            self._loop.call_soon(self._woken)

    def _woken(self) -> None:
        self.wake_scheduled = False
        self.flush()
        if self._ended:
            self._written()

    def flush(self) -> None:
        """Write what is pending now."""
        stream = self.stream
        pending = stream.pending
        if not pending or self._closed:
            return
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        stream.pending_bytes = 0
        self._transport.write(data)
        if len(data) >= RESPONSE_MEMORY_GRAIN:
            self._settle_memory()
        if self._writing_paused and stream.exchange is not None:
            stream.exchange.pause_response()

    def response_ended(self) -> None:
        """The last byte of a response is pending."""
        self._ended = True
        if not self.wake_scheduled:
            self.wake()

    def switch_protocols(self) -> None:
        """Bytes of the client belong to the tunnel, those that came ahead too."""
        self._is_tunnel = True
        self._loop.call_soon(self._switch)

    def _switch(self) -> None:
        self._reader.switch()
        self._check_backlog()
        if self._eof:
            self._check_eof()

    def tunnel_ended(self) -> None:
        """The origin's half of a tunnel has ended: end ours, or both if the transport cannot."""
        self._delivering = True
        self._loop.call_soon(self._end_tunnel)

    def _end_tunnel(self) -> None:
        if self._closed:
            return
        self.flush()
        exchange = self.stream.exchange
        if exchange is not None and not exchange.request_over and self._transport.can_write_eof():
            self._is_half_closed = True
            self._transport.write_eof()
        else:
            if exchange is not None:
                exchange.request_end()
            self.finish()
        self._check_delivery()

    def cut_off(self) -> None:
        """Close abruptly, which shows the client that its response is incomplete."""
        if not self._closed:
            self._closed = True
            self._reader.close()
            self._transport.abort()

    def finish(self) -> None:
        """Close when everything written is sent."""
        if not self._closed:
            self.flush()
            self._closed = True
            self._reader.close()
            self._transport.close()

    def stop_request(self) -> None:
        """The rest of the request is dropped from now on (`on_data`)."""

    def consumed(self, nbytes: int) -> None:
        """The origin has taken request body bytes."""
        self._untaken -= nbytes
        if self._reading_paused and self._untaken <= H1_UNTAKEN_LOW:
            self._control_reading()

    @property
    def undelivered(self) -> int:
        """Bytes written that the client has not acknowledged."""
        return self.connection.undelivered()

    # --- the ends of exchanges --------------------------------------------------------------------

    def _written(self) -> None:
        """The response is written: account for it, and go on with the connection."""
        self._ended = False
        self._is_written = True
        exchange = self.stream.exchange
        if exchange is not None:
            if exchange.bytes_sent < H1_WRITE_SIZE and not self._writing_paused:
                # What the kernel takes at once is as good as delivered.
                exchange.delivered()
            else:
                self._delivering = True
                self._check_delivery()
        self._go_on()

    def _go_on(self) -> None:
        """The response is written, and the request complete, if another one may follow."""
        if not self.stream.persistent or self.going_away:
            # The transport goes on reading for a while: closing with unread bytes would destroy the
            # response (RFC 9112 section 9.6).
            self.finish()
        elif self._writing_paused:
            pass  # the client has to read before it is answered again
        elif self._reader.proceed():
            self._loop.call_soon(self._read_ahead)
        elif self._eof:
            self._check_eof()

    def _read_ahead(self) -> None:
        """Read a request that was sent ahead."""
        self._reader.read_ahead()
        self._check_backlog()
        if self._eof:
            self._check_eof()

    def _check_delivery(self) -> None:
        """See whether the client has all of a long response."""
        if not self._delivering:
            return
        if not self._writing_paused and not self.connection.undelivered():
            self._deliver()
        else:
            after = self._check_after or DELIVERY_CHECK_FIRST
            self._check_after = min(2 * after, DELIVERY_CHECK_LAST)
            self._loop.call_later(after, self._check_delivery)

    def _deliver(self) -> None:
        """The client has the response, or is taken to have it."""
        self._delivering = False
        self._check_after = 0.0
        exchange = self.stream.exchange
        if exchange is not None:
            exchange.delivered()

    def exchange_done(self, exchange: Exchange) -> None:
        """The exchange has ended."""
        self._ended = False
        self._idle_since = exchange.ended_at or self._gateway.now()
        if self.memory.account.held:
            self._settle_memory()

    def _reject(self, error: MessageError, head: bytes) -> None:
        """Answer a malformed head; nothing that follows it can be trusted."""
        self.requests += 1
        stream = self.stream
        stream.stream_id += 1
        stream.persistent = False
        fields = describe_head(head)
        response, body = error_response(error.status_hint, fields[0][1])
        # RFC 9110 section 6.6.1: an origin server with a clock MUST generate Date in 4xx responses.
        response.fields.append((b"date", self._gateway.date()))
        self._gateway.rejected(self.client, stream.stream_id, fields, error, len(body))
        text = encode_response(response.status, response.fields, b"connection: close\r\n")
        stream.pending.append(text + body)
        self.finish()

    # --- held requests ----------------------------------------------------------------------------

    def _may_run(self, request: Request) -> bool:
        return not self.memory.is_short

    def _start_held(self, stream: RequestStream, request: Request) -> None:
        self._gateway.handle(request, stream, self.client)
        self._release()

    def _refuse_held(self, stream: RequestStream, request: Request) -> None:
        self._gateway.refuse_late(request, stream, self.client)
        self._release()

    def _release(self) -> None:
        """Deliver the content of a request that was held."""
        self._reader.release()
        self._check_backlog()
        if self._eof:
            self._check_eof()

    # --- backpressure and memory ------------------------------------------------------------------

    def _check_backlog(self) -> None:
        """Read on if what was sent ahead has found its way."""
        if self._backlogged and self._reader.buffered <= H1_PIPELINED:
            self._backlogged = False
            self._control_reading()

    def _control_reading(self) -> None:
        """Pause or resume reading from the client."""
        level = H1_UNTAKEN_LOW if self._reading_paused else H1_UNTAKEN_HIGH
        wanted = self._backlogged or self._untaken > level
        if wanted is not self._reading_paused and not self._transport.is_closing():
            self._reading_paused = wanted
            if wanted:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _settle_memory(self) -> None:
        """Account for what the transport buffers, and buffer less while memory is short."""
        if self._closed:
            return
        size = self._transport.get_write_buffer_size()
        self.memory.settle(size, 1 if self.stream.exchange is not None else 0)
        short = size > SEND_BUFFER_FLOOR and self.memory.is_short
        if short is not self._short:
            self._short = short
            if short:
                self._transport.set_write_buffer_limits(SEND_BUFFER_FLOOR, 0)
            else:
                self._transport.set_write_buffer_limits(SEND_BUFFER_HIGH, SEND_BUFFER_LOW)
