"""Whether a client does little but begin requests and break them off."""

from __future__ import annotations

from quicedge.config.limits import ABUSE_FORGIVEN_PER_SECOND, MAX_ABUSE_SCORE


class AbuseScore:
    """Requests that came to nothing by the client's doing, less those completed and forgiven.

    Opening and breaking off streams costs a client little and the origin much (CVE-2023-44487);
    making us reset them costs it no more (CVE-2025-8671). Whoever leaves a page breaks off all its
    requests at once, so the score may go above the number of streams before it counts as abuse.
    """

    __slots__ = ("_score", "_updated")

    def __init__(self) -> None:
        self._score = 0.0
        self._updated = 0.0

    def broken_off(self, now: float) -> bool:
        """One more; returns whether that is too many."""
        forgiven = (now - self._updated) * ABUSE_FORGIVEN_PER_SECOND
        self._score = max(self._score - forgiven, 0.0) + 1
        self._updated = now
        return self._score > MAX_ABUSE_SCORE

    def completed(self) -> None:
        """A request had its response."""
        self._score = max(self._score - 1, 0.0)
