"""Connection states, and retransmission of CONNECTION_CLOSE (RFC 9000 section 10.2)."""

from __future__ import annotations

from enum import Enum
from typing import Any


class State(Enum):
    """State of a connection, in order. Values are those of `telemetry.stats.ConnectionState`."""

    FIRST_FLIGHT = "firstflight"
    CONNECTED = "connected"
    CLOSING = "closing"
    DRAINING = "draining"
    TERMINATED = "terminated"


class ClosingPackets:
    """Repeats CONNECTION_CLOSE in response to datagrams, at a decreasing rate.

    Section 10.2.1 permits sending the same packets again. The 1st, 2nd, 4th, 8th ... datagram is
    answered: a peer that missed the close learns of it, and a flood is not amplified. A peer that
    has just migrated is answered where it is now, with at most three times what it sent.
    """

    __slots__ = ("_datagrams", "_received", "_room", "_stray", "due")

    def __init__(self, datagrams: list[bytes]) -> None:
        self._datagrams = datagrams
        self._received = 0
        self._stray: Any = None
        self._room = 0
        self.due = False

    def receive(self, stray: Any = None, size: int = 0) -> None:
        """A datagram arrived, of `size` bytes from another address if it is `stray`."""
        self._received += 1
        if self._received.bit_count() == 1:
            self.due, self._stray, self._room = True, stray, 3 * size

    def take(self) -> tuple[list[bytes], Any]:
        """Datagrams to send now, and the address; None is the active path's."""
        if not self.due:
            return [], None
        self.due = False
        if self._stray is None:
            return self._datagrams, None
        fitting: list[bytes] = []
        for data in self._datagrams:
            self._room -= len(data)
            if self._room >= 0:
                fitting.append(data)
        return fitting, self._stray
