"""What a peer may do without use over the life of a connection: a rate and a share of its work."""

from __future__ import annotations

from enum import Enum, auto


class Standing(Enum):
    """How a peer stands after one more expense of its `WorkBudget`."""

    GOOD = auto()
    EXHAUSTED = auto()
    """More than useful work earns: take nothing new from this peer, let finish what runs."""
    HOSTILE = auto()
    """Overdrawn by a whole burst: no honest peer goes on like this. End the connection now."""


class WorkBudget:
    """A token bucket that useful work fills too.

    Holds at most `burst`, gains `rate` per second and whatever `earn` adds, and may be overdrawn
    by another `burst`. An honest peer that lives long meets no limit, for nothing here counts over
    a connection's life. Time is a parameter, in seconds.
    """

    __slots__ = ("_burst", "_left", "_rate", "_updated")

    def __init__(self, burst: float, rate: float, now: float) -> None:
        self._burst = self._left = float(burst)
        self._rate = rate
        self._updated = now

    def earn(self, amount: float) -> None:
        """The peer did useful work."""
        self._left = min(self._left + amount, self._burst)

    def spend(self, amount: float, now: float) -> Standing:
        """The peer did something that has no use in itself."""
        self.earn((now - self._updated) * self._rate)
        self._updated = now
        self._left -= amount
        if self._left >= 0:
            return Standing.GOOD
        return Standing.EXHAUSTED if self._left >= -self._burst else Standing.HOSTILE
