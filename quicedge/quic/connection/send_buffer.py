"""Stream data written by the application, buffered until acknowledged."""

from __future__ import annotations

from quicedge.quic.ranges import Ranges


class SendBuffer:
    """Send state of one stream or CRYPTO stream.

    `write` makes bytes pending, `take` moves the first pending ones in flight, `acked` or `lost`
    settles them. The end of the stream (`fin`) is settled with the last byte. Invariant: `base` <=
    `highest` <= `end`; only bytes from `base` on are buffered.
    """

    __slots__ = ("_acked", "_buffer", "_fin_acked", "base", "end", "fin_offset", "fin_pending",
                 "highest", "pending")  # fmt: skip

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
        self.pending = Ranges()
        self._acked: Ranges | None = None
        self._buffer = bytearray()
        self._fin_acked = False

    def write(self, data: bytes, fin: bool) -> None:
        """Append data; raises ValueError after the end."""
        if self.fin_offset is not None:
            raise ValueError("cannot write after the end of the stream")
        if data:
            self.pending.add(self.end, self.end + len(data))
            self._buffer += data
            self.end += len(data)
        if fin:
            self.fin_offset = self.end
            self.fin_pending = True

    @property
    def has_pending(self) -> bool:
        return self.fin_pending or bool(self.pending.starts)

    @property
    def is_acknowledged(self) -> bool:
        """Whether all of it, including the end, is acknowledged."""
        return self._fin_acked and self.base == self.fin_offset

    @property
    def unsent(self) -> int:
        """Bytes written and not yet sent."""
        return self.end - self.highest

    @property
    def data(self) -> bytearray:
        """The buffered bytes from `base` on, until the next call."""
        return self._buffer

    def read(self, start: int, stop: int) -> bytes:
        return bytes(self._buffer[start - self.base : stop - self.base])

    def take(self, start: int, stop: int) -> bool:
        """Bytes `start` to `stop - 1`, the first pending ones, are sent; returns whether they
        include the end."""
        if stop > start:
            self.pending.subtract(start, stop)
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
        self.pending.subtract(start, stop)
        if start <= self.base and self._acked is None:
            del self._buffer[: stop - self.base]
            self.base = stop
            return
        acked = self._acked = self._acked or Ranges()
        acked.add(max(start, self.base), stop)
        if acked.starts[0] == self.base:
            _, stop = acked.pop_first()
            del self._buffer[: stop - self.base]
            self.base = stop
            if not acked:
                self._acked = None

    def lost(self, start: int, stop: int, fin: bool) -> None:
        """Bytes `start` to `stop - 1` are lost: retransmit those not acknowledged."""
        if fin and not self._fin_acked:
            self.fin_pending = True
        start = max(start, self.base)
        if start >= stop:
            return
        self.pending.add(start, stop)
        if self._acked is not None:
            for acked_start, acked_stop in self._acked:
                if acked_start < stop and acked_stop > start:
                    self.pending.subtract(acked_start, acked_stop)

    def repeat(self) -> None:
        """Retransmit everything that is not acknowledged."""
        self.lost(self.base, self.highest, fin=False)

    def discard(self) -> None:
        """Release all data: the stream was reset."""
        self.pending.clear()
        self.fin_pending = False
        self._buffer = bytearray()
