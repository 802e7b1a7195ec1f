"""Packets declared lost, remembered for a while to detect spurious losses by late ACKs."""

from __future__ import annotations

from bisect import bisect_right

from quicedge import native
from quicedge.config.limits import MAX_LOST_REMEMBERED


@native.twin
class LostPackets:
    """Runs of packet numbers, the newest `MAX_LOST_REMEMBERED` of them."""

    __slots__ = ("_gaps", "_runs")

    def __init__(self) -> None:
        self._runs: list[tuple[int, int]] = []
        self._gaps: tuple[list[tuple[int, int]], int] | None = None
        """The ranges of the last ACK, but for the end of its last one; None if a lost packet may be
        behind that end."""

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, first: int, stop: int) -> None:
        """Packets `first` to `stop - 1` were declared lost."""
        self._gaps = None
        if self._runs and self._runs[-1][1] == first:
            self._runs[-1] = self._runs[-1][0], stop
        else:
            self._runs.append((first, stop))
            if len(self._runs) > MAX_LOST_REMEMBERED:
                del self._runs[0]

    def acknowledged(self, ranges: list[tuple[int, int]]) -> int:
        """Forget the packets in the ascending ranges of an ACK (`stop` exclusive); returns their
        number."""
        gaps = ranges[:-1], ranges[-1][0]
        if gaps == self._gaps:
            return 0  # only packets newer than any lost one were acknowledged since
        # An older ACK may arrive after the one by which packets were lost.
        newest = max((stop for _, stop in self._runs), default=0)
        self._gaps = gaps if ranges[-1][1] >= newest else None
        spurious = 0
        kept: list[tuple[int, int]] = []
        stops = [stop for _, stop in ranges]
        for run in self._runs:
            at = bisect_right(stops, run[0])
            if at == len(ranges) or ranges[at][0] >= run[1]:
                kept.append(run)
                continue
            pieces = [run]
            for start, stop in ranges[at:]:
                if start >= run[1]:
                    break
                left = []
                for first, end in pieces:
                    inside = min(end, stop) - max(first, start)
                    if inside <= 0:
                        left.append((first, end))
                        continue
                    spurious += inside
                    if first < start:
                        left.append((first, start))
                    if stop < end:
                        left.append((stop, end))
                pieces = left
            kept += pieces
        self._runs = kept[-MAX_LOST_REMEMBERED:]
        return spurious
