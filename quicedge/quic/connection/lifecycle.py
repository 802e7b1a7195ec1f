"""Where a connection is in its life, and how it ends (RFC 9000 section 10.2).

Closing when we say so, draining when the peer does, terminated in the end.
"""

from __future__ import annotations

from quicedge.quic.connection.closing import ClosingPackets, State
from quicedge.quic.ending import Ending
from quicedge.quic.events import ConnectionTerminated


class Lifecycle:
    """The state, and from the moment that the end is known, why the connection ends."""

    __slots__ = ("_packets", "deadline", "ending", "event", "is_close_due", "state")

    def __init__(self) -> None:
        self.state = State.FIRST_FLIGHT
        self.event: ConnectionTerminated | None = None
        self.ending: Ending | None = None
        self.is_close_due = False
        """CONNECTION_CLOSE is to be sent for the first time."""
        self.deadline: float | None = None
        """When closing or draining is over."""
        self._packets: ClosingPackets | None = None

    @property
    def is_alive(self) -> bool:
        """Neither closing, draining nor terminated."""
        return self.event is None

    def close(self, event: ConnectionTerminated) -> None:
        """We end the connection, and will say so."""
        if self.event is None:
            self.event, self.ending = event, Ending.LOCAL_CLOSE
            self.is_close_due = True

    def begin_closing(self, datagrams: list[bytes], deadline: float) -> None:
        """CONNECTION_CLOSE is sent: these datagrams, once more for what still comes."""
        self.is_close_due = False
        self.state = State.CLOSING
        self.deadline = deadline
        self._packets = ClosingPackets(datagrams)

    def receive_late(self) -> None:
        """A datagram came after the end."""
        if self._packets is not None:
            self._packets.receive()

    def take_closing(self) -> list[bytes]:
        """Datagrams with CONNECTION_CLOSE that are due once more."""
        return self._packets.take() if self._packets is not None else []

    def drain(self, event: ConnectionTerminated, ending: Ending, deadline: float) -> None:
        """The peer says that the connection is over (section 10.2.2)."""
        if self.event is None:
            self.event, self.ending = event, ending
            self.state = State.DRAINING
            self.deadline = deadline

    def terminate(self, event: ConnectionTerminated, ending: Ending) -> ConnectionTerminated:
        """The end, at once; returns why: the first reason counts."""
        if self.event is None:
            self.event, self.ending = event, ending
        self.state = State.TERMINATED
        self.is_close_due = False
        self.deadline = None
        self._packets = None
        return self.event
