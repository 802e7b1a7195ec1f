"""The deadlines of many connections, multiplexed onto one timer."""

from __future__ import annotations

import heapq
from itertools import count
from math import inf
from typing import Any

from quicedge.config.limits import STALE_DEADLINES, TIMER_SLACK
from quicedge.quic.connection import Connection

_CONNECTION = 2
"""Index of the connection in a heap entry (deadline, order, connection)."""


class Deadlines:
    """A heap of deadlines, of which most are moved or dropped before they fire.

    One that moves later by less than `TIMER_SLACK` keeps its entry, so that the steps of a transfer
    cost nothing; one that moves further gets a new one, so that nothing wakes up for it in vain.
    A connection has at most one live entry. An entry that an earlier deadline replaced, or whose
    connection ended, drops its reference to the connection at once and is skipped when it is due.
    """

    def __init__(self) -> None:
        self._heap: list[list[Any]] = []
        self._armed: dict[Connection, list[Any]] = {}
        self._order = count()

    def arm(self, connection: Connection, deadline: float | None) -> None:
        """Make `due` return the connection at `deadline` or a little before."""
        if deadline is None:
            self.discard(connection)
            return
        armed = self._armed.get(connection)
        if armed is not None:
            if armed[0] <= deadline < armed[0] + TIMER_SLACK:
                return
            armed[_CONNECTION] = None
        entry = self._armed[connection] = [deadline, next(self._order), connection]
        heapq.heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._armed) + STALE_DEADLINES:
            self._sweep()

    def of(self, connection: Connection) -> float | None:
        """When `due` returns the connection, if at all."""
        armed = self._armed.get(connection)
        return None if armed is None else armed[0]

    def discard(self, connection: Connection) -> None:
        entry = self._armed.pop(connection, None)
        if entry is not None:
            entry[_CONNECTION] = None
            if len(self._heap) > 2 * len(self._armed) + STALE_DEADLINES:
                self._sweep()

    def _sweep(self) -> None:
        """Drop the entries that were replaced, once they are the majority."""
        self._heap = [entry for entry in self._heap if entry[_CONNECTION] is not None]
        heapq.heapify(self._heap)

    def next(self) -> float:
        """The earliest deadline; infinite: there is none."""
        heap = self._heap
        while heap and heap[0][_CONNECTION] is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else inf

    def due(self, now: float) -> list[Connection]:
        """Connections whose deadline may have passed; each must be armed again."""
        ready = []
        while self.next() <= now:
            connection = heapq.heappop(self._heap)[_CONNECTION]
            del self._armed[connection]
            ready.append(connection)
        return ready

    def __len__(self) -> int:
        return len(self._armed)
