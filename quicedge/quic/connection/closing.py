"""How a connection ends (RFC 9000 section 10.2): closing when we say so, draining when the peer
does."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Of a connection's life; the values are what operators read."""

    FIRST_FLIGHT = "firstflight"
    CONNECTED = "connected"
    CLOSING = "closing"
    DRAINING = "draining"
    TERMINATED = "terminated"


class ClosingPackets:
    """CONNECTION_CLOSE once more for what still comes, at a falling rate.

    Section 10.2.1 lets us send the same packets again. The 1st, 2nd, 4th, 8th ... datagram that
    comes is answered: a peer that has not heard it learns of it, and a flood gains nothing.
    """

    __slots__ = ("_datagrams", "_received", "due")

    def __init__(self, datagrams: list[bytes]) -> None:
        self._datagrams = datagrams
        self._received = 0
        self.due = False

    def receive(self) -> None:
        """A datagram came."""
        self._received += 1
        self.due |= self._received.bit_count() == 1

    def take(self) -> list[bytes]:
        """What is to be sent now."""
        due, self.due = self.due, False
        return self._datagrams if due else []
