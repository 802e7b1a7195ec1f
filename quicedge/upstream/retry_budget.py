"""How many requests of an upstream may be retried."""

from __future__ import annotations

from quicedge.config.limits import RETRY_BUDGET_BURST


class RetryBudget:
    """Retries are a share of the requests, with a burst: an upstream that is failing as a whole
    gets little more than what clients send, and is not held down by retries.
    """

    __slots__ = ("_left", "_share")

    def __init__(self, share: float) -> None:
        self._share = share
        self._left = float(RETRY_BUDGET_BURST)

    def request(self) -> None:
        """A request has begun."""
        left = self._left + self._share
        self._left = left if left < RETRY_BUDGET_BURST else float(RETRY_BUDGET_BURST)

    def take(self) -> bool:
        """Whether a request may be retried; that retry is counted."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
