"""A deadline that moves often and fires seldom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def _nobody() -> None:
    """Stands for whoever is not to be told any more."""


class Deadline:
    """Calls `expired` once the seconds of `set` have passed without another `set` or `clear`.

    Moving it later costs no timer: the one that runs looks again when it fires.
    """

    __slots__ = ("_armed", "_at", "_expired", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at: float | None = None
        self._armed = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Fire `seconds` from now, unless told otherwise."""
        self._at = at = self._loop.time() + seconds
        if self._handle is None:
            self._arm(at)
        elif at < self._armed:
            self._handle.cancel()
            self._arm(at)

    def clear(self) -> None:
        """Do not fire; the timer, if any, finds nothing to do."""
        self._at = None

    def cancel(self) -> None:
        """Stop for good: no timer is left behind, and nothing of whoever would have been told."""
        self._at = None
        self._expired = _nobody
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, at: float) -> None:
        self._armed = at
        self._handle = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._handle = None
        if self._at is None:
            return
        # Loops may fire up to a clock tick early.
        if self._loop.time() + 0.001 < self._at:
            self._arm(self._at)
            return
        self._at = None
        self._expired()
