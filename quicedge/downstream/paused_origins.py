"""Backpressure from clients to origins: who does not take a response stops the reads of it."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from quicedge.config.limits import SEND_BUFFER_HIGH, SEND_BUFFER_LOW
from quicedge.proxy.exchange import Exchange


class Stream(Protocol):
    """A stream with a response."""

    stream_id: int
    exchange: Exchange | None
    paused: bool
    """Whether its origin is paused; set here."""

    @property
    def unsent(self) -> int:
        """Bytes written to it and not yet sent."""


AnyStream = TypeVar("AnyStream", bound=Stream)


class PausedOrigins(Generic[AnyStream]):
    """The streams of one session whose origins are paused."""

    __slots__ = ("streams",)

    def __init__(self) -> None:
        self.streams: dict[int, AnyStream] = {}
        """To be read only."""

    def __bool__(self) -> bool:
        return bool(self.streams)

    def pause(self, stream: AnyStream) -> None:
        """Stop reading a response: its client is behind."""
        if not stream.paused:
            stream.paused = True
            self.streams[stream.stream_id] = stream
            if stream.exchange is not None:
                stream.exchange.pause_response()

    def caught_up(self) -> list[AnyStream]:
        """Those whose clients have taken nearly all that was written to them."""
        return [stream for stream in self.streams.values() if stream.unsent < SEND_BUFFER_LOW]

    def resume(self, streams: list[AnyStream], limit: int) -> None:
        """Go on with those that have `caught_up`; `limit`: unsent bytes per stream now."""
        plenty = limit == SEND_BUFFER_HIGH
        for stream in streams:
            # One with nothing left is resumed in any case: nothing else would wake it.
            if plenty or not stream.unsent:
                self.streams.pop(stream.stream_id, None)
                stream.paused = False
                if stream.exchange is not None:
                    stream.exchange.resume_response()

    def forget(self, stream_id: int) -> None:
        """The exchange of a stream has ended."""
        self.streams.pop(stream_id, None)

    def clear(self) -> None:
        self.streams.clear()
