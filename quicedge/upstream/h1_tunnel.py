"""A connection to an origin after it has switched protocols (RFC 9110 section 7.8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from quicedge.config.limits import TUNNEL_CLOSE_TIMEOUT
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field
from quicedge.upstream.base import UpstreamError
from quicedge.upstream.connection import Counters, Receiver
from quicedge.upstream.retry import Retry


class H1Tunnel(asyncio.Protocol):
    """The protocol of the transport from the 101 response on, and the `Attempt` of its tunnel.

    Bytes are written as they come. The halves end separately, except in TLS, whose transports
    cannot be half-closed: once the client has ended its half, the origin has some seconds to end
    its own. `on_closed` is called once, when the connection is closed.
    """

    is_duplex = True

    def __init__(
        self,
        transport: asyncio.Transport,
        receiver: Receiver,
        counters: Counters,
        on_closed: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.takes_more = transport.can_write_eof()
        """Whether the origin still takes bytes once it has ended its half."""
        self._transport = transport
        self._receiver: Receiver | None = receiver
        self._counters = counters
        self._on_closed = on_closed
        self._loop = loop
        self._ending: asyncio.TimerHandle | None = None
        self._write_ended = False
        self._read_ended = False
        self._read_paused = False

    # --- Attempt --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not self._write_ended and not self._transport.is_closing():
            self._counters.bytes_sent += len(data)
            self._transport.write(data)

    def end(self, trailers: Sequence[Field]) -> None:
        if self._write_ended:
            return
        self._write_ended = True
        if self._read_ended:
            self._transport.close()
        elif self._transport.is_closing():
            return
        elif self.takes_more:
            self._transport.write_eof()
        else:
            self._ending = self._loop.call_later(TUNNEL_CLOSE_TIMEOUT, self._transport.close)

    def abort(self) -> None:
        self._receiver = None
        self._transport.abort()

    def pause(self) -> None:
        if not self._read_paused and not self._transport.is_closing():
            self._read_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._read_paused and not self._transport.is_closing():
            self._read_paused = False
            self._transport.resume_reading()

    # --- asyncio.Protocol -----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._counters.bytes_received += len(data)
        if self._receiver is not None:
            self._receiver.data(data)

    def eof_received(self) -> bool:
        """Stay open for the other half, if the transport can and the half has not ended."""
        self._read_ended = True
        if self._receiver is not None:
            self._receiver.end_of_response(())
        return self.takes_more and not self._write_ended

    def pause_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.pause_request()

    def resume_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.resume_request()

    def connection_lost(self, exc: Exception | None) -> None:
        receiver, self._receiver = self._receiver, None
        if self._ending is not None:
            self._ending.cancel()
        self._on_closed()
        if receiver is None:
            return
        if not self._read_ended and exc is None:
            receiver.end_of_response(())
        else:
            detail = str(exc) if exc else "the origin closed the connection"
            receiver.attempt_failed(UpstreamError(OriginFailure.RESET, detail), Retry.NEVER)
