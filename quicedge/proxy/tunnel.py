"""A tunnel: what an exchange becomes when its origin switches protocols (WebSockets).

The halves of a tunnel are those of the exchange, but each ends on its own, and the deadlines on
progress of requests and responses do not apply. Instead a tunnel ends after some time without a
byte in either direction, some time after one half has ended, or when the worker drains.

The edge passes the bytes of a WebSocket through and keeps what it needs of its frames: the codes of
Close frames for the access log, and where it may insert one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from quicedge.config.limits import TUNNEL_CLOSE_TIMEOUT, TUNNEL_HALF_CLOSED
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, Response
from quicedge.http.upgrade import WEBSOCKET
from quicedge.http.websocket import GOING_AWAY, FrameFollower, close_frame
from quicedge.telemetry.outcomes import Outcome
from quicedge.upstream.base import UpstreamError, in_pieces


class End(StrEnum):
    """A party of a tunnel, for logs."""

    CLIENT = "client"
    ORIGIN = "origin"
    EDGE = "edge"


class TunnelledExchange(Protocol):
    """What a tunnel needs of its exchange (`exchange.Exchange`)."""

    bytes_received: int
    bytes_sent: int

    @property
    def request_over(self) -> bool: ...

    @property
    def speaks_http1(self) -> bool:
        """Whether the client speaks HTTP/1.1."""

    def informational(self, response: Response) -> None: ...

    def response(self, response: Response) -> None: ...

    def data(self, data: bytes) -> None: ...

    def end(self, trailers: Sequence[Field]) -> None: ...

    def failed(self, error: UpstreamError) -> None: ...

    def pause_request(self) -> None: ...

    def resume_request(self) -> None: ...

    def open_tunnel(self, response: Response) -> None:
        """Confirm to the client that the tunnel is open."""

    def end_response_half(self) -> None:
        """Tell the client that nothing follows; its own half goes on."""

    def end_tunnel(self, outcome: Outcome) -> None:
        """End whatever has not ended."""


class Tunnel:
    """The tunnel of one exchange, and the `upstream.base.ResponseHandler` of its origin.

    It exists from the request on; `is_open` once the origin has switched protocols. `check` is
    called about once per second. Times are seconds of the exchange's clock.
    """

    __slots__ = (
        "_active_at", "_close_sent", "_closing", "_ends_at", "_exchange", "_from_client",
        "_from_origin", "_idle_timeout", "_moved", "ended_first", "is_open", "origin_ended",
        "protocol",
    )  # fmt: skip

    def __init__(
        self, exchange: TunnelledExchange, protocol: bytes, idle_timeout: float, now: float
    ) -> None:
        self.protocol = protocol
        self.is_open = False
        self.origin_ended = False
        self.ended_first: End | None = None
        """Who ended its half, or the whole, first."""
        self._exchange = exchange
        self._idle_timeout = idle_timeout
        is_websocket = protocol == WEBSOCKET
        self._from_client = FrameFollower() if is_websocket else None
        self._from_origin = FrameFollower() if is_websocket else None
        self._moved = 0
        self._active_at = now
        self._ends_at: float | None = None
        """When the tunnel ends, whatever its peers do."""
        self._closing: Outcome | None = None
        """Why the edge closes the tunnel."""
        self._close_sent = False

    @property
    def client_close_code(self) -> int | None:
        """The code of the client's Close frame."""
        return self._from_client.close_code if self._from_client is not None else None

    @property
    def origin_close_code(self) -> int | None:
        """The code of the origin's Close frame."""
        return self._from_origin.close_code if self._from_origin is not None else None

    @property
    def is_settled(self) -> bool:
        """Whether the peers have no more to say to each other, so that a lost connection is none.

        RFC 6455 section 7.1.4: once both have sent Close frames, the WebSocket is closed cleanly.
        """
        closed = self.client_close_code is not None and self.origin_close_code is not None
        return closed or (self.origin_ended and self._exchange.request_over)

    # --- from the client ------------------------------------------------------------------------

    def client_sent(self, data: bytes) -> None:
        """The client's bytes, on their way to the origin."""
        if self._from_client is not None:
            self._from_client.follow(data)

    def client_ended(self) -> None:
        """The client has ended its half."""
        self._ended(End.CLIENT)
        if self.origin_ended:
            self._exchange.end_tunnel(self._closing or Outcome.COMPLETE)

    # --- from the origin (upstream.base.ResponseHandler) ------------------------------------------

    def informational(self, response: Response) -> None:
        self._exchange.informational(response)

    def response(self, response: Response) -> None:
        if 200 <= response.status < 300 and not self._exchange.speaks_http1:
            # To a client of extended CONNECT, it would mean that the tunnel is open.
            self.failed(
                UpstreamError(
                    OriginFailure.NO_TUNNEL,
                    f"the origin answered {response.status} and did not switch protocols",
                )
            )
            return
        self._exchange.response(response)

    def whole(self, response: Response, data: bytes) -> None:
        in_pieces(self, response, data)

    def established(self, response: Response) -> None:
        self.is_open = True
        self._exchange.open_tunnel(response)

    def data(self, data: bytes) -> None:
        follower = self._from_origin
        if follower is None or not self.is_open:
            self._exchange.data(data)
        elif self._close_sent:
            # RFC 6455 section 5.5.1: nothing follows a Close frame.
            follower.follow(data)
        elif self._closing is None:
            follower.follow(data)
            self._exchange.data(data)
        else:
            end = follower.follow(data, to_boundary=True)
            self._exchange.data(data[:end])
            if follower.at_boundary:
                self._send_close()
                follower.follow(data[end:])

    def end(self, trailers: Sequence[Field]) -> None:
        if not self.is_open:
            self._exchange.end(trailers)
            return
        self.origin_ended = True
        self._ended(End.ORIGIN)
        if self._exchange.request_over:
            self._exchange.end_tunnel(self._closing or Outcome.COMPLETE)
        else:
            self._exchange.end_response_half()

    def failed(self, error: UpstreamError) -> None:
        if self.is_open and (self.is_settled or self.origin_ended):
            self._exchange.end_tunnel(self._closing or Outcome.COMPLETE)
        else:
            self._ended(End.ORIGIN)
            self._exchange.failed(error)

    def pause_request(self) -> None:
        self._exchange.pause_request()

    def resume_request(self) -> None:
        self._exchange.resume_request()

    # --- ends -----------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """End the tunnel if it is past a deadline."""
        exchange = self._exchange
        moved = exchange.bytes_received + exchange.bytes_sent
        if moved != self._moved:
            self._moved = moved
            self._active_at = now
        if not self.is_open:
            return
        if self._ends_at is not None and now >= self._ends_at:
            exchange.end_tunnel(self._closing or Outcome.COMPLETE)
        elif self.is_settled and self._ends_at is None:
            self._ends_at = now + TUNNEL_CLOSE_TIMEOUT
        elif self.origin_ended or exchange.request_over:
            if now - self._active_at >= TUNNEL_HALF_CLOSED:
                exchange.end_tunnel(self._closing or Outcome.COMPLETE)
        elif now - self._active_at >= self._idle_timeout and self._closing is None:
            self.close(Outcome.TUNNEL_IDLE, now)

    @property
    def may_close_cleanly(self) -> bool:
        """Whether the tunnel's protocol has a message for a close by the edge."""
        return self.is_open and self._from_origin is not None and not self._from_origin.is_lost

    def close(self, outcome: Outcome, now: float) -> None:
        """Close the tunnel from the edge: a WebSocket client is sent 1001 between two frames.

        Its answer goes to the origin, which then closes its side. Both have TUNNEL_CLOSE_TIMEOUT.
        """
        if self._closing is not None:
            return
        self._closing = outcome
        self._ended(End.EDGE)
        if not self.may_close_cleanly:
            self._exchange.end_tunnel(outcome)
            return
        self._ends_at = now + TUNNEL_CLOSE_TIMEOUT
        if self._from_origin is not None and self._from_origin.at_boundary:
            self._send_close()

    def _send_close(self) -> None:
        if not self.origin_ended:
            self._close_sent = True
            self._exchange.data(close_frame(GOING_AWAY))

    def _ended(self, end: End) -> None:
        if self.ended_first is None:
            self.ended_first = end
