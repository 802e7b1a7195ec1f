"""What is counted of a connection."""

from __future__ import annotations

from collections import Counter

from quicedge.quic.connection.drops import DropReason
from quicedge.quic.ecn import CE, ECT_0, ECT_1


class ConnectionCounters:
    """Packets and bytes, both ways. Bytes are UDP payload."""

    __slots__ = (
        "bytes_dropped", "bytes_received", "bytes_sent", "ecn_ce_reported", "ecn_received",
        "frames_received", "migrations", "packets_dropped", "packets_received",
        "packets_reordered", "packets_sent", "received_at",
    )  # fmt: skip

    def __init__(self) -> None:
        self.packets_sent = 0
        self.packets_received = 0
        self.frames_received = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.bytes_dropped = 0
        """Of those, the bytes of datagrams that held nothing new: anybody may send them."""
        self.packets_dropped: Counter[DropReason] = Counter()
        """Datagrams that held nothing new, by reason (qlog's triggers)."""
        self.packets_reordered = 0
        """1-RTT packets that came after one with a higher number."""
        self.received_at: float | None = None
        """When the last datagram came that held something."""
        self.migrations = 0
        self.ecn_received = 0, 0, 0
        """Packets that came marked ECT(0), ECT(1) and CE."""
        self.ecn_ce_reported = 0
        """Packets of ours that the peer saw marked CE."""

    def note_marked(self, codepoint: int, packets: int) -> None:
        """Packets were processed that came with this ECN codepoint."""
        ect0, ect1, ce = self.ecn_received
        self.ecn_received = (
            ect0 + packets * (codepoint == ECT_0),
            ect1 + packets * (codepoint == ECT_1),
            ce + packets * (codepoint == CE),
        )
