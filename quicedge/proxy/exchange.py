"""An exchange: one request and its response on their way through the edge.

An exchange has two half-streams. The request flows from the client (`Downstream`) to the origin
(`OriginStream`), the response back. Both ends push and neither waits. Backpressure crosses the
exchange: an origin that does not read stops the client's flow-control credit, a client that does
not read stops reads from the origin's socket. There is no task and no queue behind an exchange.

The origin is released when its response is complete, the exchange ends when the client has
acknowledged the last byte: a slow client occupies the exchange, not the origin's connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from quicedge.config.limits import REQUEST_END_WAIT
from quicedge.config.schema import Route
from quicedge.http import semantics
from quicedge.http.forwarding import Reserved
from quicedge.http.message import Field, HttpVersion, Request, Response
from quicedge.proxy.client import ClientInfo
from quicedge.proxy.error_response import error_response
from quicedge.proxy.trace_context import SpanContext, TraceContext
from quicedge.proxy.tunnel import Tunnel
from quicedge.shares import Client
from quicedge.telemetry.outcomes import Outcome
from quicedge.upstream.base import OriginStream, ResponseHandler, UpstreamError


class HeadTooLarge(Exception):
    """A response head exceeds the client's limit, or what its protocol can encode."""


class Filters(Protocol):
    """The filters that heads pass through (`filters.FilterChain`)."""

    reserved: Reserved

    def on_request(self, request: Request, exchange: Exchange) -> Request: ...

    def on_response(self, response: Response, exchange: Exchange) -> Response: ...

    def on_done(self, exchange: Exchange) -> None: ...


class Downstream(Protocol):
    """The client's side of an exchange: a request stream of a session.

    Called in this order: `accepted`; `informational` any number of times; `response`, `write`,
    `end`; `done`. A `response` with `end` set replaces `end`; `reset` may come at any time after
    `accepted` and ends the response.

    In a tunnel (`Exchange.is_tunnel`) the response has status 101 for HTTP/1.1 and 200 otherwise,
    and `end` ends our half only: the client's goes on until it ends, or `stop_request`.
    """

    stream_id: int

    def accepted(self, exchange: Exchange) -> None:
        """The request was accepted; called first."""

    def done(self, exchange: Exchange) -> None:
        """The exchange has ended; called last."""

    def informational(self, response: Response) -> None:
        """Send an interim response."""

    def response(self, response: Response, end: bool) -> None:
        """Send the final response head; if it raises HeadTooLarge, nothing was sent."""

    def write(self, data: bytes) -> None:
        """Send response body bytes."""

    def end(self, trailers: Sequence[Field]) -> None:
        """Complete the response."""

    def reset(self, internal: bool) -> None:
        """Abort the response, so that the client does not take it for complete."""

    def consumed(self, nbytes: int) -> None:
        """Request body bytes have left the edge: return their flow-control credit."""

    def stop_request(self) -> None:
        """Ask the client to stop sending the rest of the request."""

    @property
    def undelivered(self) -> int:
        """Bytes of the response that the client has not acknowledged."""


class Origin(Protocol):
    """A group of servers that requests can be sent to (`upstream.group.Upstream`)."""

    def open(
        self,
        request: Request,
        handler: ResponseHandler,
        client: Client | None,
        peer: ClientInfo | None,
    ) -> OriginStream: ...


