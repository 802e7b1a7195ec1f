"""The packets sent by an endpoint, and their fate."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from quicedge.config.tracelimits import QLOG_MAX_LOST, QLOG_MAX_OUTSTANDING

_PACKET_THRESHOLD = 3
"""A packet is lost if one sent this many packets later is acknowledged (RFC 9002 section 6.1.1)."""
_LATE = 1024
"""Packets after which a loss is final."""
_MAX_RANGES = 4096
"""Maximum number of ranges read from one ACK frame; a real one fits into a packet."""


@dataclass(slots=True)
class Settled:
    """The effect of one ACK frame."""

    size: int = 0
    """Bytes newly acknowledged."""
    round_trip: float | None = None
    """Milliseconds since the largest packet newly acknowledged was sent."""
    spurious: int = 0
    """Packets that were declared lost before."""
    inferred: int = 0
    """Packets that are lost by the packet threshold but were not declared."""


class Flight:
    """Packets in flight in all packet number spaces.

    Losses are those that the trace declares. Some writers do not log them; losses by the packet
    threshold are therefore counted separately.
    """

    def __init__(self) -> None:
        self.size = 0
        """Bytes in flight."""
        self.acknowledged = 0
        self.lost = 0
        self.inferred_lost = 0
        self.spurious = 0
        self._outstanding: dict[str, dict[int, tuple[float, int]]] = {}
        self._lost: dict[str, dict[int, bool]] = {}

    def sent(self, space: str, number: int, time: float, size: int) -> None:
        """An ack-eliciting packet was sent."""
        packets = self._outstanding.setdefault(space, {})
        if number in packets:
            return
        packets[number] = (time, size)
        self.size += size
        if len(packets) > QLOG_MAX_OUTSTANDING:
            self._drop(packets, next(iter(packets)))

    def _drop(self, packets: dict[int, tuple[float, int]], number: int) -> tuple[float, int]:
        sent = packets.pop(number)
        self.size -= sent[1]
        return sent

    def acked(self, space: str, ranges: list[Any], now: float) -> Settled:
        """An ACK frame with these `acked_ranges` was received."""
        settled = Settled()
        spans = _spans(ranges)
        if not spans:
            return settled
        starts = [span[0] for span in spans]
        largest = spans[-1][1]
        packets = self._outstanding.get(space, {})
        found: list[int] = []
        gone: list[int] = []
        for number in packets:
            if number > largest:
                break  # numbers only increase (RFC 9000 section 12.3), so the rest is larger
            at = bisect_right(starts, number) - 1
            if at >= 0 and number <= spans[at][1]:
                found.append(number)
            elif number <= largest - _PACKET_THRESHOLD:
                gone.append(number)
        for number in found:
            time, size = self._drop(packets, number)
            settled.size += size
            self.acknowledged += 1
            if number == largest:
                settled.round_trip = max(0.0, now - time)
        for number in gone:
            self._drop(packets, number)
            self._remember(space, number, logged=False)
            settled.inferred += 1
        self.inferred_lost += settled.inferred
        lost = self._lost.get(space)
        if lost:
            # Late acknowledgements arrive within a few windows, so older losses are discarded.
            while lost and next(iter(lost)) < largest - _LATE:
                del lost[next(iter(lost))]
            late = [
                number
                for number in lost
                if (at := bisect_right(starts, number) - 1) >= 0 and number <= spans[at][1]
            ]
            for number in late:
                # Counted only if the endpoint declared the loss.
                settled.spurious += lost.pop(number)
            self.spurious += settled.spurious
        return settled

    def declared_lost(self, space: str, number: int) -> None:
        """The trace declares a packet lost."""
        self.lost += 1
        packets = self._outstanding.get(space, {})
        if number in packets:
            self._drop(packets, number)
        self._remember(space, number, logged=True)

    def _remember(self, space: str, number: int, logged: bool) -> None:
        lost = self._lost.setdefault(space, {})
        lost[number] = logged
        if len(lost) > QLOG_MAX_LOST:
            del lost[next(iter(lost))]

    def discard(self, space: str) -> None:
        """The keys of a space were discarded, and its packets with them (RFC 9002 section 6.4)."""
        for _, size in self._outstanding.pop(space, {}).values():
            self.size -= size


def _spans(ranges: list[Any]) -> list[tuple[int, int]]:
    """`acked_ranges` as ascending spans `(first, last)`; invalid ranges are omitted."""
    spans = []
    for item in ranges[:_MAX_RANGES]:
        if isinstance(item, list) and item and all(type(bound) is int for bound in item[:2]):
            first, last = item[0], item[min(1, len(item) - 1)]
            if 0 <= first <= last < 2**62:
                spans.append((first, last))
    spans.sort()
    return spans
