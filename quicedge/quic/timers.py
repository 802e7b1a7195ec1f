"""The deadlines of many connections behind one timer."""

from __future__ import annotations

import heapq
from itertools import count

from quicedge.quic.connection import Connection


class Deadlines:
    """A lazy heap: a deadline that moves later costs nothing until it fires.

    A connection has at most one live entry; entries that a nearer one replaced are skipped.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Connection]] = []
        self._armed: dict[Connection, float] = {}
        self._order = count()

    def arm(self, connection: Connection, deadline: float | None) -> None:
        """Make sure that `due` asks about the connection at `deadline` or before."""
        if deadline is None:
            self._armed.pop(connection, None)
            return
        armed = self._armed.get(connection)
        if armed is None or deadline < armed:
            self._armed[connection] = deadline
            heapq.heappush(self._heap, (deadline, next(self._order), connection))

    def discard(self, connection: Connection) -> None:
        self._armed.pop(connection, None)

    def next(self) -> float | None:
        """The earliest deadline, or None."""
        heap = self._heap
        while heap and self._armed.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now: float) -> list[Connection]:
        """Connections whose deadline may have come; each must be armed anew."""
        ready = []
        while (deadline := self.next()) is not None and deadline <= now:
            connection = heapq.heappop(self._heap)[2]
            del self._armed[connection]
            ready.append(connection)
        return ready

    def __len__(self) -> int:
        return len(self._armed)
