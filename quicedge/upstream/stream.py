"""A request on its way to an origin, over as many tries as it takes and is safe."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quicedge.config import limits
from quicedge.http.message import Field, Request, Response
from quicedge.upstream.base import ResponseHandler, UpstreamError
from quicedge.upstream.connection import Attempt, OriginConnection

if TYPE_CHECKING:
    from quicedge.upstream.group import Upstream
    from quicedge.upstream.server import Server


class UpstreamStream:
    """The `OriginStream` of an exchange and the `Receiver` of a connection.

    A try is repeated when the connection says that this does no harm, only while the body so far
    can be sent again, and never after the first byte of a response.
    """

    def __init__(self, group: Upstream, request: Request, handler: ResponseHandler) -> None:
        self.server = ""
        self.queue_seconds = 0.0
        self.connect_seconds = 0.0
        self._group = group
        self._request = request
        self._handler: ResponseHandler | None = handler
        self._loop = asyncio.get_running_loop()
        self._queued_at = self._loop.time()
        self._server: Server | None = None
        self._attempt: Attempt | None = None
        self._tries_left = group.config.retries
        self._responded = False
        self._body: list[bytes] = []
        self._body_size = 0
        self._replayable = True
        self._ended = request.ended
        self._trailers: Sequence[Field] = ()
        self._paused = False

    def start(self) -> None:
        """Choose a server and ask it for a connection."""
        self._server = server = self._group.choose(avoid=self._server)
        self.server = server.address.text
        if not self._ended and self._handler is not None:
            # Until there is a connection the client's window bounds what waits here.
            self._handler.pause_request()
        server.submit(self)

    def attach(self, connection: OriginConnection, connect_seconds: float) -> None:
        """A connection is there: send what there is."""
        self.connect_seconds = connect_seconds
        self.queue_seconds = max(self._loop.time() - self._queued_at - connect_seconds, 0.0)
        handler = self._handler
        if handler is None:
            return
        self._attempt = attempt = connection.start(self._request, self)
        if not self._request.ended:
            handler.resume_request()
        if self._paused:
            attempt.pause()
        for data in list(self._body):
            attempt.write(data)
        self._trim_replay()
        if self._ended and not self._request.ended:
            attempt.end(self._trailers)

    # --- OriginStream -----------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._attempt is None or self._replayable:
            self._body.append(data)
            self._body_size += len(data)
        if self._attempt is not None:
            self._trim_replay()
            self._attempt.write(data)

    def end(self, trailers: Sequence[Field] = ()) -> None:
        self._ended = True
        self._trailers = trailers
        if self._attempt is not None:
            self._attempt.end(trailers)

    def abort(self) -> None:
        self._handler = None
        if self._attempt is not None:
            self._attempt.abort()
        elif self._server is not None:
            self._server.withdraw(self)

    def pause(self) -> None:
        self._paused = True
        if self._attempt is not None:
            self._attempt.pause()

    def resume(self) -> None:
        self._paused = False
        if self._attempt is not None:
            self._attempt.resume()

    def _trim_replay(self) -> None:
        if self._body_size > limits.UPSTREAM_REPLAY_BODY or self._responded:
            self._replayable = False
            self._body.clear()
            self._body_size = 0

    # --- Receiver -----------------------------------------------------------------------------

    def informational(self, response: Response) -> None:
        self._answered()
        if self._handler is not None:
            self._handler.informational(response)

    def response(self, response: Response) -> None:
        self._answered()
        if self._handler is not None:
            self._handler.response(response)

    def _answered(self) -> None:
        if not self._responded:
            self._responded = True
            self._replayable = False
            self._body.clear()

    def data(self, data: bytes) -> None:
        if self._handler is not None:
            self._handler.data(data)

    def end_of_response(self, trailers: Sequence[Field]) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.end(trailers)

    def pause_request(self) -> None:
        if self._handler is not None:
            self._handler.pause_request()

    def resume_request(self) -> None:
        if self._handler is not None:
            self._handler.resume_request()

    def attempt_failed(self, error: UpstreamError, retryable: bool) -> None:
        """The try failed: another one, or the end."""
        self._attempt = None
        if self._handler is None:
            return
        if self._may_retry(error, retryable):
            self._tries_left -= 1
            self._group.retries += 1
            self.start()
            return
        handler, self._handler = self._handler, None
        handler.failed(error)

    def _may_retry(self, error: UpstreamError, retryable: bool) -> bool:
        if self._responded or not self._replayable or self._tries_left <= 0:
            return False
        return retryable and error.kind in ("connect", "connect_timeout", "tls", "reset")
