"""A request to an origin, with its attempts and retries."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from quicedge.config import limits
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, HttpVersion, Request, Response
from quicedge.shares import Client
from quicedge.upstream.base import ResponseHandler, TunnelHandler, UpstreamError
from quicedge.upstream.breaker import Call
from quicedge.upstream.connection import Attempt, OriginConnection
from quicedge.upstream.deadline import Deadline, DeadlinePool
from quicedge.upstream.failures import failure_of
from quicedge.upstream.proxy_header import Peer, proxy_header
from quicedge.upstream.retry import ReplayBody, Retry, may_retry

if TYPE_CHECKING:
    import asyncio

    from quicedge.config.schema import Upstream as UpstreamConfig
    from quicedge.upstream.selection import Selection
    from quicedge.upstream.server import Server


class Servers(Protocol):
    """The servers that a request may be sent to (`group.Upstream`)."""

    config: UpstreamConfig
    loop: asyncio.AbstractEventLoop
    deadlines: DeadlinePool
    selection: Selection


class UpstreamStream:
    """The `OriginStream` of an exchange and the `Receiver` of a connection.

    It handles what is common to all HTTP versions: attempts, the single timer of a request, the
    pending body (until there is a connection, or 100 (Continue)), and deferred backpressure
    callbacks to the exchange, which are never made from within its own calls. Call `start` first.
    """

    __slots__ = (
        "_attempt", "_body", "_call", "_config", "_deadline", "_ended", "_established",
        "_failed_servers", "_group", "_handler", "_holding", "_loop", "_paused", "_queued_at",
        "_refused", "_relayed", "_report_scheduled", "_request", "_request_paused", "_responded",
        "_response_ended", "_sent_at", "_server", "_told_paused", "_trailers", "_tries_left",
        "_tunnel", "_waits_for", "client", "connect_seconds", "http_version", "introduction",
        "method", "queue_seconds", "retries", "scheme", "server", "stalled",
    )  # fmt: skip

    def __init__(
        self,
        group: Servers,
        request: Request,
        handler: ResponseHandler,
        client: Client | None = None,
        peer: Peer | None = None,
        *,
        call: Call | None = None,
        avoided: frozenset[Server] = frozenset(),
    ) -> None:
        """`peer`: who origins are told the client is, if they are told. `call`: of the circuit
        breaker that has let it pass. `avoided`: servers that it must not go to."""
        self.server = ""
        self.queue_seconds = 0.0
        self.connect_seconds = 0.0
        self.http_version: HttpVersion | None = None
        self.scheme = ""
        self.retries = 0
        self.method = request.method
        self.client = client
        version = group.config.proxy_protocol
        self.introduction = None if version is None else proxy_header(version, peer)
        self.stalled = False
        self._group = group
        self._config = group.config
        self._loop = group.loop
        self._request = request
        self._handler: ResponseHandler | None = handler
        self._call = call
        self._deadline: Deadline | None = group.deadlines.take(self._expired)
        """None once the request is over."""
        self._waits_for: OriginFailure | None = None
        self._server: Server | None = None
        self._failed_servers = avoided
        self._attempt: Attempt | None = None
        self._tries_left = group.config.retries
        self._queued_at = 0.0
        self._sent_at = 0.0
        """When the current attempt was sent; 0.0: not yet."""
        self._body = ReplayBody()
        self._ended = request.ended
        self._trailers: Sequence[Field] = ()
        self._holding = False  # the body is held until 100 (Continue)
        self._refused = False  # the origin has responded and wants no (more) body
        self._relayed = False  # part of a response was passed to the exchange
        self._responded = False
        self._tunnel = False  # a tunnel is requested
        self._established = False  # it is open
        self._response_ended = False  # the origin has ended its half of it
        self._paused = False
        self._request_paused = False
        self._told_paused = False
        self._report_scheduled = False

    # --- attempts -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the first attempt."""
        if self.method == b"CONNECT":
            if self._request.protocol is None:
                self._fail_later(UpstreamError(OriginFailure.NO_SERVER, "CONNECT is not forwarded"))
                return
            # What the origin gets is a GET, in HTTP/1.1 literally: nothing of the tunnel is sent
            # before it is open.
            self.method = b"GET"
            self._tunnel = True
        self._group.selection.retry_budget.request()
        self._try(fresh=False)

    def _try(
        self,
        fresh: bool,
        because: UpstreamError | None = None,
        full: frozenset[Server] = frozenset(),
    ) -> None:
        """Choose a server, and wait for a connection to it; not to one that is `full`."""
        selection = self._group.selection
        unfit = self._failed_servers | full if full else self._failed_servers
        server = selection.choose(self._request, unfit, self.client)
        if server is None:
            self._lacks_server(because)
            return
        if self._tunnel:
            server = server.tunnels
        self._server = server
        self.server = server.address.text
        self.scheme = "https" if server.address.tls else "http"
        self._queued_at = time.monotonic()
        self._sent_at = 0.0
        server.running += 1
        try:
            server.submit(self, fresh)
        except UpstreamError as error:
            if error.kind is OriginFailure.OVERLOADED:
                # All at once: asking one after the other would take long where many are full.
                full |= {server.main, *selection.refusing(self.client, tunnels=self._tunnel)}
                if selection.has_another(server.main, self._failed_servers | full):
                    self._leave_server()
                    self._try(fresh, error, full)
                    return
            server.counters.requests += 1
            self._fail_later(error)
            return
        server.counters.requests += 1
        if self._attempt is None:
            self._wait(
                OriginFailure.OVERLOADED,
                limits.UPSTREAM_QUEUE_TIMEOUT + self._config.connect_timeout,
            )

    def _lacks_server(self, because: UpstreamError | None) -> None:
        """Wait for the first servers, or fail: all have been tried, or there are none."""
        if because is None and self._group.selection.expect(self):
            self._queued_at = time.monotonic()
            self._wait(OriginFailure.NO_SERVER, self._config.connect_timeout)
        else:
            error = because or UpstreamError(OriginFailure.NO_SERVER, "no server is known")
            self._fail_later(error)

    def servers_known(self) -> None:
        """Go on after waiting for the first servers (`selection.Expectant`)."""
        if self._handler is not None:
            self.queue_seconds += time.monotonic() - self._queued_at
            self._try(fresh=False)

    def reassign(self) -> None:
        """Wait for another server: this one has left the upstream (`server.Waiter`)."""
        if self._handler is not None and self._server is not None:
            self.queue_seconds += time.monotonic() - self._queued_at
            self._leave_server()
            self._try(fresh=False)

    def attach(self, connection: OriginConnection) -> None:
        """Start the request on a connection (`server.Waiter`)."""
        since_queued = connection.connected_at - self._queued_at
        self.connect_seconds = max(min(since_queued, connection.connect_seconds), 0.0)
        self.queue_seconds += time.monotonic() - self._queued_at - self.connect_seconds
        request = self._request
        self._sent_at = time.monotonic()
        attempt = self._attempt = connection.start(request, self)
        self.http_version = HttpVersion.HTTP_2 if attempt.is_duplex else HttpVersion.HTTP_1_1
        if self._paused:
            attempt.pause()
        if request.ended:
            self._wait(OriginFailure.FIRST_BYTE_TIMEOUT, self._config.first_byte_timeout)
        elif self._tunnel:
            self._holding = True
            self._wait(OriginFailure.FIRST_BYTE_TIMEOUT, self._config.first_byte_timeout)
        elif any(n == b"expect" and v.lower() == b"100-continue" for n, v in request.fields):
            self._holding = True
            self._wait(None, limits.UPSTREAM_CONTINUE_TIMEOUT)
        else:
            self._wait_for_nothing()
            self._send_kept()

    def _send_kept(self) -> None:
        """Send the pending body."""
        self._holding = False
        attempt = self._attempt
        assert attempt is not None
        self._pause_request(False)
        self._wait_for_nothing()
        data = self._body.replay()
        if data:
            attempt.write(data)  # which may pause again
        if self._ended:
            attempt.end(self._trailers)
            self._wait(OriginFailure.FIRST_BYTE_TIMEOUT, self._config.first_byte_timeout)

    def attempt_failed(self, error: UpstreamError, retry: Retry) -> None:
        """Retry after a failed attempt, or fail."""
        self._attempt = None
        self._holding = False
        if self._handler is None or self._server is None:
            return
        server = self._server
        server.counters.failures += 1
        # A connection that was already closing is no sign of an origin in trouble.
        was_closing = retry is Retry.IDEMPOTENT
        if not was_closing:
            self._tell_failure(server)
        if (
            self._relayed
            or not may_retry(retry, self.method, self._body, self._tries_left)
            or not (was_closing or self._group.selection.retry_budget.take())
        ):
            self._fail(error)
            return
        self._tries_left -= 1
        self.retries += 1
        server.counters.retries += 1
        self._leave_server()
        if error.kind.is_unreachable or self._group.selection.observes:
            # Another one, if there is any: this one has just failed.
            self._failed_servers |= {server.main}
        self._pause_request(self._body.is_full)
        self._try(fresh=was_closing, because=error)

    def _tell_failure(self, server: Server) -> None:
        """Tell the selection of servers that one has failed, if it had got the request."""
        if self._sent_at and self._group.selection.observes:
            self._group.selection.failed(server.main, time.monotonic() - self._sent_at)

    def _fail_later(self, error: UpstreamError) -> None:
        self._loop.call_soon(self._fail, error)

    @property
    def chosen(self) -> Server | None:
        """The server that it has been sent to, or waits for."""
        return None if self._server is None else self._server.main

    def hand_to(self, handler: ResponseHandler, call: Call | None) -> None:
        """Have another handler, and the circuit breaker, get all that is to come."""
        if self._handler is not None:
            self._handler = handler
            self._call = call

    def _fail(self, error: UpstreamError) -> None:
        if self._call is not None:
            self._call.failed(error.kind)
        handler = self._finish()
        if handler is not None:
            handler.failed(error)

    def _finish(self) -> ResponseHandler | None:
        handler, self._handler = self._handler, None
        if handler is not None:
            self._leave_server()
        self._attempt = None
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            self._group.deadlines.give_back(deadline)
        return handler

    def _leave_server(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            server.running -= 1
            server.leave(self)

    # --- OriginStream ---------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._handler is None or self._refused or self._ended:
            return
        if self._attempt is None or self._holding:
            self._body.keep(data)
            if self._body.is_full:
                self._pause_request(True)
        else:
            self._attempt.write(data)
            self._body.sent(data)
            if self._responded and not self._paused and not self._established:
                # Bidirectional: activity of either side extends the deadline.
                self._wait(OriginFailure.IDLE_TIMEOUT, self._config.idle_timeout)

    def end(self, trailers: Sequence[Field] = ()) -> None:
        if self._handler is None or self._refused or self._ended:
            return
        self._ended = True
        self._trailers = trailers
        if self._attempt is not None and not self._holding:
            self._attempt.end(trailers)
            if not self._responded:
                self._wait(OriginFailure.FIRST_BYTE_TIMEOUT, self._config.first_byte_timeout)
            elif self._response_ended:
                self._finish()

    def abort(self) -> None:
        if self._call is not None:
            self._call.abandoned()
        attempt, server = self._attempt, self._server
        if self._finish() is None:
            return
        if attempt is not None:
            attempt.abort()
        elif server is not None:
            server.withdraw(self)

    def pause(self) -> None:
        self._paused = True
        if self._attempt is not None:
            if self._responded:
                self._wait_for_nothing()
            self._attempt.pause()

    def resume(self) -> None:
        self._paused = False
        if self._attempt is not None:
            if self._responded and not self._established:
                self._wait(OriginFailure.IDLE_TIMEOUT, self._config.idle_timeout)
            self._attempt.resume()

    # --- Receiver -------------------------------------------------------------------------------

    def informational(self, response: Response) -> None:
        if self._handler is None:
            return
        self._relayed = True
        if self._tunnel:
            self._wait(OriginFailure.FIRST_BYTE_TIMEOUT, self._config.first_byte_timeout)
        elif self._holding and response.status == 100:
            self._send_kept()
        elif self._ended:
            self._wait(OriginFailure.FIRST_BYTE_TIMEOUT, self._config.first_byte_timeout)
        self._handler.informational(response)

    def response(self, response: Response) -> None:
        if self._handler is None:
            return
        self._relayed = self._responded = True
        self._body.drop()
        attempt = self._attempt
        if (
            not self._ended
            and attempt is not None
            and (self._holding or (response.status >= 300 and not attempt.is_duplex))
        ):
            # RFC 9112 section 9.5: a client that sees a response saying that the origin does not
            # want the body SHOULD immediately cease transmitting it.
            self._refused = True
            self._holding = False
            self._pause_request(False)
        self._note_response()
        if self._group.selection.observes:
            self._answered(response)
        if self._call is not None:
            self._call.answered(response.status)
        self._handler.response(response)

    def _answered(self, response: Response) -> None:
        """Tell the selection of servers how this one does; keep the client with it, if wanted."""
        selection, server = self._group.selection, self._server
        if server is None:
            return
        seconds = time.monotonic() - self._sent_at
        selection.answered(server.main, response.status, seconds)
        field = selection.sticky_field(self._request, server.main)
        if field is not None:
            response.fields.append(field)

    def established(self, response: Response, attempt: Attempt) -> None:
        """The tunnel is open; only its own idle timeout applies from now on.

        It leaves the server's pool, so that tunnels do not use up what is there for requests.
        """
        if self._handler is None or self._server is None:
            attempt.abort()
            return
        self._relayed = self._responded = self._established = True
        if self._call is not None:
            self._call.answered(response.status)
        self._attempt = attempt
        self._wait_for_nothing()
        self._server.leave(self)
        # Whoever requests a tunnel has a handler for it.
        cast(TunnelHandler, self._handler).established(response)
        if self._attempt is None:
            return  # the exchange has ended meanwhile
        self._holding = False
        if self._paused:
            attempt.pause()
        self._pause_request(False)
        data = self._body.replay()
        self._body.drop()
        if data:
            attempt.write(data)
        if self._ended:
            attempt.end(())

    def data(self, data: bytes) -> None:
        if self._handler is not None:
            self._note_response()
            self._handler.data(data)

    def _note_response(self) -> None:
        if self._paused:
            self._wait_for_nothing()
        elif not self._established:
            self._wait(OriginFailure.IDLE_TIMEOUT, self._config.idle_timeout)

    def end_of_response(self, trailers: Sequence[Field]) -> None:
        attempt = self._attempt
        if self._established and not self._ended and attempt is not None and attempt.takes_more:
            if not self._response_ended and self._handler is not None:
                self._response_ended = True
                self._handler.end(())
            return
        handler = self._finish()
        if handler is not None:
            handler.end(trailers)

    def whole(self, response: Response, data: bytes) -> None:
        if self._group.selection.observes:
            self._answered(response)
        if self._call is not None:
            self._call.answered(response.status)
        handler = self._finish()
        if handler is None:
            return
        try:
            handler.whole(response, data)
        except Exception as error:
            handler.failed(failure_of(error, self._loop))

    def pause_request(self) -> None:
        self._pause_request(True)
        if not (self._responded or self._ended or self._tunnel):
            self._wait(OriginFailure.IDLE_TIMEOUT, self._config.idle_timeout)

    def resume_request(self) -> None:
        self._pause_request(False)
        if not (self._responded or self._ended or self._tunnel):
            self._wait_for_nothing()

    # --- backpressure and time ------------------------------------------------------------------

    def _pause_request(self, paused: bool) -> None:
        self._request_paused = paused
        if paused is not self._told_paused and not self._report_scheduled:
            self._report_scheduled = True
            self._loop.call_soon(self._report_pause)

    def _report_pause(self) -> None:
        self._report_scheduled = False
        if self._handler is None or self._request_paused is self._told_paused:
            return
        self._told_paused = self._request_paused
        if self._told_paused:
            self._handler.pause_request()
        else:
            self._handler.resume_request()

    def _wait(self, kind: OriginFailure | None, seconds: float) -> None:
        """Start the timer: fail as `kind` when it expires; None: send the body held for 100."""
        self._waits_for = kind
        if self._deadline is not None:
            self._deadline.set(seconds)

    def _wait_for_nothing(self) -> None:
        """Stop the timer."""
        if self._deadline is not None:
            self._deadline.clear()

    def _expired(self) -> None:
        kind = self._waits_for
        if kind is None:
            # RFC 9110 section 10.1.1: a client SHOULD NOT wait for an indefinite period.
            self._send_kept()
            return
        if self._server is not None:
            self._server.counters.failures += 1
            self._tell_failure(self._server)
        self._break_off(UpstreamError(kind, self.server))

    def give_up(self) -> None:
        """Fail: others wait for what this stalled request holds (`server.Waiter`)."""
        self._break_off(UpstreamError(OriginFailure.STALLED, "others wait for the connection"))

    def _break_off(self, error: UpstreamError) -> None:
        """Abandon the attempt and report the failure to the exchange."""
        if self._call is not None:
            self._call.failed(error.kind)
        attempt, server = self._attempt, self._server
        handler = self._finish()
        if attempt is not None:
            attempt.abort()
        elif server is not None:
            server.withdraw(self)
        if handler is not None:
            handler.failed(error)
