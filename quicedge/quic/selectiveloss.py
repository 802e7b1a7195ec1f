"""Selective loss: a path that swallows one kind of packet and carries the others.

Two faults look like this: a path whose MTU shrank swallows full-size datagrams (RFC 8899 section
4.3), a broken middlebox swallows those marked ECT (RFC 9000 appendix A.4). Ordinary loss spares
some packets of every flight; a black hole takes all packets of its kind, flight after flight.
"""

from __future__ import annotations

import math


class SelectiveLoss:
    """Counts flights of packets of one kind that were lost since one of the kind was acknowledged.

    Loss is declared only when a packet sent later is acknowledged (RFC 9002 section 6.1), so a path
    that carries nothing at all is never taken for one that swallows a kind of packet.
    """

    __slots__ = ("_flight_began", "_flights", "_threshold")

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self.reset()

    def reset(self) -> None:
        """Forget all evidence: packets take another path, or are no longer of the kind."""
        self._flights = 0
        self._flight_began = -math.inf

    def on_acked(self) -> None:
        """A packet of the kind got through."""
        self._flights = 0

    def on_lost(self, sent_time: float, now: float) -> None:
        """Packets of the kind were declared lost, the newest of them sent at `sent_time`."""
        # What was sent before the last count belongs to a flight that was counted.
        if sent_time >= self._flight_began:
            self._flights += 1
            self._flight_began = now

    @property
    def is_black_hole(self) -> bool:
        return self._flights >= self._threshold
