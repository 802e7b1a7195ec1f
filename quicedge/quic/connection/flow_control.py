"""Flow control (RFC 9000 section 4) by consumption: credit is granted as the application consumes
data, so at most one window of bytes is buffered however slow the origin is."""

from __future__ import annotations


class ReceiveWindow:
    """Bytes that the peer may send on a stream or on the connection.

    Invariant: used <= announced <= granted. Raise `granted`; when `is_due`, `announce` it.
    """

    __slots__ = ("_size", "announced", "granted", "used", "worth")

    def __init__(self, size: int) -> None:
        self._size = size
        self.worth = size // 2
        """The increase that is worth a frame."""
        self.granted = size
        self.announced = size
        """The limit last sent to the peer, and enforced."""
        self.used = 0

    @property
    def is_due(self) -> bool:
        """Whether the increase is worth a frame."""
        return self.granted - self.announced >= self.worth

    @property
    def unread(self) -> int:
        """Bytes received that the application has not consumed."""
        return self.used - self.granted + self._size

    def announce(self) -> int:
        """Mark the current limit as announced and return it."""
        self.announced = self.granted
        return self.granted


class StreamCount:
    """How many streams of one type the peer may open, in total.

    Invariant: opened <= announced <= granted.
    """

    __slots__ = ("announced", "granted", "opened")

    def __init__(self, limit: int) -> None:
        self.granted = limit
        self.announced = limit
        self.opened = 0

    @property
    def is_due(self) -> bool:
        """False while the peer may still open more streams than the increase would add."""
        grant = self.granted - self.announced
        return grant > 0 and grant > self.announced - self.opened

    def announce(self) -> int:
        self.announced = self.granted
        return self.granted
