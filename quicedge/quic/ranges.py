"""Sets of integers kept as ranges: packet numbers, stream offsets."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Ranges:
    """Disjoint ranges in ascending order, `stop` exclusive, found by bisection."""

    __slots__ = ("starts", "stops")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.stops: list[int] = []

    def add(self, start: int, stop: int) -> None:
        """Add `start` to `stop - 1`, which may touch or overlap what is there."""
        starts, stops = self.starts, self.stops
        if not stops or start > stops[-1]:
            if stop > start:
                starts.append(start)
                stops.append(stop)
            return
        if start >= starts[-1]:
            if stop > stops[-1]:
                stops[-1] = stop
            return
        if stop <= start:
            return
        first = bisect_left(stops, start)
        last = bisect_right(starts, stop)
        if first < last:
            start = min(start, starts[first])
            stop = max(stop, stops[last - 1])
        starts[first:last] = [start]
        stops[first:last] = [stop]

    def subtract(self, start: int, stop: int) -> None:
        """Take `start` to `stop - 1` out."""
        starts, stops = self.starts, self.stops
        first = bisect_right(stops, start)
        last = bisect_left(starts, stop)
        if first >= last or start >= stop:
            return
        kept_starts, kept_stops = [], []
        if starts[first] < start:
            kept_starts.append(starts[first])
            kept_stops.append(start)
        if stops[last - 1] > stop:
            kept_starts.append(stop)
            kept_stops.append(stops[last - 1])
        starts[first:last] = kept_starts
        stops[first:last] = kept_stops

    def pop_first(self) -> tuple[int, int]:
        """Remove and return the lowest range."""
        return self.starts.pop(0), self.stops.pop(0)

    def clear(self) -> None:
        self.starts.clear()
        self.stops.clear()

    def __contains__(self, value: int) -> bool:
        at = bisect_right(self.starts, value)
        return at > 0 and value < self.stops[at - 1]

    def __bool__(self) -> bool:
        return bool(self.starts)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts, self.stops, strict=True)


def covers(ranges: list[tuple[int, int]], older: list[tuple[int, int]]) -> bool:
    """Whether the ranges contain all the older ones; both ascend."""
    (start, stop), (older_start, older_stop) = ranges[-1], older[-1]
    if start <= older_start and stop >= older_stop and ranges[:-1] == older[:-1]:
        return True
    later = iter(ranges)
    start = stop = -1
    for older_start, older_stop in older:
        while stop < older_stop:
            start, stop = next(later, (older_stop, older_stop))
        if start > older_start:
            return False
    return True