class Exchange:
    """One request and its response. Times are seconds of `clock`; body counts are bytes.

    Call `start`, `start_tunnel`, `answer` or `refuse` first, once. From the client: `request_data`
    any number of times, then `request_end`, `request_aborted` or `request_malformed`;
    `response_stopped` and `connection_lost` at any time; `delivered` when the complete response is
    acknowledged. From the origin: the methods of `upstream.base.ResponseHandler`. Calls after the
    end are ignored.

    `on_done` is called exactly once: when the request is over and the response is delivered, or
    never will be. `outcome` is final then.
    """

    __slots__ = (
        "_clock", "_downstream", "_in_delivery", "_on_done", "_origin",
        "_paused_request", "_request_over", "_response_over", "_uncredited", "_waiting_for_end",
        "bytes_delivered", "bytes_received", "bytes_sent", "client", "early_data", "ended_at",
        "filters", "first_byte_at", "outcome", "reason", "request", "response_at",
        "response_started", "route", "stalled", "started_at", "status", "trace", "tunnel",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        downstream: Downstream,
        route: Route | None,
        client: ClientInfo,
        filters: Filters,
        *,
        clock: Callable[[], float],
        on_done: Callable[[Exchange], None],
    ) -> None:
        self.request = request
        self.route = route
        self.client = client
        self.early_data = client.early_data
        """Whether the request arrived in 0-RTT data, before the handshake was complete."""
        self.trace: TraceContext | SpanContext | None = None
        """Its context in a distributed trace, if traces are continued or recorded."""
        self.started_at = clock()
        self.first_byte_at: float | None = None
        self.response_at: float | None = None
        """When the origin's response was complete; None if it never was."""
        self.ended_at: float | None = None
        """When the client acknowledged the last byte, or the exchange ended in another way."""
        self.status = 0
        self.outcome: Outcome | None = None
        """None while the response is running; final when the exchange has ended."""
        self.reason = ""
        """Detail of the outcome, for logs."""
        self.bytes_received = 0
        self.bytes_sent = 0
        """Response body bytes written to the client's stream."""
        self.bytes_delivered = 0
        """Response body bytes that the client acknowledged; set when the exchange ends.

        For a truncated response it is too low by the framing of the missing part.
        """
        self.response_started = False
        self.tunnel: Tunnel | None = None
        """The tunnel that is requested, or open."""
        self.stalled = False
        self._clock = clock
        self.filters = filters
        self._downstream = downstream
        self._on_done = on_done
        self._origin: OriginStream | None = None
        self._waiting_for_end: Origin | None = None
        """Where to forward the request once its end, or a byte of content, has arrived."""
        self._request_over = request.ended
        self._response_over = False
        self._in_delivery = False
        self._paused_request = False
        self._uncredited = 0

    @property
    def stream_id(self) -> int:
        """The ID of the client's stream."""
        return self._downstream.stream_id

    @property
    def downstream(self) -> Downstream:
        """The client's side."""
        return self._downstream

    @property
    def origin(self) -> OriginStream | None:
        """The origin's side, once opened; kept for its timings."""
        return self._origin

    @property
    def request_over(self) -> bool:
        """No more of the request is expected."""
        return self._request_over

    @property
    def response_over(self) -> bool:
        """No more of the response will be written; it may still be in delivery."""
        return self._response_over

    @property
    def request_paused(self) -> bool:
        """The request is paused because the origin does not keep up."""
        return self._paused_request

    @property
    def is_tunnel(self) -> bool:
        """Whether it has become a tunnel: deadlines on progress do not apply."""
        return self.tunnel is not None and self.tunnel.is_open

    @property
    def speaks_http1(self) -> bool:
        """Whether the client speaks HTTP/1.1."""
        return self.client.http_version == b"1.1"

    @property
    def may_pause(self) -> bool:
        """Whether the request is a stream of messages, whose sender may pause between them."""
        media_type = semantics.media_type(self.request.fields)
        if media_type == b"application/grpc":
            # HTTP/1.1 cannot carry gRPC: there the media type is only a claim.
            return self._origin is None or self._origin.http_version is not HttpVersion.HTTP_1_1
        return media_type in semantics.MESSAGE_STREAMS

    @property
    def _max_body(self) -> int | None:
        return self.route.max_body if self.route is not None else None

    def start(self, origin: Origin) -> None:
        """Forward the request to `origin`."""
        limit = self._max_body
        declared = self.request.content_length
        if limit is not None and declared is not None and declared > limit:
            self.refuse(413, Outcome.REQUEST_TOO_LARGE)
            return
        if self._may_lack_content():
            self._waiting_for_end = origin
        else:
            self._open(origin)

    def start_tunnel(self, origin: Origin, tunnel: Tunnel) -> None:
        """Forward a request for a tunnel to `origin`."""
        self.tunnel = tunnel
        self._open(origin)

    def _may_lack_content(self) -> bool:
        """Whether to hold the head until it is known if content follows.

        Some clients send the end of their stream in a separate packet. Forwarding the head without
        it would announce a chunked body to an HTTP/1.1 origin, and strict origins reject that for
        GET (411, 501).
        """
        request = self.request
        return (
            not request.ended
            and request.content_length is None
            and semantics.carries_no_content(request.method)
            # A client that waits for 100 (Continue) sends nothing before it.
            and not any(name == b"expect" for name, _ in request.fields)
        )

    def _open(self, origin: Origin) -> None:
        self._waiting_for_end = None
        request = self.filters.on_request(self.request, self)
        handler: ResponseHandler = self if self.tunnel is None else self.tunnel
        self._origin = origin.open(request, handler, self.client.share, self.client)

    def check_held_head(self, now: float) -> None:
        """Forward a head that was held for `REQUEST_END_WAIT`; call it about once per second."""
        if self._waiting_for_end is not None and now - self.started_at >= REQUEST_END_WAIT:
            self._open(self._waiting_for_end)

    # --- from the client --------------------------------------------------------------------

    def request_data(self, data: bytes) -> None:
        """Receive request body bytes that are not credited to the client yet."""
        size = len(data)
        self.bytes_received += size
        limit = self._max_body
        if self._waiting_for_end is not None and data:
            self._open(self._waiting_for_end)
        if self._response_over or self._origin is None or self._request_over:
            self._downstream.consumed(size)
            return
        if self.tunnel is not None:
            self.tunnel.client_sent(data)
        elif limit is not None and self.bytes_received > limit:
            self._downstream.consumed(size)
            self.refuse(413, Outcome.REQUEST_TOO_LARGE)
            return
        if self._paused_request:
            self._uncredited += size
        self._origin.write(data)
        if not self._paused_request:
            self._downstream.consumed(size)

    def request_end(self, trailers: Sequence[Field] = ()) -> None:
        """The request is complete."""
        if self._request_over:
            return
        self._request_over = True
        if self._waiting_for_end is not None:
            self.request.ended = not trailers
            self._open(self._waiting_for_end)
        if self._origin is not None and not self._response_over and not self.request.ended:
            self._origin.end(self.filters.reserved.pass_trailers(trailers))
        if self.tunnel is not None:
            self.tunnel.client_ended()
        self._maybe_done()

    def request_aborted(self) -> None:
        """The client reset its request.

        RFC 9114 section 4.1.1: clients cancel requests by resetting the stream; an HTTP/1.1 origin
        is told by closing its connection.
        """
        self._end_request_early(Outcome.CLIENT_ABORTED)

    def request_malformed(self, reason: str) -> None:
        """The request turned out to be malformed after its head."""
        self._end_request_early(Outcome.MALFORMED, reason)

    def _end_request_early(self, outcome: Outcome, reason: str = "") -> None:
        self._request_over = True
        if self._response_over:
            self._maybe_done()
            return
        outcome, self.reason = self._judge(outcome, reason)
        self._abort_origin()
        self._downstream.reset(internal=False)
        self._finish(outcome)

    def response_stopped(self) -> None:
        """The client stopped reading the response (STOP_SENDING)."""
        self._break_off(Outcome.CLIENT_ABORTED)

    def connection_lost(self, outcome: Outcome, reason: str = "") -> None:
        """The client's connection has ended. `reason`: why we closed it."""
        self._break_off(outcome, reason)

    def delivered(self) -> None:
        """The client has acknowledged the last byte of the response."""
        self._in_delivery = False
        self._maybe_done(undelivered=0)

    def pause_response(self) -> None:
        """Stop reading from the origin: the client does not keep up."""
        if self._origin is not None and not self._response_over:
            self._origin.pause()

    def resume_response(self) -> None:
        if self._origin is not None and not self._response_over:
            self._origin.resume()

    # --- from the origin (upstream.base.ResponseHandler) --------------------------------------

    def informational(self, response: Response) -> None:
        if not self._response_over:
            self._downstream.informational(semantics.interim_to_client(response))

    def response(self, response: Response) -> None:
        if self._response_over:
            return
        self.first_byte_at = self._clock()
        if self.client.first_byte_at is None:
            self.client.first_byte_at = self.first_byte_at
        try:
            self._downstream.response(self.filters.on_response(response, self), end=False)
        except HeadTooLarge:
            self.refuse(502, Outcome.RESPONSE_TOO_LARGE)
            return
        self.status = response.status
        self.response_started = True

    def data(self, data: bytes) -> None:
        if not self._response_over:
            self.bytes_sent += len(data)
            self._downstream.write(data)

    def end(self, trailers: Sequence[Field]) -> None:
        if self._response_over:
            return
        self._downstream.end(semantics.response_trailers(trailers))
        if not self._request_over:
            # RFC 9114 section 4.1: after a complete response the server may ask the client to stop
            # sending with H3_NO_ERROR; clients MUST NOT discard the response.
            self._downstream.stop_request()
            self._request_over = True
        self._credit()
        self.response_at = self._clock()
        self._finish(Outcome.COMPLETE, in_delivery=True)

    def failed(self, error: UpstreamError) -> None:
        if self._response_over:
            return
        outcome = Outcome.of_origin(error.kind)
        if self.response_started:
            self.reason = error.detail
            # RFC 8441 section 5 and RFC 9220 section 3: a lost connection behind a tunnel is told
            # as a cancelled stream.
            self._downstream.reset(internal=self.tunnel is None)
            self._stop_request()
            self._finish(outcome)
        else:
            self.refuse(error.kind.status, outcome, reason=error.detail)

    # --- of a tunnel (tunnel.Tunnel) ------------------------------------------------------------

    def open_tunnel(self, response: Response) -> None:
        """The origin has opened the tunnel: tell the client."""
        if self._response_over:
            return
        self.first_byte_at = self._clock()
        if self.client.first_byte_at is None:
            self.client.first_byte_at = self.first_byte_at
        response.status = 101 if self.speaks_http1 else 200
        try:
            self._downstream.response(self.filters.on_response(response, self), end=False)
        except HeadTooLarge:
            self.refuse(502, Outcome.RESPONSE_TOO_LARGE)
            return
        self.status = response.status
        self.response_started = True

    def end_response_half(self) -> None:
        """The origin has ended its half; the client's goes on."""
        if self._response_over or self.response_at is not None:
            return
        self.response_at = self._clock()
        self._in_delivery = True
        self._downstream.end(())

    def end_tunnel(self, outcome: Outcome) -> None:
        """End both halves, whatever is left of them."""
        if self._response_over:
            return
        self.end_response_half()
        if self._origin is not None:
            self._origin.abort()
        self._stop_request()
        self._finish(outcome, in_delivery=self._in_delivery)

    def pause_request(self) -> None:
        self._paused_request = True

    def resume_request(self) -> None:
        self._paused_request = False
        self._credit()

    def set_stalled(self, stalled: bool) -> None:
        """Mark the client as making no progress, so that waiting requests may take over the
        origin resources of this one."""
        self.stalled = stalled
        if self._origin is not None:
            self._origin.stalled = stalled

    def response_timed_out(self) -> None:
        """The client did not read the response for too long; its stream is already reset."""
        self._stop_request()
        self._break_off(Outcome.RESPONSE_TIMEOUT)

    # --- ends ---------------------------------------------------------------------------------

    def refuse(
        self, status: int, outcome: Outcome, *, reason: str = "", retry_after: int | None = None
    ) -> None:
        """Answer with an error from the edge, or abort the response if it has begun.

        `reason` is for logs only. `retry_after`: seconds until the client should try again.
        """
        if self._response_over:
            return
        self.reason = reason
        self._abort_origin()
        answered = False
        if self.response_started:
            self._downstream.reset(internal=True)
        else:
            head, body = error_response(status, self.request.method)
            if retry_after is not None:
                head.fields.append((b"retry-after", b"%d" % retry_after))
            self.status = status
            self.response_started = True
            answered = self._respond(head, body)
        self._stop_request()
        self._finish(outcome, in_delivery=answered)

    def _break_off(self, outcome: Outcome, reason: str = "") -> None:
        """Abort the response."""
        self._request_over = True
        if not self._response_over:
            outcome, self.reason = self._judge(outcome, reason)
            self._abort_origin()
            self._finish(outcome)
            return
        # The reason for a refusal is more useful than the fact that nobody read it.
        if self._in_delivery and self.outcome is Outcome.COMPLETE:
            self.outcome, self.reason = outcome, reason
        self._in_delivery = False
        self._maybe_done()

    def _judge(self, outcome: Outcome, reason: str) -> tuple[Outcome, str]:
        """What became of an exchange that the client has left: of a tunnel whose peers had no more
        to say to each other, nothing is missing."""
        if self.tunnel is not None and self.tunnel.is_open and self.tunnel.is_settled:
            return Outcome.COMPLETE, ""
        return outcome, reason

    def answer(self, response: Response) -> None:
        """Answer with a response from the edge, without content."""
        if self._response_over:
            return
        self.status = response.status
        self.response_started = True
        answered = self._respond(response)
        self._stop_request()
        self._finish(Outcome.COMPLETE, in_delivery=answered)

    def _respond(self, response: Response, body: bytes = b"") -> bool:
        """Send a response from the edge; False if it exceeds the client's limits."""
        try:
            self._downstream.response(self.filters.on_response(response, self), end=not body)
        except HeadTooLarge:
            self._downstream.reset(internal=True)
            return False
        if body:
            self.bytes_sent += len(body)
            self._downstream.write(body)
            self._downstream.end(())
        return True

    def _stop_request(self) -> None:
        if not self._request_over:
            self._downstream.stop_request()
            self._request_over = True

    def _abort_origin(self) -> None:
        self._waiting_for_end = None
        if self._origin is not None and not self._response_over:
            self._origin.abort()

    def _credit(self) -> None:
        if self._uncredited:
            nbytes, self._uncredited = self._uncredited, 0
            self._downstream.consumed(nbytes)

    def _finish(self, outcome: Outcome, *, in_delivery: bool = False) -> None:
        """The response half ends; with `in_delivery` as soon as `delivered` is called."""
        self._response_over = True
        self._in_delivery = in_delivery
        self.outcome = outcome
        self._credit()
        self._maybe_done()

    def _maybe_done(self, undelivered: int | None = None) -> None:
        over = self._response_over and self._request_over and not self._in_delivery
        if over and self.ended_at is None:
            self.ended_at = self._clock()
            if undelivered is None:
                undelivered = self._downstream.undelivered
            self.bytes_delivered = max(self.bytes_sent - undelivered, 0)
            self._on_done(self)
