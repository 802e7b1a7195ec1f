"""Rates, as token buckets: one for all, or one per client or network."""

from __future__ import annotations

from collections import OrderedDict

from quicedge.config.limits import MAX_PREFIX_RATES


class RateLimit:
    """A token bucket: `rate` actions per second, `burst` at once (default: one second's worth)."""

    __slots__ = ("_burst", "_level", "_rate", "_updated")

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = self._level = max(rate if burst is None else burst, 1.0)
        self._updated = 0.0

    def allow(self, now: float) -> bool:
        self._level = min(self._burst, self._level + (now - self._updated) * self._rate)
        self._updated = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


class RateTable:
    """A token bucket per key, for the `MAX_PREFIX_RATES` keys seen last. None: no limit."""

    __slots__ = ("_buckets", "_burst", "_rate")

    def __init__(self, rate: float | None, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[bytes, RateLimit] = OrderedDict()

    def allow(self, key: bytes, now: float) -> bool:
        if self._rate is None:
            return True
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = RateLimit(self._rate, self._burst)
            if len(self._buckets) > MAX_PREFIX_RATES:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket.allow(now)
