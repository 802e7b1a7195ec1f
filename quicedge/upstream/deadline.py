"""A deadline that is moved often and fires rarely."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quicedge.config import limits


def _cancelled() -> None:
    """The callback after `cancel`."""


class Deadline:
    """Calls `expired` when the time given to `set` has passed without another `set` or `clear`.

    Moving it later does not touch the timer, which checks again when it fires. After `cancel` it
    must not be used any more.
    """

    __slots__ = ("_armed", "_at", "_expired", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at: float | None = None
        self._armed = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Fire `seconds` from now; replaces an earlier deadline."""
        self._at = at = self._loop.time() + seconds
        if self._handle is None:
            self._arm(at)
        elif at < self._armed:
            self._handle.cancel()
            self._arm(at)

    def clear(self) -> None:
        """Do not fire; a running timer will do nothing."""
        self._at = None

    def cancel(self) -> None:
        """Stop permanently: cancel the timer and drop the reference to the callback."""
        self._at = None
        self._expired = _cancelled
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
        # Event loops may fire up to one clock tick early.
        if self._loop.time() + 0.001 < self._at:
            self._arm(self._at)
            return
        self._at = None
        self._expired()


class DeadlinePool:
    """Deadlines for requests, which mostly end before theirs: one timer serves many in turn.

    Each must be given back, and not be used afterwards.
    """

    __slots__ = ("_free", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._free: list[Deadline] = []

    def take(self, expired: Callable[[], None]) -> Deadline:
        """A deadline that is not set."""
        if not self._free:
            return Deadline(self._loop, expired)
        deadline = self._free.pop()
        deadline._expired = expired
        return deadline

    def give_back(self, deadline: Deadline) -> None:
        """It will not be used any more."""
        if len(self._free) < limits.UPSTREAM_SPARE_DEADLINES:
            # A running timer is left to whom it serves next.
            deadline._at = None
            deadline._expired = _cancelled
            self._free.append(deadline)
        else:
            deadline.cancel()
