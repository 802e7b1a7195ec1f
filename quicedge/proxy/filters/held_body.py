"""Holds what an origin sends while its response head passes filters that take time."""

from __future__ import annotations

from collections.abc import Sequence

from quicedge.http.message import Field, Fields
from quicedge.proxy.body import Sink, Source


class HeldBody:
    """The body of a response, used like a `BodyPath` until it is released.

    Its source is paused, so that it holds only what the origin had already sent.
    """

    __slots__ = ("_client_is_slow", "_end", "_pieces", "_source")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pieces: list[bytes] = []
        self._end: Fields | None = None
        self._client_is_slow = False
        source.pause()

    def write(self, data: bytes) -> None:
        self._pieces.append(data)

    def end(self, trailers: Sequence[Field]) -> None:
        self._end = list(trailers)

    def pause(self) -> None:
        self._client_is_slow = True

    def resume(self) -> None:
        self._client_is_slow = False

    def release(self, sink: Sink) -> None:
        """Pass everything on, and let the source go on."""
        pieces, self._pieces = self._pieces, []
        if not self._client_is_slow:
            self._source.resume()
        for data in pieces:
            sink.write(data)
        if self._end is not None:
            sink.end(self._end)

    def close(self) -> None:
        self._pieces.clear()
