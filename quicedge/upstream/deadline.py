"""A deadline that moves often and fires seldom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `expired` once `set`'s seconds have passed without another `set` or `clear`.

    Moving it later costs no timer: the one that runs looks again when it fires.
    """

    __slots__ = ("_at", "_expired", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at: float | None = None
        self._handle: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        self._at = at = self._loop.time() + seconds
        if self._handle is not None and self._handle.when() > at:
            self._handle.cancel()
            self._handle = None
        if self._handle is None:
            self._handle = self._loop.call_at(at, self._fire)

    def clear(self) -> None:
        """Stop waiting; the timer, if any, finds nothing to do."""
        self._at = None

    def cancel(self) -> None:
        """Stop for good."""
        self._at = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        if self._at is None:
            return
        if self._loop.time() + 1e-4 < self._at:
            self._handle = self._loop.call_at(self._at, self._fire)
            return
        self._at = None
        self._expired()
