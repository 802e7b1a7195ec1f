"""Stream data that waits for what is before it, in memory that follows what has come.

aioquic fills the gap below a byte with zeros, so that one byte at the far end of a window takes
the whole window. Here it takes a page.
"""

from __future__ import annotations

from aioquic.quic.stream import QuicStream

from quicedge.config.limits import STREAM_PAGE


class Pages:
    """Of a bytearray what `QuicStreamReceiver` uses: it grows by zeros that are never stored,
    slices are written at any place and taken from the front."""

    __slots__ = ("_front", "_length", "_pages")

    def __init__(self) -> None:
        self._front = 0  # where position 0 is, counted from the start of page 0
        self._length = 0
        self._pages: dict[int, bytearray] = {}

    def __len__(self) -> int:
        return self._length

    @property
    def held(self) -> int:
        """Bytes of memory in use."""
        return len(self._pages) * STREAM_PAGE

    def __iadd__(self, zeros: bytearray) -> Pages:
        self._length += len(zeros)
        return self

    def __setitem__(self, where: slice, data: bytes) -> None:
        self._length = max(self._length, where.stop)
        view = memoryview(data)
        number, start = divmod(self._front + where.start, STREAM_PAGE)
        while view:
            page = self._pages.get(number)
            if page is None:
                page = self._pages[number] = bytearray(STREAM_PAGE)
            count = min(STREAM_PAGE - start, len(view))
            page[start : start + count] = view[:count]
            view = view[count:]
            number, start = number + 1, 0

    def __getitem__(self, where: slice) -> bytes:
        """From the front; what was never written reads as zeros."""
        first, start = divmod(self._front, STREAM_PAGE)
        end = self._front + where.stop
        last = -(-end // STREAM_PAGE)
        nothing = bytes(STREAM_PAGE)
        whole = b"".join([self._pages.get(n, nothing) for n in range(first, last)])
        return whole[start : start + where.stop]

    def __delitem__(self, where: slice) -> None:
        first = self._front // STREAM_PAGE
        self._front += where.stop
        self._length -= where.stop
        if not self._length:
            self._pages.clear()
            return
        for number in range(first, self._front // STREAM_PAGE):
            self._pages.pop(number, None)


def use_pages(stream: QuicStream) -> None:
    """Make a stream that has received nothing keep its data so."""
    receiver = stream.receiver
    if type(receiver._buffer) is bytearray and not receiver._buffer:
        receiver._buffer = Pages()  # type: ignore[assignment]
