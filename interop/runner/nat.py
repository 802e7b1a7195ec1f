"""A NAT on the server's side of the bottleneck that rebinds every flow it knows, at set times."""

from __future__ import annotations

import ipaddress
import math
import random

from interop.runner.packet import Packet

Endpoint = tuple[ipaddress.IPv4Address, int]
CLIENT_NETWORK = "193.167.0."


class RebindingNat:
    """Translates IPv4 UDP only; a packet to a binding that is gone is dropped.

    The first binding of a flow is the client's own address and port. `first` seconds after the
    first flow began and every `every` seconds after that (0: never again), each known flow gets a
    fresh random port and, with `change_address`, a fresh address of the client's network. So a
    client that is slow to start has as long for its handshake as any other.
    """

    def __init__(
        self, first: float, every: float, change_address: bool, rng: random.Random
    ) -> None:
        self._first = first
        self._next = math.inf
        self._every = every
        self._change_address = change_address
        self._rng = rng
        self._outside: dict[Endpoint, Endpoint] = {}
        self._inside: dict[Endpoint, Endpoint] = {}

    def outbound(self, packet: Packet, now: float) -> None:
        """Translate a packet on its way to the server."""
        self._rebind(now)
        if not (packet.is_udp and packet.version == 4):
            return
        inside = (packet.source, packet.source_port)
        outside = self._outside.get(inside)  # type: ignore[arg-type]
        if outside is None:
            if not self._outside:
                self._next = now + self._first
            self._bind(inside, inside)  # type: ignore[arg-type]
        elif outside != inside:
            packet.set_source(*outside)

    def inbound(self, packet: Packet, now: float) -> bool:
        """Translate a packet on its way to the client; False when its binding is gone."""
        self._rebind(now)
        if not (packet.is_udp and packet.version == 4):
            return True
        outside = (packet.destination, packet.destination_port)
        inside = self._inside.get(outside)  # type: ignore[arg-type]
        if inside is None:
            return False
        if inside != outside:
            packet.set_destination(*inside)
        return True

    def _bind(self, inside: Endpoint, outside: Endpoint) -> None:
        self._outside[inside] = outside
        self._inside[outside] = inside

    def _rebind(self, now: float) -> None:
        while now >= self._next:
            self._next = self._next + self._every if self._every else math.inf
            known = list(self._outside.items())
            self._inside.clear()
            for inside, outside in known:
                self._bind(inside, self._fresh(outside))

    def _fresh(self, outside: Endpoint) -> Endpoint:
        while True:
            address, port = outside[0], self._rng.randint(1, 65535)
            if self._change_address:
                address = ipaddress.IPv4Address(f"{CLIENT_NETWORK}{self._rng.randint(1, 254)}")
                if address == outside[0] or str(address) == f"{CLIENT_NETWORK}100":
                    continue
            if port != outside[1] and (address, port) not in self._inside:
                return address, port
