"""Turns of the streams that share a connection, by priority (RFC 9218).

Only streams with data and stream flow-control credit are scheduled, so the cost does not depend on
the number of idle streams.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from quicedge.shares.rank import Rank


class Ranked(Protocol):
    """A stream, as far as its turn depends on it."""

    rank: Rank
    scheduled: bool
    """Whether it is in its scheduler, which sets it."""


AnyStream = TypeVar("AnyStream", bound=Ranked)


class Scheduler(Generic[AnyStream]):
    """Streams with data to send, in sending order.

    Invariant: sorted by rank, in order of insertion among equals. `stream.scheduled` mirrors
    membership.
    """

    __slots__ = ("ready",)

    def __init__(self) -> None:
        self.ready: list[AnyStream] = []
        """The streams in sending order, to be read only."""

    def __bool__(self) -> bool:
        return bool(self.ready)

    def __iter__(self) -> Iterator[AnyStream]:
        return iter(self.ready)

    @property
    def first(self) -> AnyStream:
        """The stream whose turn it is; there must be one."""
        return self.ready[0]

    def add(self, stream: AnyStream) -> None:
        """Schedule a stream behind those of equal rank; no effect if it is scheduled."""
        if not stream.scheduled:
            stream.scheduled = True
            at = bisect_right(self.ready, stream.rank, key=_rank)
            self.ready.insert(at, stream)

    def remove(self, stream: AnyStream) -> None:
        """Unschedule a stream; no effect if it is not scheduled."""
        if stream.scheduled:
            stream.scheduled = False
            self.ready.remove(stream)

    def rotate(self, stream: AnyStream) -> None:
        """Move a stream behind those of equal rank."""
        if self.ready[-1] is not stream:
            self.remove(stream)
            self.add(stream)

    def rerank(self, stream: AnyStream, rank: Rank) -> None:
        """Change the rank of a stream."""
        was_scheduled = stream.scheduled
        self.remove(stream)
        stream.rank = rank
        if was_scheduled:
            self.add(stream)

    def clear(self) -> None:
        self.ready.clear()


def _rank(stream: Ranked) -> Rank:
    return stream.rank
