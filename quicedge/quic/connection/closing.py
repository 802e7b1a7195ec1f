"""Connection states, and retransmission of CONNECTION_CLOSE (RFC 9000 section 10.2)."""

from __future__ import annotations

from enum import Enum


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
    answered: a peer that missed the close learns of it, and a flood is not amplified.
    """

    __slots__ = ("_datagrams", "_received", "due")

    def __init__(self, datagrams: list[bytes]) -> None:
        self._datagrams = datagrams
        self._received = 0
        self.due = False

    def receive(self) -> None:
        """A datagram arrived."""
        self._received += 1
        self.due |= self._received.bit_count() == 1

    def take(self) -> list[bytes]:
        """Datagrams to send now."""
        due, self.due = self.due, False
        return self._datagrams if due else []
