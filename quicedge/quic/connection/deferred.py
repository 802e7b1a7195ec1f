"""Packets that arrive before the keys that open them (RFC 9001 section 5.7)."""

from __future__ import annotations

from typing import Any, NamedTuple


class Deferred(NamedTuple):
    """A packet and how it came."""

    packet: bytes
    address: Any
    ecn: int


class DeferredPackets:
    """A bounded number of bytes of them.

    Without it, a client's first requests and a server's first flight wait for a probe timeout when
    they were reordered before the handshake packet that brings their keys.
    """

    __slots__ = ("_limit", "_size", "held")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self.held: list[Deferred] = []

    def add(self, packet: bytes, address: Any, ecn: int) -> bool:
        """Keep a packet; whether there was room."""
        if self._size + len(packet) > self._limit:
            return False
        self.held.append(Deferred(packet, address, ecn))
        self._size += len(packet)
        return True

    def take(self) -> list[Deferred]:
        """Those that are kept, which are then not any more."""
        held, self.held = self.held, []
        self._size = 0
        return held
