"""Time series and distributions in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

from quicedge.config.tracelimits import QLOG_SERIES_POINTS

_FINEST = 0.25
"""Initial milliseconds per bucket."""


class _Folding:
    """Buckets of equal width over time; neighbours are merged when there are too many."""

    def __init__(self, limit: int = QLOG_SERIES_POINTS) -> None:
        self.width = _FINEST
        self._limit = limit

    def _slot(self, time: float) -> int:
        return int(max(0.0, time) / self.width)


class Series(_Folding):
    """A value over time: minimum, maximum and last value per bucket."""

    def __init__(self, limit: int = QLOG_SERIES_POINTS) -> None:
        super().__init__(limit)
        self._buckets: dict[int, tuple[float, float, float]] = {}

    def add(self, time: float, value: float) -> None:
        """The value became `value` at `time` (ms)."""
        slot = self._slot(time)
        old = self._buckets.get(slot)
        if old is None:
            self._buckets[slot] = (value, value, value)
            while len(self._buckets) > self._limit:
                self._fold()
        else:
            self._buckets[slot] = (min(old[0], value), max(old[1], value), value)

    def _fold(self) -> None:
        self.width *= 2
        folded: dict[int, tuple[float, float, float]] = {}
        for slot in sorted(self._buckets):
            low, high, last = self._buckets[slot]
            old = folded.get(slot // 2)
            folded[slot // 2] = (
                (low, high, last) if old is None else (min(old[0], low), max(old[1], high), last)
            )
        self._buckets = folded

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def points(self) -> list[tuple[float, float, float, float]]:
        """`(time, minimum, maximum, last)` of each non-empty bucket, in order of time."""
        return [(slot * self.width, *self._buckets[slot]) for slot in sorted(self._buckets)]


class Sums(_Folding):
    """Amounts over time by kind: bytes, losses, milliseconds spent in a state."""

    def __init__(self, limit: int = QLOG_SERIES_POINTS) -> None:
        super().__init__(limit)
        self._buckets: dict[int, dict[str, float]] = {}
        self.totals: dict[str, float] = {}

    def add(self, time: float, amount: float, kind: str = "") -> None:
        """Add an amount at one instant."""
        self.totals[kind] = self.totals.get(kind, 0.0) + amount
        self._put(self._slot(time), amount, kind)

    def spread(self, start: float, end: float, kind: str) -> None:
        """Add the milliseconds from `start` to `end`, spread over their buckets."""
        if end <= start:
            return
        self.totals[kind] = self.totals.get(kind, 0.0) + end - start
        while (end - start) / self.width > self._limit / 2:
            self._fold()
        while start < end:
            slot = self._slot(start)
            edge = min(end, (slot + 1) * self.width)
            if edge <= start:  # rounding at the edge of a bucket
                slot += 1
                edge = min(end, (slot + 1) * self.width)
            self._put(slot, edge - start, kind)
            start = edge

    def _put(self, slot: int, amount: float, kind: str) -> None:
        bucket = self._buckets.get(slot)
        if bucket is None:
            self._buckets[slot] = {kind: amount}
            while len(self._buckets) > self._limit:
                self._fold()
        else:
            bucket[kind] = bucket.get(kind, 0.0) + amount

    def _fold(self) -> None:
        self.width *= 2
        folded: dict[int, dict[str, float]] = {}
        for slot, bucket in self._buckets.items():
            into = folded.setdefault(slot // 2, {})
            for kind, amount in bucket.items():
                into[kind] = into.get(kind, 0.0) + amount
        self._buckets = folded

    def __iter__(self) -> Iterator[tuple[float, dict[str, float]]]:
        """`(time, amounts by kind)` of each non-empty bucket, in order of time."""
        for slot in sorted(self._buckets):
            yield slot * self.width, self._buckets[slot]


class Quantiles:
    """The distribution of positive values, accurate to 2 %."""

    _STEP = math.log(1.02)

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.total = 0.0
        self.least = math.inf
        self.greatest = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.greatest = max(self.greatest, value)
        # From a nanosecond to a year in milliseconds: about 2000 buckets at most.
        slot = round(math.log(min(max(value, 1e-6), 1e11)) / self._STEP)
        self._counts[slot] = self._counts.get(slot, 0) + 1

    def quantile(self, share: float) -> float | None:
        """The quantile `share` (0 to 1); None if there are no values."""
        if not self.count:
            return None
        wanted = share * self.count
        seen = 0
        for slot in sorted(self._counts):
            seen += self._counts[slot]
            if seen >= wanted:
                return min(max(math.exp(slot * self._STEP), self.least), self.greatest)
        return self.greatest
