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
from quicedge.http.message import Field, Fields, HttpVersion, Request, Response
from quicedge.proxy.body import BodyPath, BodyStage, Sink, Source
from quicedge.proxy.choice import Choice
from quicedge.proxy.client import ClientInfo
from quicedge.proxy.error_response import error_response
from quicedge.proxy.reply import Reply
from quicedge.proxy.spill import Spill
from quicedge.proxy.trace_context import SpanContext, TraceContext
from quicedge.proxy.tunnel import Tunnel
from quicedge.shares import Client
from quicedge.telemetry.outcomes import Outcome
from quicedge.upstream.base import OriginStream, ResponseHandler, UpstreamError, in_pieces


class HeadTooLarge(Exception):
    """A response head exceeds the client's limit, or what its protocol can encode."""


class Body(Sink, Source, Protocol):
    """What a body passes (`body.BodyPath`)."""


class FilterRun(Protocol):
    """The way of one exchange through the filters of its route (`filters.run.FilterRun`)."""

    holds_request: bool
    """The request has not been forwarded yet: what arrives of its body is held."""

    @property
    def keeps_client_waiting(self) -> bool:
        """Whether what is held of the request is not credited to the client."""

    is_broken: bool
    """A filter has failed: responses pass none of them any more."""

    def transform_request(self, stage: BodyStage) -> None: ...

    def transform_response(self, stage: BodyStage) -> None: ...

    async def collect_request(self, spill: Spill, max_size: int) -> None: ...

    def begin(self, origin: Origin | None, request: Request) -> None:
        """Pass a request through the filters, then forward it, or reply."""

    def hold(self, data: bytes) -> None:
        """A part of the body of a held request."""

    def hold_end(self, trailers: Sequence[Field]) -> None:
        """A held request is complete."""

    def request_path(self) -> BodyPath | None:
        """The stages that the body of the request passes."""

    def respond(self, response: Response) -> None:
        """Pass the head of the origin's response through the filters."""

    def reply(self, reply: Reply) -> None:
        """Pass a response that is not the origin's through the filters."""

    def guard(self, call: Callable[..., None], *arguments: object) -> None:
        """Call a body stage; if it fails, end the exchange."""

    def close(self) -> None:
        """The exchange is over: cancel what runs and release what is held."""


