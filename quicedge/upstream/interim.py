"""How many interim responses an origin may send: so many at once, and a rate beyond them.

RFC 9110 section 15.2 sets no number: an origin that works for an hour may say so (102, 103) as
often as it likes. What costs is how fast they come.
"""

from __future__ import annotations

from quicedge.config import limits


class InterimRate:
    """Those of one request. Times are seconds of any steady clock."""

    __slots__ = ("_at", "_left")

    def __init__(self) -> None:
        self._left = float(limits.UPSTREAM_INTERIM_BURST)
        self._at: float | None = None

    def allow(self, now: float) -> bool:
        """Whether one more is within the rate."""
        if self._at is not None:
            gained = (now - self._at) * limits.UPSTREAM_INTERIM_RATE
            self._left = min(self._left + gained, limits.UPSTREAM_INTERIM_BURST)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
