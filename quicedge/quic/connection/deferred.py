"""Packets received before their keys are available (RFC 9001 section 5.7)."""

from __future__ import annotations

from typing import Any, NamedTuple


class Deferred(NamedTuple):
    """A packet with its source address and ECN codepoint."""

    packet: bytes
    address: Any
    ecn: int


class DeferredPackets:
    """A buffer of deferred packets, bounded in bytes.

    Without it, a client's first requests or a server's first flight would be delayed by a probe
    timeout when reordered ahead of the handshake packet that provides their keys. `take` them when
    new keys are available, and `add` again those that still cannot be opened.
    """

    __slots__ = ("_limit", "_size", "held")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self.held: list[Deferred] = []

    def add(self, packet: bytes, address: Any, ecn: int) -> bool:
        """Buffer a packet; returns whether there was room."""
        if self._size + len(packet) > self._limit:
            return False
        self.held.append(Deferred(packet, address, ecn))
        self._size += len(packet)
        return True

    def take(self) -> list[Deferred]:
        """Remove and return all packets."""
        held, self.held = self.held, []
        self._size = 0
        return held
