"""A rate limit on interim responses from an origin.

RFC 9110 section 15.2 does not limit their number: an origin that works for an hour may report
progress (102, 103) any number of times. Only the rate is a cost.
"""

from __future__ import annotations

from quicedge.config import limits


class InterimRate:
    """The interim responses of one request. Times are seconds of any monotonic clock."""

    __slots__ = ("_at", "_left")

    def __init__(self) -> None:
        self._left = float(limits.UPSTREAM_INTERIM_BURST)
        self._at: float | None = None

    def allow(self, now: float) -> bool:
        """Count one response; returns whether it is within the rate."""
        if self._at is not None:
            gained = (now - self._at) * limits.UPSTREAM_INTERIM_RATE
            self._left = min(self._left + gained, limits.UPSTREAM_INTERIM_BURST)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
