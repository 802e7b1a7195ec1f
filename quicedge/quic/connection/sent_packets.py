"""Records of packets in flight: single packets, and runs of packets recorded as one.

A run of packets with consecutive bytes of one stream is one record of a few numbers. ACKs and
losses settle parts of it by packet number ranges, without an object per packet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quicedge import native
from quicedge.quic.connection.send_buffer import SendBuffer
from quicedge.quic.frames import encode_varint
from quicedge.quic.packet_cipher import TAG_LENGTH, PacketCipher

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


Span = tuple[int, int]
"""Packet numbers, the end exclusive."""

Piece = tuple[Any, int, int, bool]
"""Bytes of a stream that packets carried: the stream, start, stop, whether they include its end."""

Settled = tuple[list[Span], list[Piece], int, int, float, int, float, bool]
"""Acknowledged packets: their numbers and the stream bytes in them, both joined where they are
consecutive; their size and that of the largest on the wire; of the newest packet the time it was
sent, and `delivered`, `delivered_time` and `app_limited` as in `SentPacket`."""

Lost = tuple[int, int, float, int, int, Piece | None]
"""Lost packets: numbers (the end exclusive), when they were sent, their size and that of the
largest on the wire, and the stream bytes to send again, None if a probe has repeated them."""


SentRun = tuple[bytes, int, int, int, bool, int, int, int, int, bool]
"""A run that was sealed: its packets, joined, and their number; the stream bytes in them, start,
stop and whether they include its end; how many each but the last has; size of the last packet;
bytes sent for the first time, and again; whether more is pending."""


class _Run:
    """Packets `first` to `stop - 1`, each except the last with `chunk` bytes of `stream`.

    `size`: bytes on the wire of each packet except the last, `last_size`: of the last. `start` to
    `end`: the stream bytes they carry. `fin`: whether the last one ends the stream.
    """

    __slots__ = (
        "app_limited", "chunk", "delivered", "delivered_time", "end", "fin", "first", "last_size",
        "resent", "sent_time", "size", "start", "stop", "stream",
    )  # fmt: skip

    def __init__(
        self,
        first: int,
        stop: int,
        stream: Any,
        start: int,
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
        self.start = start
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

    @property
    def wire_bytes(self) -> int:
        """Total size on the wire, in bytes."""
        return (self.stop - self.first - 1) * self.size + self.last_size

    @property
    def largest(self) -> int:
        """Size on the wire of the largest packet, in bytes."""
        return self.size if self.stop - self.first > 1 else self.last_size

    @property
    def piece(self) -> Piece:
        return self.stream, self.start, self.end, self.fin

    def split(self, packet_number: int) -> _Run:
        """Truncate the run at `packet_number` and return the rest as a separate run."""
        cut = self.start + (packet_number - self.first) * self.chunk
        rest = _Run(
            packet_number, self.stop, self.stream, cut, self.end, self.chunk, self.fin,
            self.size, self.last_size, self.sent_time, self.delivered, self.delivered_time,
            self.app_limited, self.resent,
        )  # fmt: skip
        self.stop = packet_number
        self.end = cut
        self.fin = False
        self.last_size = self.size
        return rest


@native.twin
class RunLog:
    """Runs of packets in flight, each packet of which carries bytes of one stream and nothing else.

    `append` them in the order of their numbers; `acknowledge`, `lose` and `clear` settle each
    packet once.
    """

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        """Invariant: ascending and disjoint packet numbers."""

    def __bool__(self) -> bool:
        return bool(self._runs)

    def append(
        self,
        first: int,
        stop: int,
        stream: Any,
        start: int,
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
        """Packets `first` to `stop - 1` were sent, each except the last with `chunk` bytes of
        `stream` and `size` bytes on the wire; together they carry `start` to `end - 1`, and the end
        of the stream if `fin`. The rest is as in `SentPacket`."""
        self._runs.append(
            _Run(
                first, stop, stream, start, end, chunk, fin, size, last_size, sent_time,
                delivered, delivered_time, app_limited,
            )
        )  # fmt: skip

    def send(
        self,
        cipher: PacketCipher,
        first_byte: int,
        cid: bytes,
        number: int,
        stream: Any,
        stream_id: int,
        buffer: SendBuffer,
        until: int,
        size: int,
        most: int,
        sent_time: float,
        delivered: int,
        delivered_time: float,
        app_limited: bool,
    ) -> SentRun | None:
        """Seal and append packets from `number` on, with the first pending bytes of `stream`, which
        `buffer` holds and flow control permits up to `until`: at most `most` packets of `size`
        bytes, of which the last may be shorter. None if they would not fill even one."""
        pending = buffer.pending
        if pending is None:
            return None
        start = pending[0]
        # One width of offsets per run keeps all its packets but the last the same size.
        wide = until >= 1 << 30
        overhead = 1 + len(cid) + (first_byte & 0x03) + 1 + TAG_LENGTH
        overhead += 1 + len(encode_varint(stream_id)) + (8 if wide else 4)
        chunk = size - overhead
        left = until - start
        if chunk <= 0 or left <= 0:
            return None
        packets = min(-(-left // chunk), most)
        if packets < 1 or (packets == 1 and left < chunk):
            return None
        end = min(until, start + packets * chunk)
        fin = end == buffer.fin_offset
        data = cipher.seal_run(
            first_byte, cid, number, stream_id, buffer, start, end, chunk, wide, fin
        )
        last_size = overhead + end - start - (packets - 1) * chunk
        self.append(
            number, number + packets, stream, start, end, chunk, fin, size, last_size, sent_time,
            delivered, delivered_time, app_limited,
        )  # fmt: skip
        fresh = max(end - buffer.highest, 0)
        buffer.take(start, end)
        return (
            data, packets, start, end, fin, chunk, last_size, fresh, end - start - fresh,
            buffer.has_pending,
        )  # fmt: skip

    @property
    def oldest(self) -> int | None:
        """Number of the oldest packet in flight."""
        return self._runs[0].first if self._runs else None

    def acknowledge(self, ranges: list[Span]) -> Settled | None:
        """Settle the packets in the ranges of an ACK (ascending, disjoint); None if there are
        none."""
        taken = self._take(ranges)
        if not taken:
            return None
        spans: list[Span] = []
        pieces: list[Piece] = []
        nbytes = largest = 0
        stop = end = -1
        stream = None
        for run in taken:
            nbytes += run.wire_bytes
            largest = max(largest, run.largest)
            if run.first == stop:
                spans[-1] = spans[-1][0], run.stop
            else:
                spans.append((run.first, run.stop))
            if run.start == end and run.stream is stream:
                pieces[-1] = stream, pieces[-1][1], run.end, run.fin
            else:
                pieces.append(run.piece)
            stop = run.stop
            # Nothing joins the end of a stream.
            stream, end = run.stream, -1 if run.fin else run.end
        return (
            spans, pieces, nbytes, largest, run.sent_time, run.delivered, run.delivered_time,
            run.app_limited,
        )  # fmt: skip

    def lose(
        self, largest_acked: int, threshold: int, delay: float, now: float
    ) -> tuple[float | None, list[Lost]]:
        """Settle packets that are lost by reordering or by time (RFC 9002 section 6.1): below
        `largest_acked`, and either up to `threshold` or sent `delay` ago. Returns when the next one
        will be lost by time, if any, and those that are."""
        late: list[Span] = []
        next_time: float | None = None
        for run in self._runs:
            if run.first > largest_acked:
                break
            # Compare the same sum as the timer: a difference may round the other way for ever.
            due = run.sent_time + delay
            if due <= now:
                late.append((run.first, min(run.stop, largest_acked + 1)))
                continue
            if run.first <= threshold:
                late.append((run.first, min(run.stop, threshold + 1)))
            if run.stop - 1 > threshold and (next_time is None or due < next_time):
                next_time = due
        return next_time, [
            (
                run.first, run.stop, run.sent_time, run.wire_bytes, run.largest,
                None if run.resent else run.piece,
            )
            for run in (self._take(late) if late else ())
        ]  # fmt: skip

    def oldest_unrepeated(self) -> int | None:
        """Number of the oldest packet that no probe has repeated."""
        return next((run.first for run in self._runs if not run.resent), None)

    def repeat_oldest(self) -> Piece:
        """Mark that packet as repeated and return its stream bytes; it stays in flight."""
        index, run = next((index, run) for index, run in enumerate(self._runs) if not run.resent)
        if run.stop - run.first > 1:
            self._runs.insert(index + 1, run.split(run.first + 1))
        run.resent = True
        return run.piece

    def clear(self) -> int:
        """Forget all packets; returns their size on the wire."""
        runs, self._runs = self._runs, []
        return sum(run.wire_bytes for run in runs)

    def _take(self, ranges: list[Span]) -> list[_Run]:
        """Remove and return the packets in the ranges."""
        taken: list[_Run] = []
        kept: list[_Run] = []
        index = 0
        count = len(ranges)
        for position, run in enumerate(self._runs):
            while index < count and ranges[index][1] <= run.first:
                index += 1
            if index == count:
                kept.extend(self._runs[position:])
                break
            cursor: _Run | None = run
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
        self._runs = kept
        return taken
