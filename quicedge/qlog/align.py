"""Put the clocks of both ends of a connection on one time line."""

from __future__ import annotations

from quicedge.qlog.connection import Connection
from quicedge.qlog.names import space_of
from quicedge.qlog.packets import Packets


def clock_offset(first: Connection, second: Connection) -> float | None:
    """Milliseconds to subtract from the second's times to have them on the first's clock.

    The fastest packet of each way is taken to have had the same delay (as NTP does, RFC 5905
    section 8). None where no packet is in both traces: then they are not two ends of a connection.
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
    """The least difference between a packet's times at both ends, each on its own clock."""
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
