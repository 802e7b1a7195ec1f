"""Flow control (RFC 9000 section 4) by consumption: credit follows what the application is done
with, so at most one window of bytes is in memory however slow the origin."""

from __future__ import annotations


class ReceiveWindow:
    """What the peer may send, on a stream or in all."""

    __slots__ = ("_size", "announced", "granted", "used")

    def __init__(self, size: int) -> None:
        self._size = size
        self.granted = size
        self.announced = size
        """What the peer was told of; it is held to that."""
        self.used = 0

    @property
    def is_due(self) -> bool:
        """Whether the raise is worth a frame."""
        return self.granted - self.announced >= self._size // 2

    def announce(self) -> int:
        """The limit, to be told now."""
        self.announced = self.granted
        return self.granted


class StreamCount:
    """How many streams of one kind the peer may open."""

    __slots__ = ("announced", "granted", "opened")

    def __init__(self, limit: int) -> None:
        self.granted = limit
        self.announced = limit
        self.opened = 0

    @property
    def is_due(self) -> bool:
        """Not while the peer has more streams left to open than a raise would grant."""
        grant = self.granted - self.announced
        return grant > 0 and grant > self.announced - self.opened

    def announce(self) -> int:
        self.announced = self.granted
        return self.granted
