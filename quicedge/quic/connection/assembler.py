"""Reassembly of stream and CRYPTO data.

Memory is proportional to the bytes received, wherever in the window they are. The number of gaps is
bounded per stream and per connection, and gaps are found by bisection, so that a peer that sends
every other byte costs no more than one that sends them all.
"""

from __future__ import annotations

from bisect import bisect_right

from quicedge.config.limits import ASSEMBLER_CHUNKS


class TooManyGaps(Exception):
    """More gaps in the data than permitted."""


class GapBudget:
    """Gaps that all streams of a connection may have together."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        self.held = 0
        self.limit = limit


class Assembler:
    """One direction of one stream, delivered as it becomes contiguous.

    `max_gaps` bounds the gaps of this stream, `budget` those of several streams together. After
    TooManyGaps the connection must be closed.
    """

    __slots__ = ("_budget", "_max_gaps", "_waiting", "start")

    def __init__(self, max_gaps: int, budget: GapBudget | None = None) -> None:
        self.start = 0
        """Offset of the next byte to deliver."""
        self._max_gaps = max_gaps
        self._budget = budget
        self._waiting: _Pieces | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no data is buffered."""
        return self._waiting is None

    @property
    def gaps(self) -> int:
        """Buffered ranges, each preceded by a gap."""
        return 0 if self._waiting is None else len(self._waiting.starts)

    @property
    def held(self) -> int:
        """Bytes buffered."""
        waiting = self._waiting
        return 0 if waiting is None else sum(waiting.stops) - sum(waiting.starts)

    def insert(self, offset: int, data: bytes) -> bytes:
        """Insert data and return what is now contiguous; raises TooManyGaps."""
        end = offset + len(data)
        if end <= self.start or not data:
            return b""
        if offset < self.start:
            data = data[self.start - offset :]
            offset = self.start
        waiting = self._waiting
        if waiting is None:
            if offset == self.start:
                self.start = end
                return data
            waiting = self._waiting = _Pieces()
        before = len(waiting.starts)
        waiting.fill(offset, end, data)
        ready = b""
        if waiting.starts[0] == self.start:
            self.start = waiting.stops[0]
            ready = waiting.pop_first()
            if not waiting.starts:
                self._waiting = None
        self._note_gaps(len(waiting.starts) - before)
        return ready

    def clear(self) -> None:
        """Release buffered data that will not be delivered."""
        self._note_gaps(-self.gaps)
        self._waiting = None

    def _note_gaps(self, change: int) -> None:
        budget = self._budget
        if budget is not None:
            budget.held += change
        if change > 0 and (
            self.gaps > self._max_gaps or (budget is not None and budget.held > budget.limit)
        ):
            raise TooManyGaps


class _Pieces:
    """Ascending, non-adjacent ranges and the chunks of data in each."""

    __slots__ = ("_chunks", "starts", "stops")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.stops: list[int] = []
        self._chunks: list[list[bytes]] = []

    def fill(self, offset: int, end: int, data: bytes) -> None:
        """Insert the parts of data that fill gaps."""
        starts, stops = self.starts, self.stops
        at = offset
        index = bisect_right(stops, at)
        while at < end:
            before = starts[index] if index < len(starts) else end
            if at < before:
                until = min(before, end)
                index = self._put(index, at, until, data[at - offset : until - offset])
            at = stops[index]
            index += 1

    def pop_first(self) -> bytes:
        """Remove the first range and return its bytes."""
        chunks = self._chunks[0]
        self._drop(0)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _put(self, index: int, start: int, stop: int, piece: bytes) -> int:
        """Insert a piece into the gap before a range; returns the index of the range it joins."""
        starts, stops = self.starts, self.stops
        joins_last = index > 0 and stops[index - 1] == start
        joins_next = index < len(starts) and starts[index] == stop
        if joins_last and joins_next:
            self._chunks[index - 1] += [piece, *self._chunks[index]]
            stops[index - 1] = stops[index]
            self._drop(index)
            index -= 1
        elif joins_last:
            index -= 1
            self._chunks[index].append(piece)
            stops[index] = stop
        elif joins_next:
            self._chunks[index].insert(0, piece)
            starts[index] = start
        else:
            starts.insert(index, start)
            stops.insert(index, stop)
            self._chunks.insert(index, [piece])
            return index
        chunks = self._chunks[index]
        if len(chunks) > ASSEMBLER_CHUNKS:
            self._chunks[index] = [b"".join(chunks)]
        return index

    def _drop(self, index: int) -> None:
        del self.starts[index], self.stops[index], self._chunks[index]
