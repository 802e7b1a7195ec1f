"""Stream scheduling by priority (RFC 9218).

Only streams with data and stream flow-control credit are scheduled, so the cost does not depend on
the number of idle streams.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from quicedge.quic.connection.priority import Rank
from quicedge.quic.connection.stream import Stream


class Scheduler:
    """Streams with data to send, in sending order.

    Invariant: sorted by rank, in order of insertion among equals. `stream.scheduled` mirrors
    membership.
    """

    __slots__ = ("_ready",)

    def __init__(self) -> None:
        self._ready: list[Stream] = []

    def __bool__(self) -> bool:
        return bool(self._ready)

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._ready)

    def add(self, stream: Stream) -> None:
        """Schedule a stream behind those of equal rank; no effect if it is scheduled."""
        if not stream.scheduled:
            stream.scheduled = True
            at = bisect_right(self._ready, stream.rank, key=_rank)
            self._ready.insert(at, stream)

    def remove(self, stream: Stream) -> None:
        """Unschedule a stream; no effect if it is not scheduled."""
        if stream.scheduled:
            stream.scheduled = False
            self._ready.remove(stream)

    def rotate(self, stream: Stream) -> None:
        """Move a stream behind those of equal rank."""
        self.remove(stream)
        self.add(stream)

    def rerank(self, stream: Stream, rank: Rank) -> None:
        """Change the rank of a stream."""
        was_scheduled = stream.scheduled
        self.remove(stream)
        stream.rank = rank
        if was_scheduled:
            self.add(stream)

    def clear(self) -> None:
        self._ready.clear()


def _rank(stream: Stream) -> Rank:
    return stream.rank
