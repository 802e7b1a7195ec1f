"""Overhead that a peer may cause over the life of a connection: a rate plus a share of its work."""

from __future__ import annotations

from enum import Enum, auto


class Standing(Enum):
    """Where a peer stands after spending from its `WorkBudget`."""

    GOOD = auto()
    EXHAUSTED = auto()
    """Overdrawn: accept nothing new from this peer, let running work finish."""
    HOSTILE = auto()
    """Overdrawn by an entire burst despite that: close the connection now."""


class WorkBudget:
    """A token bucket that useful work refills as well as time.

    Holds at most `burst` tokens, gains `rate` per second plus what `earn` adds, and may be
    overdrawn by another `burst`. Nothing accumulates over a connection's lifetime, so there is no
    limit to the lifetime of an honest peer. Time is a parameter, in seconds.
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
        """The peer caused work that serves no purpose."""
        self.earn((now - self._updated) * self._rate)
        self._updated = now
        self._left -= amount
        if self._left >= 0:
            return Standing.GOOD
        return Standing.EXHAUSTED if self._left >= -self._burst else Standing.HOSTILE
