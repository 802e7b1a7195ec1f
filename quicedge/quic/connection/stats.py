"""Counters of a connection."""

from __future__ import annotations

from collections import Counter

from quicedge.quic.connection.drops import DropReason
from quicedge.quic.ecn import ECN_INDEX


class ConnectionCounters:
    """Packets and bytes in both directions. Bytes are UDP payload.

    Counters only increase; the parts that send and receive update them.
    """

    __slots__ = (
        "bytes_dropped", "bytes_received", "bytes_sent", "datagrams_deferred", "ecn_ce_reported",
        "ecn_received", "frames_received", "migrations", "packets_dropped", "packets_received",
        "packets_reordered", "packets_sent", "received_at",
    )  # fmt: skip

    def __init__(self) -> None:
        self.packets_sent = 0
        self.packets_received = 0
        self.frames_received = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.bytes_dropped = 0
        """Of `bytes_received`, those in datagrams without a new authentic packet."""
        self.packets_dropped: Counter[DropReason] = Counter()
        """Datagrams without a new authentic packet, by reason."""
        self.datagrams_deferred = 0
        """Datagrams with a packet that was deferred because its keys were missing."""
        self.packets_reordered = 0
        """1-RTT packets received after one with a higher number."""
        self.received_at: float | None = None
        """When the last datagram with a new authentic packet arrived."""
        self.migrations = 0
        self.ecn_received = [0, 0, 0]
        """Packets received with ECT(0), ECT(1) and CE."""
        self.ecn_ce_reported = 0
        """Packets sent that the peer reported as CE-marked."""

    def note_marked(self, codepoint: int, packets: int) -> None:
        """Count processed packets with this ECN codepoint."""
        self.ecn_received[ECN_INDEX[codepoint]] += packets
