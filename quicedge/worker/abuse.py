"""Whether a client does little but begin requests and abandon them."""

from __future__ import annotations

from quicedge.config.limits import ABANDONED_MIN_LIFETIME, ABANDONED_PAGES, ABANDONED_RATE
from quicedge.shares import Standing, WorkBudget


class AbandonedRequests:
    """Judges a connection by its requests that came to nothing by the client's doing.

    Requests that are opened and cancelled at once are bounded by no limit of concurrent streams,
    cost a client little and the origin much (CVE-2023-44487); making us reset them costs it no
    more (CVE-2025-8671). So these are bounded by rate and by their share of all requests. One that
    was given up after it had run for a while held its place among the concurrent streams: a page
    may drop as many of those as it likes.
    """

    __slots__ = ("_budget",)

    def __init__(self, max_streams: int, now: float) -> None:
        self._budget = WorkBudget(ABANDONED_PAGES * max_streams, ABANDONED_RATE, now)

    def cancelled(self, lifetime: float, now: float) -> Standing:
        """The client gave a request up before its response, `lifetime` seconds after its head."""
        if lifetime >= ABANDONED_MIN_LIFETIME:
            return Standing.GOOD
        return self._budget.spend(1, now)

    def refused(self, now: float) -> Standing:
        """A request was malformed, or came after GOAWAY."""
        return self._budget.spend(1, now)

    def completed(self) -> None:
        """A request had its response."""
        self._budget.earn(1)
