"""Bytes that arrive in any order, put back in order.

Memory follows what has arrived, not where: a byte at the far end of a window takes what one byte
takes. The number of gaps is bounded, per stream and per connection, and a gap is found by
bisection, so a peer that sends every other byte costs no more than one that sends them all.
"""

from __future__ import annotations

from bisect import bisect_right

from quicedge.config.limits import ASSEMBLER_CHUNKS


class TooManyGaps(Exception):
    """More pieces wait for what is before them than are kept."""


class GapBudget:
    """Gaps that the streams of one connection may have between them."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        self.held = 0
        self.limit = limit


class Assembler:
    """One direction of one stream, read as it becomes contiguous.

    `max_gaps`: pieces that may wait for what is before them. `budget` bounds those of several
    streams together.
    """

    __slots__ = ("_budget", "_chunks", "_max_gaps", "_starts", "_stops", "start")

    def __init__(self, max_gaps: int, budget: GapBudget | None = None) -> None:
        self.start = 0
        """Offset of the next byte to be read; all below it were."""
        self._max_gaps = max_gaps
        self._budget = budget
        # What waits: ranges in ascending order that do not touch, and what each is made of.
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._chunks: list[list[bytes]] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits for a gap to be filled."""
        return not self._starts

    @property
    def gaps(self) -> int:
        """Pieces that wait for what is before them."""
        return len(self._starts)

    @property
    def held(self) -> int:
        """Bytes that wait."""
        return sum(self._stops) - sum(self._starts)

    def insert(self, offset: int, data: bytes) -> bytes:
        """Take data and return what can be read now; raises TooManyGaps."""
        end = offset + len(data)
        if end <= self.start or not data:
            return b""
        if offset < self.start:
            data = data[self.start - offset :]
            offset = self.start
        if not self._starts:
            if offset == self.start:
                self.start = end
                return data
            self._new_range(0, offset, end, data)
            return b""
        self._fill(offset, end, data)
        if self._starts[0] != self.start:
            return b""
        chunks = self._chunks[0]
        self.start = self._stops[0]
        self._drop_range(0)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def clear(self) -> None:
        """Forget what waits: it will not be read any more."""
        while self._starts:
            self._drop_range(len(self._starts) - 1)

    def _fill(self, offset: int, end: int, data: bytes) -> None:
        """Put what of some data is new into the gaps that it covers."""
        starts, stops = self._starts, self._stops
        at = offset
        index = bisect_right(stops, at)
        while at < end:
            before = starts[index] if index < len(starts) else end
            if at < before:
                until = min(before, end)
                index = self._put(index, at, until, data[at - offset : until - offset])
            at = stops[index]
            index += 1

    def _put(self, index: int, start: int, stop: int, piece: bytes) -> int:
        """Put a piece into the gap before a range; returns the index of the range it is in."""
        starts, stops = self._starts, self._stops
        joins_last = index > 0 and stops[index - 1] == start
        joins_next = index < len(starts) and starts[index] == stop
        if joins_last and joins_next:
            self._chunks[index - 1] += [piece, *self._chunks[index]]
            stops[index - 1] = stops[index]
            self._drop_range(index)
            index -= 1
        elif joins_last:
            index -= 1
            self._chunks[index].append(piece)
            stops[index] = stop
        elif joins_next:
            self._chunks[index].insert(0, piece)
            starts[index] = start
        else:
            self._new_range(index, start, stop, piece)
            return index
        chunks = self._chunks[index]
        if len(chunks) > ASSEMBLER_CHUNKS:
            self._chunks[index] = [b"".join(chunks)]
        return index

    def _new_range(self, index: int, start: int, stop: int, piece: bytes) -> None:
        budget = self._budget
        full = len(self._starts) >= self._max_gaps
        full |= budget is not None and budget.held >= budget.limit
        # What begins where reading goes on is no gap: it is read at once.
        if full and start != self.start:
            raise TooManyGaps
        if budget is not None:
            budget.held += 1
        self._starts.insert(index, start)
        self._stops.insert(index, stop)
        self._chunks.insert(index, [piece])

    def _drop_range(self, index: int) -> None:
        if self._budget is not None:
            self._budget.held -= 1
        del self._starts[index], self._stops[index], self._chunks[index]
