"""One request on an HTTP/2 connection to an origin."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from h2.errors import ErrorCodes

from quicedge.config import limits
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, Request
from quicedge.upstream.base import UpstreamError
from quicedge.upstream.connection import Receiver
from quicedge.upstream.interim import InterimRate
from quicedge.upstream.retry import Retry


class Connection(Protocol):
    """What a stream needs of its connection (`h2.H2Connection`)."""

    def wants_to_send(self, stream: H2Stream) -> None:
        """Schedule the stream: it has body bytes, or its end, to send."""

    def reset(self, stream: H2Stream, code: ErrorCodes) -> None:
        """Abandon the stream with RST_STREAM."""

    def credit(self, stream: H2Stream) -> None:
        """Reopen the stream's window by what its client has consumed."""

    def later(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Call back after the current callback has returned."""


_LARGE_PIECE = 1024
"""Chunks of at least this size are not joined: copying would cost more than a frame."""
_JOINED = 16 * 1024
"""Maximum size of joined chunks: the default maximum frame size."""


class H2Stream:
    """The state of one stream, which `H2Connection` reads and writes frames for.

    It is an `Attempt` towards its request: `write` any number of times, `end` once; `abort` at any
    time. After `abort`, or after the receiver learned of a failure, `receiver` is None and every
    call is ignored.
    """

    __slots__ = (
        "_connection", "_left", "_pending", "body_left", "ending", "interim", "interim_seen",
        "is_tunnel", "method", "paused", "pending_bytes", "receiver", "request_done", "responded",
        "response_done", "stream_id", "trailers", "uncredited", "write_paused",
    )  # fmt: skip

    is_duplex = True
    takes_more = True

    def __init__(
        self, connection: Connection, stream_id: int, request: Request, receiver: Receiver
    ) -> None:
        self.stream_id = stream_id
        """0: not yet opened."""
        self.receiver: Receiver | None = receiver
        self.method = request.method
        self.is_tunnel = request.protocol is not None
        """A tunnel is requested, or open."""
        self.response_done = False
        """The origin has ended its half of a tunnel."""
        self.request_done = request.ended
        self.ending = request.ended
        self.trailers: Sequence[Field] = ()
        self.pending_bytes = 0
        self.write_paused = False
        self.responded = False
        self.interim = InterimRate()
        self.interim_seen = False
        self.body_left: int | None = None
        """Response body bytes still to come, when declared."""
        self.paused = False
        self.uncredited = 0
        """Bytes received that were not added to the origin's window again."""
        self._connection = connection
        self._pending: deque[bytes | bytearray] = deque()
        self._left = request.content_length

    # --- Attempt --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self.receiver is None or self.ending or not data:
            return
        if self._left is not None:
            if len(data) > self._left:
                self._reject("more body than content-length declares")
                return
            self._left -= len(data)
        self._keep(data)
        self._connection.wants_to_send(self)
        if self.pending_bytes > limits.UPSTREAM_WRITE_HIGH and not self.write_paused:
            self.write_paused = True
            self.receiver.pause_request()

    def _keep(self, data: bytes) -> None:
        """Let content wait to be sent. Small pieces are joined: a client that sends two bytes per
        DATA frame would otherwise cost an object, and the origin a frame, for each."""
        pending = self._pending
        if len(data) >= _LARGE_PIECE:
            pending.append(data)
        elif pending and isinstance(pending[-1], bytearray) and len(pending[-1]) < _JOINED:
            pending[-1] += data
        else:
            pending.append(bytearray(data))
        self.pending_bytes += len(data)

    def end(self, trailers: Sequence[Field]) -> None:
        if self.receiver is None or self.ending:
            return
        if self._left:
            self._reject("less body than content-length declares")
            return
        self.ending = True
        self.trailers = trailers
        self._connection.wants_to_send(self)

    def _reject(self, reason: str) -> None:
        receiver, self.receiver = self.receiver, None
        self._connection.reset(self, ErrorCodes.CANCEL)
        if receiver is not None:
            self._connection.later(
                receiver.attempt_failed, UpstreamError(OriginFailure.REQUEST, reason), Retry.NEVER
            )

    def abort(self) -> None:
        self.receiver = None
        self._connection.reset(self, ErrorCodes.CANCEL)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self._connection.credit(self)

    # --- for the connection -----------------------------------------------------------------------

    @property
    def wants_to_send(self) -> bool:
        return not self.request_done and (self.ending or bool(self._pending))

    def take(self, size: int) -> bytes:
        """Remove up to `size` pending body bytes."""
        data = self._pending.popleft()
        if len(data) > size:
            self._pending.appendleft(data[size:])
            data = data[:size]
        self.pending_bytes -= len(data)
        if self.write_paused and self.pending_bytes <= limits.UPSTREAM_WRITE_LOW:
            self.write_paused = False
            if self.receiver is not None:
                self.receiver.resume_request()
        return bytes(data)

    def fail(self, error: UpstreamError, retry: Retry = Retry.NEVER) -> None:
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.attempt_failed(error, retry)
