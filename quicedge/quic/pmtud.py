"""Packetization layer path MTU discovery for QUIC (RFC 9000 section 14.3, RFC 8899)."""

from __future__ import annotations

from quicedge.config.limits import (
    BASE_DATAGRAM_SIZE,
    MTU_BLACK_HOLE_COOLDOWN,
    MTU_PROBES,
    MTU_RAISE_INTERVAL,
)

_STEPS = (1404, 1352, 1280)
"""Sizes tried below the ceiling: MTUs of common tunnels over Ethernet (PPPoE, WireGuard, IPv6)."""


class PathMtu:
    """Finds the largest datagram a path carries: from the ceiling down, a few probes per size.

    Starts at 1200 bytes, which every QUIC path carries, and never listens to ICMP. Sizes are UDP
    payload bytes, times seconds.
    """

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self.current = self.base
        self._outstanding = False
        self._lost = 0
        self._searching_until_below = ceiling + 1
        self._next_search = 0.0

    @property
    def base(self) -> int:
        """The size that every path carries."""
        return min(BASE_DATAGRAM_SIZE, self._ceiling)

    def limit(self, ceiling: int) -> None:
        """The peer takes no larger datagrams (max_udp_payload_size)."""
        self._ceiling = min(self._ceiling, ceiling)
        self.current = min(self.current, self._ceiling)

    def may_probe(self, now: float) -> bool:
        """Whether to ask `next_probe`."""
        return not (self._outstanding or self.current >= self._ceiling or now < self._next_search)

    def next_probe(self, now: float) -> int | None:
        """Size of the probe to send now, if any; report its outcome to `on_probe`."""
        if not self.may_probe(now):
            return None
        for size in (self._ceiling, *_STEPS):
            if self.current < size <= self._ceiling and size < self._searching_until_below:
                self._outstanding = True
                return size
        # Nothing larger works: search again later, as paths change.
        self._searching_until_below = self._ceiling + 1
        self._next_search = now + MTU_RAISE_INTERVAL
        return None

    def on_probe(self, size: int, delivered: bool) -> bool:
        """A probe was acknowledged or lost; whether `current` grew."""
        if not self._outstanding:
            return False  # sent before a black hole was detected: outdated
        self._outstanding = False
        if delivered:
            self._lost = 0
            self.current = max(self.current, min(size, self._ceiling))
            return True
        # RFC 8899 section 4.3: a lost probe indicates its size, not congestion.
        self._lost += 1
        if self._lost >= MTU_PROBES:
            self._lost = 0
            self._searching_until_below = size
        return False

    def on_black_hole(self, now: float) -> None:
        """The path drops datagrams larger than the base size (RFC 8899 section 4.3)."""
        self.reset()
        self._next_search = now + MTU_BLACK_HOLE_COOLDOWN

    def reset(self) -> None:
        """Start over on a new path."""
        self.current = self.base
        self._outstanding = False
        self._lost = 0
        self._searching_until_below = self._ceiling + 1
        self._next_search = 0.0
