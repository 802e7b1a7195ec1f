"""Somebody who follows a connection's trace while it happens."""

from __future__ import annotations

from collections import deque

from quicedge.config.tracelimits import QLOG_FOLLOW_BUFFER


class Follower:
    """Keeps lines until they are taken (`trace.Sink`); what finds no room is lost and counted."""

    name = ""
    why_lost = "they were not taken in time"

    def __init__(self) -> None:
        self.closed = False
        self.dropped = 0
        """Writes without room, each of one event or of a run of packets."""
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
        """All lines that wait."""
        lines = b"".join(self._lines)
        self._lines.clear()
        self._size = 0
        return lines
