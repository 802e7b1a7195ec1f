"""Stream data written by the application, kept as it was written until it is acknowledged."""

from __future__ import annotations

from bisect import bisect_right

from quicedge import native
from quicedge.config.limits import SEND_BUFFER_JOINED
from quicedge.quic.ranges import Ranges


@native.twin
class SendBuffer:
    """Send state of one stream or CRYPTO stream.

    `write` makes bytes pending, `take` moves the first pending ones in flight, `acked` or `lost`
    settles them. The end of the stream (`fin`) is settled with the last byte. What was written is
    not copied before it is packed, except small pieces, which are joined so that each does not cost
    an object. Invariant: `base` <= `highest` <= `end`; only bytes from `base` on can be read.
    """

    __slots__ = ("_acked", "_chunks", "_fin_acked", "_pending", "_starts", "base", "end",
                 "fin_offset", "fin_pending", "highest")  # fmt: skip

    def __init__(self) -> None:
        self.base = 0
        """All bytes below are acknowledged and released."""
        self.end = 0
        """Bytes written so far."""
        self.highest = 0
        """All bytes below were sent at least once."""
        self.fin_offset: int | None = None
        """Final size of the stream, once known."""
        self.fin_pending = False
        self._pending = Ranges()
        self._acked: Ranges | None = None
        self._fin_acked = False
        self._starts: list[int] = []
        """Offset of each chunk."""
        self._chunks: list[bytes | bytearray] = []

    def write(self, data: bytes, fin: bool) -> None:
        """Append data; raises ValueError after the end."""
        if self.fin_offset is not None:
            raise ValueError("cannot write after the end of the stream")
        if data:
            start = self.end
            self.end = end = start + len(data)
            self._pending.add(start, end)
            chunks = self._chunks
            if len(data) >= SEND_BUFFER_JOINED:
                chunks.append(data)
                self._starts.append(start)
            elif chunks and type(last := chunks[-1]) is bytearray and (
                len(last) < SEND_BUFFER_JOINED
            ):  # fmt: skip
                last += data
            else:
                chunks.append(bytearray(data))
                self._starts.append(start)
        if fin:
            self.fin_offset = self.end
            self.fin_pending = True

    @property
    def pending(self) -> tuple[int, int] | None:
        """The first range of pending bytes."""
        pending = self._pending
        return (pending.starts[0], pending.stops[0]) if pending.starts else None

    @property
    def has_pending(self) -> bool:
        """Whether bytes or the end are pending."""
        return self.fin_pending or bool(self._pending.starts)

    @property
    def is_acknowledged(self) -> bool:
        """Whether all of it, including the end, is acknowledged."""
        return self._fin_acked and self.base == self.fin_offset

    @property
    def unsent(self) -> int:
        """Bytes written and not yet sent."""
        return self.end - self.highest

    def sendable_until(self, limit: int, credit: int) -> int | None:
        """The offset up to which the first pending range may be sent; None if nothing may be sent.

        `limit`: flow-control limit of the stream; `credit`: of the connection, in bytes that were
        never sent.
        """
        pending = self._pending
        if not pending.starts:
            return self.end if self.fin_pending else None
        until = min(pending.stops[0], limit, self.highest + credit)
        return until if until > pending.starts[0] else None

    def read(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop - 1`; raises ValueError for bytes that are not buffered."""
        if start >= stop:
            return b""
        starts, chunks = self._starts, self._chunks
        index = bisect_right(starts, start) - 1
        if index < 0 or stop > self.end:
            raise ValueError("bytes that are not buffered")
        at = starts[index]
        chunk = chunks[index]
        if stop - at <= len(chunk):
            return bytes(chunk[start - at : stop - at])
        parts = [memoryview(chunk)[start - at :]]
        at += len(chunk)
        while at < stop:
            index += 1
            chunk = chunks[index]
            parts.append(memoryview(chunk)[: stop - at])
            at += len(chunk)
        return b"".join(parts)

    def take(self, start: int, stop: int) -> bool:
        """Bytes `start` to `stop - 1`, the first pending ones, are sent; returns whether they
        include the end."""
        if stop > start:
            self._pending.subtract(start, stop)
            if stop > self.highest:
                self.highest = stop
        fin = stop == self.fin_offset
        if fin:
            self.fin_pending = False
        return fin

    def acked(self, start: int, stop: int, fin: bool) -> None:
        """Bytes `start` to `stop - 1` are acknowledged."""
        if fin:
            self._fin_acked = True
        if stop <= self.base or start == stop:
            return
        # A probe may have made them pending again.
        self._pending.subtract(start, stop)
        if start <= self.base and self._acked is None:
            self._release(stop)
            return
        acked = self._acked = self._acked or Ranges()
        acked.add(max(start, self.base), stop)
        if acked.starts[0] == self.base:
            self._release(acked.pop_first()[1])
            if not acked:
                self._acked = None

    def _release(self, stop: int) -> None:
        """All bytes below `stop` are acknowledged."""
        self.base = stop
        starts = self._starts
        if stop == self.end:
            starts.clear()
            self._chunks.clear()
            return
        whole = bisect_right(starts, stop) - 1
        if whole > 0:
            del starts[:whole], self._chunks[:whole]

    def lost(self, start: int, stop: int, fin: bool) -> None:
        """Bytes `start` to `stop - 1` are lost: retransmit those not acknowledged."""
        if fin and not self._fin_acked:
            self.fin_pending = True
        start = max(start, self.base)
        if start >= stop:
            return
        self._pending.add(start, stop)
        if self._acked is not None:
            for acked_start, acked_stop in self._acked:
                if acked_start < stop and acked_stop > start:
                    self._pending.subtract(acked_start, acked_stop)

    def repeat(self) -> None:
        """Retransmit everything that is not acknowledged."""
        self.lost(self.base, self.highest, fin=False)

    def discard(self) -> None:
        """Release all data: the stream was reset."""
        self._pending.clear()
        self.fin_pending = False
        self._starts.clear()
        self._chunks.clear()
