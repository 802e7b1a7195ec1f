"""An in-memory trace sink for live followers of a connection."""

from __future__ import annotations

from collections import deque

from quicedge.config.tracelimits import QLOG_FOLLOW_BUFFER


class Follower:
    """Buffers lines until `take` (`trace.Sink`); drops and counts them when the buffer is full."""

    name = ""
    drop_reason = "not read in time"

    def __init__(self) -> None:
        self.closed = False
        self.dropped = 0
        """Dropped writes, each of one event or of a run of packets."""
        self._lines: deque[bytes] = deque()
        self._size = 0

    def write(self, lines: bytes) -> bool:
        if self._size + len(lines) > QLOG_FOLLOW_BUFFER:
            self.dropped += 1
            return False
        self._size += len(lines)
        self._lines.append(lines)
        return True

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        """Remove and return all buffered lines."""
        lines = b"".join(self._lines)
        self._lines.clear()
        self._size = 0
        return lines
