"""Aligns the clocks of both ends of a connection."""

from __future__ import annotations

from quicedge.qlog.connection import Connection
from quicedge.qlog.names import space_of
from quicedge.qlog.packets import Packets


def clock_offset(first: Connection, second: Connection) -> float | None:
    """Milliseconds to subtract from times of the second trace to convert them to the first clock.

    Assumes that the fastest packet of each direction had the same delay (as in NTP, RFC 5905
    section 8). None if no packet is in both traces: they are not two ends of one connection.
    """
    there = _least_delay(first.sent, second.received)
    back = _least_delay(second.sent, first.received)
    if there is None and back is None:
        return None
    half = (first.recovery.min_rtt or second.recovery.min_rtt or 0.0) / 2
    if back is None and there is not None:
        return there - half
    if there is None and back is not None:
        return half - back
    assert there is not None
    assert back is not None
    return (there - back) / 2


def _least_delay(sent: Packets, received: Packets) -> float | None:
    """The least difference between receive and send time of a packet, each on its own clock."""
    left = {
        (space_of(packet.type), packet.number): packet.time
        for packet in sent.details
        if packet.number is not None
    }
    return min(
        (
            packet.time - left[key]
            for packet in received.details
            if (key := (space_of(packet.type), packet.number)) in left
        ),
        default=None,
    )
