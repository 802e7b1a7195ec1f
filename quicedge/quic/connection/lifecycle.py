"""Connection state and termination (RFC 9000 section 10.2).

Closing after a local close, draining after one by the peer, finally terminated.
"""

from __future__ import annotations

from typing import Any

from quicedge.quic.connection.closing import ClosingPackets, State
from quicedge.quic.ending import Ending
from quicedge.quic.errors import TransportError
from quicedge.quic.events import ConnectionTerminated


class Lifecycle:
    """State, and the reason for termination once known.

    Invariants: states only advance; the first reason is kept. A local close is `close`, then
    `begin_closing` once CONNECTION_CLOSE is built; `terminate` follows at `deadline` at the latest.
    """

    __slots__ = ("_packets", "deadline", "ending", "event", "is_close_due", "state")

    def __init__(self) -> None:
        self.state = State.FIRST_FLIGHT
        self.event: ConnectionTerminated | None = None
        self.ending: Ending | None = None
        self.is_close_due = False
        """Whether CONNECTION_CLOSE has yet to be sent."""
        self.deadline: float | None = None
        """When closing or draining ends."""
        self._packets: ClosingPackets | None = None

    @property
    def is_alive(self) -> bool:
        """Neither closing, draining nor terminated."""
        return self.event is None

    def close(self, event: ConnectionTerminated) -> None:
        """Close locally; CONNECTION_CLOSE is sent next."""
        if self.event is None:
            self.event, self.ending = event, Ending.LOCAL_CLOSE
            self.is_close_due = True

    def close_for(self, error: TransportError) -> None:
        """Close because the peer violated the protocol."""
        self.close(
            ConnectionTerminated(
                error_code=error.code, frame_type=error.frame_type, reason_phrase=error.reason
            )
        )

    def begin_closing(self, datagrams: list[bytes], deadline: float) -> None:
        """CONNECTION_CLOSE is being sent; keep its datagrams for retransmission."""
        self.is_close_due = False
        self.state = State.CLOSING
        self.deadline = deadline
        self._packets = ClosingPackets(datagrams)

    def receive_late(self, stray: Any = None, size: int = 0) -> None:
        """A datagram arrived after the close; `stray`, `size`: from another address, its bytes."""
        if self._packets is not None:
            self._packets.receive(stray, size)

    def take_closing(self) -> tuple[list[bytes], Any]:
        """Datagrams with CONNECTION_CLOSE to send again, if due, and the address to send them to;
        None is the active path's."""
        return self._packets.take() if self._packets is not None else ([], None)

    def drain(self, event: ConnectionTerminated, ending: Ending, deadline: float) -> None:
        """The peer closed the connection (section 10.2.2)."""
        if self.event is None:
            self.event, self.ending = event, ending
            self.state = State.DRAINING
            self.deadline = deadline

    def terminate(self, event: ConnectionTerminated, ending: Ending) -> ConnectionTerminated:
        """Terminate immediately; returns the effective close event."""
        if self.event is None:
            self.event, self.ending = event, ending
        self.state = State.TERMINATED
        self.is_close_due = False
        self.deadline = None
        self._packets = None
        return self.event