class Filters(Protocol):
    """The filters that heads pass through (`filters.FilterChain`)."""

    reserved: Reserved
    has_route_filters: bool

    def new_run(self, exchange: Exchange) -> FilterRun: ...

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

    def whole(self, response: Response, data: bytes) -> None:
        """`response`, `write` and `end` in one; raises HeadTooLarge like the first."""

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
    any number of times, then `request_end`, `request_aborted`, `give_up_request` or
    `request_malformed`; `response_stopped` and `connection_lost` at any time; `delivered` when the
    complete response is acknowledged. From the origin: the methods of
    `upstream.base.ResponseHandler`. Calls after the end are ignored.

    `on_done` is called exactly once: when the request is over and the response is delivered, or
    never will be. `outcome` is final then.
    """

    __slots__ = (
        "_clock", "_filtered", "_head", "_in_delivery", "_intended", "_on_done", "_origin_ended",
        "_paused_request", "_replying", "_request_body", "_request_over", "_response_body",
        "_response_over", "_uncredited", "_waiting_for_end", "bytes_delivered", "bytes_received",
        "bytes_sent", "choice", "client", "downstream", "early_data", "ended_at", "filters",
        "first_byte_at", "origin", "outcome", "reason", "request", "response_at",
        "response_started", "route", "run", "stalled", "started_at", "status", "trace", "tunnel",
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
        self.choice: Choice | None = None
        """Which of the upstreams of its route it goes to; None: there is one at most, or none has
        been chosen."""
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
        self._head: Response | None = None
        """Of a response whose content comes from the origin."""
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
        self.downstream = downstream
        """The client's side."""
        self._on_done = on_done
        self.origin: OriginStream | None = None
        """The origin's side, once opened; kept for its timings."""
        self._waiting_for_end: Origin | None = None
        """Where to forward the request once its end, or a byte of content, has arrived."""
        self._request_over = request.ended
        self._response_over = False
        self._in_delivery = False
        self._paused_request = False
        self._uncredited = 0
        self.run: FilterRun | None = None
        """Its way through the filters of its route; None: there are none, or not yet."""
        self._filtered: Request | None = None
        """The request as the filters of its route have made it."""
        self._request_body: BodyPath | None = None
        """The stages that the body of the request passes; None: it goes straight to the origin."""
        self._response_body: Body | None = None
        self._replying = False
        """A response that is not the origin's is on its way through filters that take time."""
        self._intended = Outcome.COMPLETE
        """The outcome once the response is delivered."""
        self._origin_ended = False
        """The origin's response is complete, but stages may hold some of it."""

    @property
    def stream_id(self) -> int:
        """The ID of the client's stream."""
        return self.downstream.stream_id

    @property
    def asked(self) -> Request:
        """The request as the filters of its route have made it for the origin."""
        return self.request if self._filtered is None else self._filtered

    @property
    def upstream(self) -> str | None:
        """The name of the upstream that it goes to."""
        if self.choice is not None:
            return self.choice.upstream
        return self.route.upstream if self.route is not None else None

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
        """The request is paused because the origin, or a filter, does not keep up."""
        return self._paused_request or (self.run is not None and self.run.keeps_client_waiting)

    @property
    def is_tunnel(self) -> bool:
        """Whether it has become a tunnel: deadlines on progress do not apply."""
        return self.tunnel is not None and self.tunnel.is_open

    @property
    def is_long_lived(self) -> bool:
        """Whether it has no end in sight: a tunnel, a long poll, or a stream of events."""
        if self.is_tunnel or (self._request_over and not self.response_started):
            return True
        head = self._head
        return head is not None and any(
            name == b"content-type" and value.startswith(b"text/event-stream")
            for name, value in head.fields
        )

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
            return self.origin is None or self.origin.http_version is not HttpVersion.HTTP_1_1
        return media_type in semantics.MESSAGE_STREAMS

    @property
    def _max_body(self) -> int | None:
        return self.route.max_body if self.route is not None else None

    def start(self, origin: Origin | None) -> None:
        """Forward the request to `origin`; None: only a filter of its route can answer it."""
        declared = self.request.content_length
        if declared is not None and (limit := self._max_body) is not None and declared > limit:
            self.refuse(413, Outcome.REQUEST_TOO_LARGE)
        elif self.filters.has_route_filters:
            self._filter(origin)
        elif origin is None:
            self.refuse(404, Outcome.NO_ROUTE)
        elif not self.request.ended and self._may_lack_content():
            self._waiting_for_end = origin
        else:
            self._open(origin)

    def start_tunnel(self, origin: Origin | None, tunnel: Tunnel) -> None:
        """Forward a request for a tunnel to `origin`."""
        self.tunnel = tunnel
        if self.filters.has_route_filters:
            self._filter(origin)
        elif origin is None:
            self.refuse(404, Outcome.NO_ROUTE)
        else:
            self._open(origin)

    def _filter(self, origin: Origin | None) -> None:
        """Pass the request through the filters of its route."""
        self.run = self.filters.new_run(self)
        self.run.begin(origin, self.filters.on_request(self.request, self))

    def forward(
        self,
        origin: Origin | None,
        request: Request,
        held: Sequence[bytes],
        end: Fields | None,
        *,
        is_collected: bool = False,
    ) -> None:
        """Forward a request that has passed the filters of its route (`FilterRun`).

        `held`: what has arrived of its body meanwhile; `end`: its trailers if it is complete;
        `is_collected`: the body is in the first of its stages.
        """
        if self._response_over or self._replying:
            return
        self._filtered = request
        if request.path != self.request.path:
            request.original_path = self.request.path
        if origin is None:
            self.refuse(404, Outcome.NO_ROUTE, reason="no filter of the route has answered")
            return
        if self.tunnel is None:  # the halves of a tunnel end each on its own
            if end is not None:
                self.request.ended = not held and not end and not is_collected
            elif not held and not self.request.ended and self._may_lack_content():
                self._waiting_for_end = origin
                return
        self._open(origin)
        for data in held:
            self._pass_on(data)
        if end is not None and not self._response_over:
            self._end_request(end)

    def _may_lack_content(self) -> bool:
        """Whether to hold the head of an incomplete request until it is known if content follows.

        Some clients send the end of their stream in a separate packet. Forwarding the head without
        it would announce a chunked body to an HTTP/1.1 origin, and strict origins reject that for
        GET (411, 501).
        """
        request = self.request
        return (
            request.content_length is None
            and semantics.carries_no_content(request.method)
            # A client that waits for 100 (Continue) sends nothing before it.
            and not any(name == b"expect" for name, _ in request.fields)
        )

    def _open(self, origin: Origin) -> None:
        self._waiting_for_end = None
        request = self._filtered
        if request is None:
            request = self.filters.on_request(self.request, self)
        else:
            request.ended = self.request.ended
        handler: ResponseHandler = self if self.tunnel is None else self.tunnel
        self.origin = origin.open(request, handler, self.client.share, self.client)
        if self.run is not None and self.tunnel is None:
            self._request_body = self.run.request_path()

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
        if self._response_over or self._request_over or self._replying:
            self.downstream.consumed(size)
        elif limit is not None and self.bytes_received > limit and self.tunnel is None:
            self.downstream.consumed(size)
            self.refuse(413, Outcome.REQUEST_TOO_LARGE)
        elif self.origin is not None:
            self._pass_on(data)
        elif self.run is not None and self.run.holds_request:
            self.run.hold(data)
        else:
            self.downstream.consumed(size)

    def _pass_on(self, data: bytes) -> None:
        """Send a part of the request's body to the origin."""
        size = len(data)
        if self._response_over or self.origin is None:
            self.downstream.consumed(size)
            return
        if self.tunnel is not None:
            self.tunnel.client_sent(data)
        # Whoever takes the bytes may pause or resume the request meanwhile.
        self._uncredited += size
        if self._request_body is None:
            self.origin.write(data)
        else:
            assert self.run is not None
            self.run.guard(self._request_body.write, data)
        if not self._paused_request:
            self._credit()

    def request_end(self, trailers: Sequence[Field] = ()) -> None:
        """The request is complete."""
        if self._request_over:
            return
        self._request_over = True
        if self._waiting_for_end is not None:
            self.request.ended = not trailers
            self._open(self._waiting_for_end)
        if self.run is not None and self.run.holds_request:
            self.run.hold_end(trailers)
        elif not self._response_over:
            self._end_request(trailers)
        self._maybe_done()

    def _end_request(self, trailers: Sequence[Field]) -> None:
        """Tell the origin that the request is complete."""
        if self.origin is not None and not self.request.ended:
            passed = self.filters.reserved.pass_trailers(trailers)
            if self._request_body is None:
                self.origin.end(passed)
            else:
                assert self.run is not None
                self.run.guard(self._request_body.end, passed)
        if self.tunnel is not None:
            self.tunnel.client_ended()

    def request_aborted(self) -> None:
        """The client reset its request, or ended its connection's half within it.

        RFC 9114 section 4.1.1: clients cancel requests by resetting the stream; an HTTP/1.1 origin
        is told by closing its connection.
        """
        if not self.give_up_request():
            self._end_request_early(Outcome.CLIENT_ABORTED)

    def give_up_request(self) -> bool:
        """The client sends no more of a request that is not complete; whether it gets the response
        nevertheless, as it does once that has begun.

        Many clients end an upload when they see that it is refused, and read on; who wants no
        response stops that too. To the origin the request stays incomplete.
        """
        if self.tunnel is not None or not self.response_started:
            return False
        self._request_over = True
        self._maybe_done()
        return True

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
        self.downstream.reset(internal=False)
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
        if self._response_over:
            return
        if self._response_body is not None:
            self._response_body.pause()
        elif self.origin is not None:
            self.origin.pause()

    def resume_response(self) -> None:
        if self._response_over:
            return
        if self._response_body is not None:
            assert self.run is not None
            self.run.guard(self._response_body.resume)
        elif self.origin is not None:
            self.origin.resume()

    # --- from the origin (upstream.base.ResponseHandler) --------------------------------------

    def informational(self, response: Response) -> None:
        if not self._response_over:
            self.downstream.informational(semantics.interim_to_client(response))

    def response(self, response: Response) -> None:
        if self._response_over:
            return
        head = self._filter_head(response)
        if self.run is None or self.run.is_broken:
            self.send_head(head)
        else:
            self.run.respond(head)

    def whole(self, response: Response, data: bytes) -> None:
        if self.run is not None:
            in_pieces(self, response, data)
            return
        if self._response_over:
            return
        head = self._filter_head(response)
        self.response_at = self.first_byte_at
        try:
            self.downstream.whole(head, data)
        except HeadTooLarge:
            self.refuse(502, Outcome.RESPONSE_TOO_LARGE)
            return
        self.status = head.status
        self.response_started = True
        self._head = head
        self.bytes_sent += len(data)
        self._end_delivery()

    def _filter_head(self, response: Response) -> Response:
        """The head of the origin's response on its way through the filters."""
        self.first_byte_at = self._clock()
        if self.client.first_byte_at is None:
            self.client.first_byte_at = self.first_byte_at
        return self.filters.on_response(response, self)

    def send_head(self, response: Response) -> None:
        """Send the head of the origin's response."""
        try:
            self.downstream.response(response, end=False)
        except HeadTooLarge:
            self.refuse(502, Outcome.RESPONSE_TOO_LARGE)
            return
        self.status = response.status
        self.response_started = True
        self._head = response

    def replace_response(self, *, may_run_out: bool) -> None:
        """A filter replies in place of the origin's response, whose rest is ignored.

        `may_run_out`: read it, so that its connection can be used again.
        """
        self._replying = True
        self._response_body = None
        if self.origin is not None and not self._origin_ended:
            if may_run_out and self._request_over:
                self.origin.resume()
            else:
                self.origin.abort()

    def route_response_through(self, body: Body | None) -> None:
        """Let what follows of the response's body pass `body` (`FilterRun`)."""
        self._response_body = body

    def data(self, data: bytes) -> None:
        if self._response_over or self._replying:
            return
        if self._response_body is None:
            self.bytes_sent += len(data)
            self.downstream.write(data)
        else:
            assert self.run is not None
            self.run.guard(self._response_body.write, data)

    def end(self, trailers: Sequence[Field]) -> None:
        if self._response_over or self._replying:
            return
        self.response_at = self._clock()
        if self._response_body is None:
            self.deliver_end(trailers)
        else:
            assert self.run is not None
            self._origin_ended = True
            self.run.guard(self._response_body.end, trailers)

    def deliver(self, data: bytes) -> None:
        """Send the client what the last body stage has made of the response."""
        if data and not self._response_over:
            self.bytes_sent += len(data)
            self.downstream.write(data)

    def deliver_end(self, trailers: Sequence[Field]) -> None:
        """Complete the response."""
        if self._response_over:
            return
        self.downstream.end(semantics.response_trailers(trailers))
        self._end_delivery()

    def _end_delivery(self) -> None:
        """The client has been written the last byte of the response."""
        if not self._request_over:
            # RFC 9114 section 4.1: after a complete response the server may ask the client to stop
            # sending with H3_NO_ERROR; clients MUST NOT discard the response.
            self.downstream.stop_request()
            self._request_over = True
        self._finish(self._intended, in_delivery=True)

    def failed(self, error: UpstreamError) -> None:
        if self._response_over or self._replying:
            return
        outcome = Outcome.of_origin(error.kind)
        if self.response_started:
            self.reason = error.detail
            # RFC 8441 section 5 and RFC 9220 section 3: a lost connection behind a tunnel is told
            # as a cancelled stream.
            self.downstream.reset(internal=self.tunnel is None)
            self._stop_request()
            self._finish(outcome)
        else:
            self.refuse(
                error.kind.status, outcome, reason=error.detail, retry_after=error.retry_after
            )

    # --- for the filters of its route -----------------------------------------------------------

    def transform_request(self, stage: BodyStage) -> None:
        """Let the body of the request pass a stage, after those added so far."""
        assert self.run is not None
        self.run.transform_request(stage)

    def transform_response(self, stage: BodyStage) -> None:
        """Let the body of the response pass a stage, after those added so far.

        A response without a body passes none.
        """
        assert self.run is not None
        self.run.transform_response(stage)

    async def collect_request(self, spill: Spill, max_size: int) -> None:
        """Wait until the whole body of the request is in `spill`, from which it is forwarded then.

        A body of more than `max_size` bytes is refused.
        """
        assert self.run is not None
        await self.run.collect_request(spill, max_size)

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
            self.downstream.response(self.filters.on_response(response, self), end=False)
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
        self.downstream.end(())

    def end_tunnel(self, outcome: Outcome) -> None:
        """End both halves, whatever is left of them."""
        if self._response_over:
            return
        self.end_response_half()
        if self.origin is not None:
            self.origin.abort()
        self._stop_request()
        self._finish(outcome, in_delivery=self._in_delivery)

    def pause_request(self) -> None:
        if self._request_body is None:
            self.pause_client()
        else:
            self._request_body.pause()

    def resume_request(self) -> None:
        if self._request_body is None or self._response_over:
            self.resume_client()
        else:
            assert self.run is not None
            self.run.guard(self._request_body.resume)

    def pause_client(self) -> None:
        """Give the client no credit for what it sends from now on."""
        self._paused_request = True

    def resume_client(self) -> None:
        """The client gets its credit again."""
        self._paused_request = False
        self._credit()

    def set_stalled(self, stalled: bool) -> None:
        """Mark the client as making no progress, so that waiting requests may take over the
        origin resources of this one."""
        self.stalled = stalled
        if self.origin is not None:
            self.origin.stalled = stalled

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
        if self.response_started:
            self.downstream.reset(internal=True)
            self._stop_request()
            self._finish(outcome)
            return
        head, body = error_response(status, self.request.method)
        if retry_after is not None:
            head.fields.append((b"retry-after", b"%d" % retry_after))
        self._reply(head, body, outcome)

    def reply(self, reply: Reply) -> None:
        """Answer with the reply of a filter."""
        if self._response_over:
            return
        self.reason = reply.reason
        self._abort_origin()
        self._reply(reply.response, reply.body, reply.outcome)

    def filter_failed(self, reason: str) -> None:
        """A filter of the route has failed, with its name and error in `reason`."""
        self.refuse(500, Outcome.FILTER_FAILED, reason=reason)

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
        if not self._response_over:
            self._reply(response, b"", Outcome.COMPLETE)

    def _reply(self, response: Response, body: bytes, outcome: Outcome) -> None:
        """Send a response from the edge, through the filters of the route."""
        head = self.filters.on_response(response, self)
        if self.run is None and self.filters.has_route_filters:
            self.run = self.filters.new_run(self)
        if self.run is None or self.run.is_broken or self._replying:
            self.send_reply(Reply(head, body, outcome))
        else:
            self._replying = True
            self.run.reply(Reply(head, body, outcome))

    def send_reply(self, reply: Reply, path: BodyPath | None = None) -> None:
        """Send a response that is not the origin's; its body passes `path`."""
        if self._response_over:
            return
        head, body = reply.response, reply.body
        self.status = head.status
        self.response_started = True
        try:
            self.downstream.response(head, end=not body)
        except HeadTooLarge:
            self.downstream.reset(internal=True)
            self._stop_request()
            self._finish(reply.outcome)
            return
        if body and path is not None:
            assert self.run is not None
            self._intended = reply.outcome
            self._response_body = path
            self.run.guard(path.write, body)
            self.run.guard(path.end, ())
            return
        if body:
            self.bytes_sent += len(body)
            self.downstream.write(body)
            self.downstream.end(())
        self._stop_request()
        self._finish(reply.outcome, in_delivery=True)

    def _stop_request(self) -> None:
        if not self._request_over:
            self.downstream.stop_request()
            self._request_over = True

    def _abort_origin(self) -> None:
        self._waiting_for_end = None
        if self.origin is not None and not self._response_over and not self._origin_ended:
            self.origin.abort()

    def _credit(self) -> None:
        if self._uncredited:
            nbytes, self._uncredited = self._uncredited, 0
            self.downstream.consumed(nbytes)

    def _finish(self, outcome: Outcome, *, in_delivery: bool = False) -> None:
        """The response half ends; with `in_delivery` as soon as `delivered` is called."""
        self._response_over = True
        self._in_delivery = in_delivery
        self.outcome = outcome
        if self.run is not None:
            self._request_body = self._response_body = None
            self.run.close()
        if self._uncredited:
            self._credit()
        self._maybe_done()

    def _maybe_done(self, undelivered: int | None = None) -> None:
        over = self._response_over and self._request_over and not self._in_delivery
        if over and self.ended_at is None:
            self.ended_at = self._clock()
            if undelivered is None:
                undelivered = self.downstream.undelivered
            self.bytes_delivered = max(self.bytes_sent - undelivered, 0)
            self._on_done(self)
