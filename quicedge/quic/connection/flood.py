"""How much of what arrives may be anything but stream data.

Every frame costs us something. Those that carry no stream data (PING, PATH_CHALLENGE,
NEW_CONNECTION_ID, MAX_DATA, empty STREAM frames, ...) are bounded by rate and by share.
"""

from __future__ import annotations

from quicedge.config.limits import FLOOD_BURST, FLOOD_CHECK_EVERY, FLOOD_RATE, FLOOD_SHARE
from quicedge.quic.connection.stats import ConnectionCounters
from quicedge.shares import Standing, WorkBudget


class FloodGuard:
    """Judges a peer by the overhead that it causes."""

    __slots__ = ("_budget", "_counters", "_seen", "check_at")

    def __init__(self, counters: ConnectionCounters, now: float) -> None:
        self._counters = counters
        self._budget = WorkBudget(FLOOD_BURST, FLOOD_RATE, now)
        self._seen = 0
        """Overhead up to the last look, in bytes; negative where streams carried more."""
        self.check_at = FLOOD_CHECK_EVERY
        """Bytes received from which `judge` should be called again."""

    def judge(self, stream_bytes: int, now: float) -> Standing:
        """Account for what came since the last look, with what streams carried so far.

        Forged and replayed datagrams do not count: the peer did not send them.
        """
        counters = self._counters
        self.check_at = counters.bytes_received + FLOOD_CHECK_EVERY
        overhead = counters.bytes_received - counters.bytes_dropped - FLOOD_SHARE * stream_bytes
        spent, self._seen = overhead - self._seen, overhead
        if spent < 0:
            self._budget.earn(-spent)
        return self._budget.spend(max(spent, 0), now)
