"""Records of packets in flight: single packets, and runs of packets recorded as one.

A run of packets with consecutive bytes of one stream is one record of a few numbers. ACKs and
losses settle parts of it by packet number ranges, without an object per packet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Delivery = tuple[Callable[..., None], tuple[Any, ...]]
"""Called with True (acknowledged) or False (lost), then with the arguments."""


class SentPacket:
    """A single packet in flight."""

    __slots__ = (
        "ack_eliciting",
        "app_limited",
        "delivered",
        "delivered_time",
        "deliveries",
        "in_flight",
        "number",
        "resent",
        "sent_time",
        "size",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        size: int,
        sent_time: float,
        ack_eliciting: bool,
        in_flight: bool,
        deliveries: list[Delivery],
        delivered: int,
        delivered_time: float,
        app_limited: bool,
    ) -> None:
        self.number = number
        self.size = size
        self.sent_time = sent_time
        self.ack_eliciting = ack_eliciting
        self.in_flight = in_flight
        self.deliveries = deliveries
        """Delivery callbacks of its frames."""
        self.delivered = delivered
        """Total bytes delivered when it was sent; `delivered_time`: when the last of them were."""
        self.delivered_time = delivered_time
        self.app_limited = app_limited
        self.resent = False
        """Whether a probe has repeated its content, so that its loss retransmits nothing."""


class SentPacketRun:
    """Packets `first` to `stop - 1`, each except the last with `chunk` bytes of `stream`.

    `size`: bytes on the wire of each packet except the last, `last_size`: of the last. `offset` to
    `end`: the stream bytes they carry. `fin`: whether the last one ends the stream.
    """

    __slots__ = (
        "app_limited", "chunk", "delivered", "delivered_time", "end", "fin", "first", "last_size",
        "offset", "resent", "sent_time", "size", "stop", "stream",
    )  # fmt: skip

    def __init__(
        self,
        first: int,
        stop: int,
        stream: Any,
        offset: int,
        end: int,
        chunk: int,
        fin: bool,
        size: int,
        last_size: int,
        sent_time: float,
        delivered: int,
        delivered_time: float,
        app_limited: bool,
        resent: bool = False,
    ) -> None:
        self.first = first
        self.stop = stop
        self.stream = stream
        self.offset = offset
        self.end = end
        self.chunk = chunk
        self.fin = fin
        self.size = size
        self.last_size = last_size
        self.sent_time = sent_time
        self.delivered = delivered
        self.delivered_time = delivered_time
        self.app_limited = app_limited
        self.resent = resent

    def __len__(self) -> int:
        return self.stop - self.first

    @property
    def wire_bytes(self) -> int:
        """Total size on the wire, in bytes."""
        return (self.stop - self.first - 1) * self.size + self.last_size

    @property
    def largest(self) -> int:
        """Size on the wire of the largest packet, in bytes."""
        return self.size if self.stop - self.first > 1 else self.last_size

    def split(self, packet_number: int) -> SentPacketRun:
        """Truncate the run at `packet_number` and return the rest as a separate run."""
        cut = self.offset + (packet_number - self.first) * self.chunk
        rest = SentPacketRun(
            packet_number, self.stop, self.stream, cut, self.end, self.chunk, self.fin,
            self.size, self.last_size, self.sent_time, self.delivered, self.delivered_time,
            self.app_limited, self.resent,
        )  # fmt: skip
        self.stop = packet_number
        self.end = cut
        self.fin = False
        self.last_size = self.size
        return rest


class RunLog:
    """Runs in flight. Invariant: ascending and disjoint packet numbers."""

    __slots__ = ("runs",)

    def __init__(self) -> None:
        self.runs: list[SentPacketRun] = []

    def __bool__(self) -> bool:
        return bool(self.runs)

    def append(self, run: SentPacketRun) -> None:
        self.runs.append(run)

    def take(self, ranges: list[tuple[int, int]]) -> list[SentPacketRun]:
        """Remove and return the packets in the ranges (ascending, disjoint, `stop` exclusive)."""
        taken: list[SentPacketRun] = []
        if not self.runs:
            return taken
        kept: list[SentPacketRun] = []
        index = 0
        count = len(ranges)
        for position, run in enumerate(self.runs):
            while index < count and ranges[index][1] <= run.first:
                index += 1
            if index == count:
                kept.extend(self.runs[position:])
                break
            cursor: SentPacketRun | None = run
            at = index
            while cursor is not None:
                if at == count or ranges[at][0] >= cursor.stop:
                    kept.append(cursor)
                    break
                start, stop = ranges[at]
                if start > cursor.first:
                    rest = cursor.split(start)
                    kept.append(cursor)
                    cursor = rest
                if stop < cursor.stop:
                    rest = cursor.split(stop)
                    taken.append(cursor)
                    cursor = rest
                    at += 1
                else:
                    taken.append(cursor)
                    cursor = None
        self.runs = kept
        return taken

    def oldest_unrepeated(self) -> tuple[int, SentPacketRun] | None:
        """The oldest run not repeated by a probe, with its index."""
        for index, run in enumerate(self.runs):
            if not run.resent:
                return index, run
        return None

    def split_first(self, index: int) -> SentPacketRun:
        """Split off the first packet of a run and return it; both stay in flight."""
        run = self.runs[index]
        if len(run) > 1:
            self.runs.insert(index + 1, run.split(run.first + 1))
        return run

    def clear(self) -> list[SentPacketRun]:
        runs, self.runs = self.runs, []
        return runs
