"""Black hole detection: a path that drops all packets of one kind and delivers the others.

There are two such faults: a path whose MTU shrank drops full-size datagrams (RFC 8899 section 4.3),
and a broken middlebox drops those marked ECT (RFC 9000 appendix A.4). Ordinary loss affects only
some packets of a flight; a black hole drops all packets of its kind, flight after flight.
"""

from __future__ import annotations

import math


class SelectiveLoss:
    """Counts flights of packets of one kind that were lost since one of the kind was acknowledged.

    Loss is declared only when a packet sent later is acknowledged (RFC 9002 section 6.1), so a path
    that delivers nothing at all is never mistaken for a black hole.
    """

    __slots__ = ("_flight_began", "_threshold", "flights", "is_black_hole")

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self.reset()

    def reset(self) -> None:
        """Discard all evidence: the path changed, or packets of the kind are no longer sent."""
        self.flights = 0
        """Those that were lost in a row; while there are none, `on_acked` has nothing to do."""
        self.is_black_hole = False
        self._flight_began = -math.inf

    def on_acked(self) -> None:
        """A packet of the kind was acknowledged."""
        self.flights = 0
        self.is_black_hole = False

    def on_lost(self, sent_time: float, now: float) -> None:
        """Packets of the kind were declared lost, the newest of them sent at `sent_time`."""
        # Packets sent before the last count belong to a flight already counted.
        if sent_time >= self._flight_began:
            self.flights += 1
            self._flight_began = now
            self.is_black_hole = self.flights >= self._threshold
