"""Gaps in received packet numbers: which of them were lost packets?

A sender may skip numbers (RFC 9000 section 21.4 recommends it against optimistic ACKs), so a gap
alone proves nothing. A lost packet leaves a hole in the data: the packet after the gap continues a
stream beyond its highest offset.
"""

from __future__ import annotations

from math import ceil

from quicedge.config.tracelimits import QLOG_MAX_GAPS

_LEAST_PAYLOAD = 1000
"""Minimum payload of a full packet (RFC 9000 section 14: 1200 bytes including its header)."""


class Gaps:
    """Missing packet numbers among the received ones; beyond a limit they are only counted."""

    def __init__(self) -> None:
        self.lost = 0
        """Missing numbers with a corresponding hole in the data."""
        self.others = 0
        """Missing numbers without one: skipped, or lost packets without data."""
        self.reordered = 0
        self._next: dict[str, int] = {}
        self._unexplained: dict[tuple[str, int], None] = {}
        self._holes: dict[tuple[str, int], None] = {}
        self._payload = _LEAST_PAYLOAD

    def received(self, space: str, number: int) -> None:
        """A packet was received."""
        expected = self._next.get(space, number)
        if number >= expected:
            for missing in range(max(expected, number - QLOG_MAX_GAPS), number):
                self._unexplained[space, missing] = None
            while len(self._unexplained) > QLOG_MAX_GAPS:
                del self._unexplained[next(iter(self._unexplained))]
            self.others += number - expected
            self._next[space] = number + 1
            return
        self.reordered += 1
        if self._unexplained.pop((space, number), 0) is None:
            self.others -= 1
        elif self._holes.pop((space, number), 0) is None:
            self.lost -= 1

    def data(self, size: int, hole: int) -> None:
        """A frame with `size` bytes was received, `hole` bytes beyond the end of its stream."""
        self._payload = max(self._payload, size)
        if hole <= 0:
            return
        for _ in range(ceil(hole / self._payload)):
            if not self._unexplained:
                return
            key, _ = self._unexplained.popitem()
            self.others -= 1
            self.lost += 1
            self._holes[key] = None
            if len(self._holes) > QLOG_MAX_GAPS:
                del self._holes[next(iter(self._holes))]
