"""Many packets remembered as one.

A run of packets that carry consecutive bytes of one stream is a record of a few numbers. ACKs and
losses settle parts of it by packet number ranges; no object stands for a single packet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aioquic.quic.packet_builder import QuicSentPacket


@dataclass
class LonePacket(QuicSentPacket):
    """A packet by itself, with what had been delivered when it was sent, as a batch has it."""

    delivered: int = 0
    delivered_time: float = 0.0
    app_limited: bool = True


class Batch:
    """Packets `first` to `stop - 1`, each but the last with `chunk` bytes of `stream`.

    `size` is the bytes on the wire of every packet but the last, `last_size` that of the last;
    `offset` to `end` the stream bytes they carry, `fin` whether the last one ends the stream.
    """

    __slots__ = (
        "app_limited", "chunk", "delivered", "delivered_time", "end", "fin", "first", "last_size",
        "offset", "sent_time", "size", "stop", "stream",
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

    def __len__(self) -> int:
        return self.stop - self.first

    @property
    def wire_bytes(self) -> int:
        """Bytes of all its packets on the wire."""
        return (self.stop - self.first - 1) * self.size + self.last_size

    @property
    def largest(self) -> int:
        """Bytes on the wire of its largest packet."""
        return self.size if self.stop - self.first > 1 else self.last_size

    def split(self, packet_number: int) -> Batch:
        """Keep the packets below `packet_number` and return the rest as a batch of its own."""
        cut = self.offset + (packet_number - self.first) * self.chunk
        rest = Batch(
            packet_number, self.stop, self.stream, cut, self.end, self.chunk, self.fin,
            self.size, self.last_size, self.sent_time, self.delivered, self.delivered_time,
            self.app_limited,
        )  # fmt: skip
        self.stop = packet_number
        self.end = cut
        self.fin = False
        self.last_size = self.size
        return rest


class BatchLog:
    """The batches in flight, by packet number."""

    __slots__ = ("batches",)

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def __bool__(self) -> bool:
        return bool(self.batches)

    def append(self, batch: Batch) -> None:
        self.batches.append(batch)

    def take(self, ranges: list[tuple[int, int]]) -> list[Batch]:
        """Remove and return what lies in the ranges (ascending, disjoint, `stop` exclusive)."""
        taken: list[Batch] = []
        if not self.batches:
            return taken
        kept: list[Batch] = []
        index = 0
        count = len(ranges)
        for position, batch in enumerate(self.batches):
            while index < count and ranges[index][1] <= batch.first:
                index += 1
            if index == count:
                kept.extend(self.batches[position:])
                break
            cursor: Batch | None = batch
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
        self.batches = kept
        return taken

    def take_first_packet(self) -> Batch | None:
        """Remove and return the oldest packet as a batch of one."""
        if not self.batches:
            return None
        batch = self.batches[0]
        if len(batch) == 1:
            return self.batches.pop(0)
        self.batches[0] = batch.split(batch.first + 1)
        return batch

    def clear(self) -> list[Batch]:
        batches, self.batches = self.batches, []
        return batches
