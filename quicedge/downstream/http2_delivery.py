"""When the client of an HTTP/2 connection has a response: what TCP can tell (`Progress`).

A small response counts as delivered once it is written. Of a longer one the kernel is asked, until
nothing up to its last byte is left unacknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from quicedge.config.limits import DELIVERY_CHECK_FIRST, DELIVERY_CHECK_LAST, H2_WRITE_LOW
from quicedge.http.h2 import H2Connection, H2Stream
from quicedge.proxy.exchange import Exchange


class Connection(Protocol):
    """What a session needs of its connection (`tcp.connection.TcpConnection`)."""

    @property
    def transport(self) -> asyncio.Transport: ...

    def undelivered(self) -> int:
        """Bytes that were written and that the client has not acknowledged."""


class Stream(Protocol):
    exchange: Exchange | None
    end_offset: int
    h2: H2Stream


class Delivery:
    """The responses of one session between their last byte and its acknowledgment."""

    __slots__ = (
        "_codec", "_connection", "_delay", "_delivering", "_loop", "_streams", "_timer",
        "bytes_written",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        codec: H2Connection,
        streams: Mapping[int, Stream],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._connection = connection
        self._codec = codec
        self._streams = streams
        self._loop = loop
        self.bytes_written = 0
        """Bytes that the session has written."""
        self._delivering: dict[int, Stream] = {}
        self._delay = DELIVERY_CHECK_FIRST
        self._timer: asyncio.TimerHandle | None = None

    def written(self, finished: Sequence[H2Stream]) -> None:
        """The last byte of these responses was written."""
        for h2 in finished:
            stream: Stream | None = h2.app
            if stream is None:
                continue
            if stream.exchange is None:
                h2.app = None  # its request was rejected; break the reference cycle
                continue
            if h2.sent < H2_WRITE_LOW:
                stream.exchange.delivered()
            else:
                stream.end_offset = self.bytes_written
                self._delivering[h2.id] = stream
        if self._delivering and self._timer is None:
            self._delay = DELIVERY_CHECK_FIRST
            self._timer = self._loop.call_later(self._delay, self._check)

    def _check(self) -> None:
        self._timer = None
        delivered = self.delivered
        for stream_id, stream in list(self._delivering.items()):
            if stream.end_offset <= delivered:
                self._settle(stream_id)
        if self._delivering:
            self._delay = min(2 * self._delay, DELIVERY_CHECK_LAST)
            self._timer = self._loop.call_later(self._delay, self._check)

    def _settle(self, stream_id: int) -> None:
        stream = self._delivering.pop(stream_id)
        if stream.exchange is not None:
            stream.exchange.delivered()

    def settle_all(self) -> None:
        """The client is taken to have what was written."""
        for stream_id in list(self._delivering):
            self._settle(stream_id)

    def close(self) -> None:
        """The connection has ended."""
        self._delivering.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- downstream.progress.Progress -------------------------------------------------------------

    @property
    def delivered(self) -> int:
        return max(self.bytes_written - self._connection.undelivered(), 0)

    def _in_flight(self, stream: Stream) -> int:
        """Bytes of a response written up to its end, and not acknowledged."""
        if stream.h2.id not in self._delivering:
            return 0
        return min(max(stream.end_offset - self.delivered, 0), stream.h2.sent)

    def acknowledged_bytes(self, stream_id: int) -> int:
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.h2.sent - self._in_flight(stream)

    def unacknowledged_bytes(self, stream_id: int) -> int:
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.h2.unsent + self._in_flight(stream)

    def unsent_bytes(self, stream_id: int) -> int:
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.h2.unsent

    def is_flow_blocked(self, stream_id: int) -> bool:
        stream = self._streams.get(stream_id)
        if stream is None or not stream.h2.unsent:
            return False
        return stream.h2.window <= 0 or self._codec.sender.window <= 0
