"""Which stream's data goes first (RFC 9218).

Only streams with data that their own flow control lets go are here, so nothing depends on how many
idle streams are open.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from quicedge.quic.connection.priority import Rank
from quicedge.quic.connection.stream import Stream


class Scheduler:
    """Streams with something to send, in the order they are served."""

    __slots__ = ("_ready",)

    def __init__(self) -> None:
        self._ready: list[Stream] = []

    def __bool__(self) -> bool:
        return bool(self._ready)

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._ready)

    def add(self, stream: Stream) -> None:
        """A stream has something to send; it goes behind its equals."""
        if not stream.scheduled:
            stream.scheduled = True
            at = bisect_right(self._ready, stream.rank, key=_rank)
            self._ready.insert(at, stream)

    def remove(self, stream: Stream) -> None:
        """Nothing of it can be sent now."""
        if stream.scheduled:
            stream.scheduled = False
            self._ready.remove(stream)

    def rotate(self, stream: Stream) -> None:
        """It had its turn and has more to send."""
        self.remove(stream)
        self.add(stream)

    def rerank(self, stream: Stream, rank: Rank) -> None:
        """Its priority has changed."""
        was_scheduled = stream.scheduled
        self.remove(stream)
        stream.rank = rank
        if was_scheduled:
            self.add(stream)

    def clear(self) -> None:
        self._ready.clear()


def _rank(stream: Stream) -> Rank:
    return stream.rank
