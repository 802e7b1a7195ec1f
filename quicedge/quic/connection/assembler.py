"""Bytes that arrive in any order, put back in order.

Memory follows what has arrived, in pages: a byte at the far end of a window takes one page, not
the window. The number of gaps is bounded and a gap is found by bisection, so a peer that sends
every other byte costs no more than one that sends them all.
"""

from __future__ import annotations

from quicedge.config.limits import MAX_STREAM_GAPS, STREAM_PAGE
from quicedge.quic.ranges import Ranges


class TooManyGaps(Exception):
    """More pieces wait for what is before them than are kept."""


class Assembler:
    """One direction of one stream, read as it becomes contiguous."""

    __slots__ = ("_pages", "_waiting", "start")

    def __init__(self) -> None:
        self.start = 0
        """Offset of the next byte to be read; all below it were."""
        self._waiting: Ranges | None = None
        self._pages: dict[int, bytearray] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits for a gap to be filled."""
        return self._waiting is None

    @property
    def gaps(self) -> int:
        """Pieces that wait for what is before them."""
        return len(self._waiting or ())

    @property
    def held(self) -> int:
        """Bytes of memory that waiting data takes."""
        return len(self._pages or ()) * STREAM_PAGE

    def insert(self, offset: int, data: bytes) -> bytes:
        """Take data and return what can be read now; raises TooManyGaps."""
        end = offset + len(data)
        if end <= self.start or not data:
            return b""
        if offset <= self.start and self._waiting is None:
            data = data[self.start - offset :] if offset < self.start else data
            self.start = end
            return data
        if offset < self.start:
            data = data[self.start - offset :]
            offset = self.start
        if self._waiting is None or self._pages is None:
            self._waiting, self._pages = Ranges(), {}
        waiting = self._waiting
        waiting.add(offset, end)
        self._store(self._pages, offset, data)
        if waiting.starts[0] != self.start:
            if len(waiting) > MAX_STREAM_GAPS:
                raise TooManyGaps
            return b""
        _, stop = waiting.pop_first()
        ready = self._load(self._pages, self.start, stop)
        self.start = stop
        if not waiting:
            self.clear()
        return ready

    def clear(self) -> None:
        """Forget what waits: it will not be read any more."""
        self._waiting = self._pages = None

    @staticmethod
    def _store(pages: dict[int, bytearray], offset: int, data: bytes) -> None:
        view = memoryview(data)
        number, at = divmod(offset, STREAM_PAGE)
        while view:
            page = pages.get(number)
            if page is None:
                page = pages[number] = bytearray(STREAM_PAGE)
            count = min(STREAM_PAGE - at, len(view))
            page[at : at + count] = view[:count]
            view = view[count:]
            number, at = number + 1, 0

    @staticmethod
    def _load(pages: dict[int, bytearray], start: int, stop: int) -> bytes:
        """Bytes `start` to `stop - 1`; pages that end there are let go."""
        first, at = divmod(start, STREAM_PAGE)
        last = (stop - 1) // STREAM_PAGE
        whole = b"".join([pages[number] for number in range(first, last + 1)])
        done = last if stop % STREAM_PAGE else last + 1
        for number in range(first, done):
            del pages[number]
        return whole[at : at + stop - start]
