"""Detecting clients that do little but start requests and abandon them."""

from __future__ import annotations

from quicedge.config.limits import ABANDONED_MIN_LIFETIME, ABANDONED_PAGES, ABANDONED_RATE
from quicedge.shares import Standing, WorkBudget


class AbandonedRequests:
    """Rates a connection by the requests that its client made useless.

    Requests that are opened and immediately cancelled evade the limit on concurrent streams, and
    cost the client little but the origin much (CVE-2023-44487); making us reset them is as cheap
    (CVE-2025-8671). They are bounded by rate and by their share of all requests. A request that
    is cancelled after running for a while has occupied a stream slot meanwhile, so the concurrency
    limit already bounds those: a page may cancel any number of them.
    """

    __slots__ = ("_budget",)

    def __init__(self, max_streams: int, now: float) -> None:
        self._budget = WorkBudget(ABANDONED_PAGES * max_streams, ABANDONED_RATE, now)

    def cancelled(self, lifetime: float, now: float) -> Standing:
        """The client cancelled a request before its response, `lifetime` seconds after its head."""
        if lifetime >= ABANDONED_MIN_LIFETIME:
            return Standing.GOOD
        return self._budget.spend(1, now)

    def refused(self, now: float) -> Standing:
        """A request was malformed, or was sent after GOAWAY."""
        return self._budget.spend(1, now)

    def completed(self) -> None:
        """A request was completed."""
        self._budget.earn(1)
