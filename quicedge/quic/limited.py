"""What held a connection's sending back, and for how long."""

from __future__ import annotations

APPLICATION = "application"
CONGESTION = "congestion_control"
CONNECTION = "connection_flow_control"
STREAM = "stream_flow_control"
"""Reasons, by the names of qlog's `BlockedReason`."""


class LimitClock:
    """Seconds spent in each of the states above; a connection starts with nothing to send."""

    __slots__ = ("_since", "_spent", "reason")

    def __init__(self) -> None:
        self.reason = APPLICATION
        self._since: float | None = None
        self._spent: dict[str, float] | None = None

    def turn(self, reason: str, now: float) -> None:
        """From `now` on, this is what limits."""
        if self._since is None:
            self._since = now
        if reason != self.reason:
            if self._spent is None:
                self._spent = {}
            self._spent[self.reason] = self.spent(self.reason, now)
            self._since = now
            self.reason = reason

    def spent(self, reason: str, now: float) -> float:
        """Seconds limited by `reason` until `now`."""
        total = self._spent.get(reason, 0.0) if self._spent is not None else 0.0
        if reason == self.reason and self._since is not None:
            total += max(now - self._since, 0.0)
        return total
