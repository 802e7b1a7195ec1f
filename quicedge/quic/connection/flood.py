"""Flood protection: bounds on received bytes that are not stream data.

Every frame costs CPU time. Frames without stream data (PING, PATH_CHALLENGE, NEW_CONNECTION_ID,
MAX_DATA, empty STREAM frames, ...) are bounded by rate and by their share of useful work.
"""

from __future__ import annotations

from quicedge.config.limits import FLOOD_BURST, FLOOD_CHECK_EVERY, FLOOD_RATE, FLOOD_SHARE
from quicedge.quic.connection.stats import ConnectionCounters
from quicedge.shares import Standing, WorkBudget


class FloodGuard:
    """Classifies a peer by its overhead. Call `assess` once `check_at` bytes are received."""

    __slots__ = ("_budget", "_counters", "_seen", "check_at")

    def __init__(self, counters: ConnectionCounters, now: float) -> None:
        self._counters = counters
        self._budget = WorkBudget(FLOOD_BURST, FLOOD_RATE, now)
        self._seen = 0
        """Overhead up to the last check, in bytes; negative if stream data outweighs it."""
        self.check_at = FLOOD_CHECK_EVERY
        """Received bytes at which `assess` is to be called next."""

    def assess(self, stream_bytes: int, now: float) -> Standing:
        """Account for bytes received since the last check; `stream_bytes` is the total so far.

        Forged and replayed datagrams do not count, as the peer did not send them.
        """
        counters = self._counters
        self.check_at = counters.bytes_received + FLOOD_CHECK_EVERY
        overhead = counters.bytes_received - counters.bytes_dropped - FLOOD_SHARE * stream_bytes
        spent, self._seen = overhead - self._seen, overhead
        if spent < 0:
            self._budget.earn(-spent)
        return self._budget.spend(max(spent, 0), now)
