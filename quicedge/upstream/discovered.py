"""What DNS says about the servers of an upstream."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

from quicedge.config import limits
from quicedge.config.schema import Discover, OriginServer
from quicedge.upstream.address import address_of


class DiscoveryError(Exception):
    """A look-up has led to no server, and why."""


class Discovered(NamedTuple):
    """A server that records name."""

    host: str
    """An IP address."""
    port: int
    weight: float = 1.0
    priority: int = 0
    """Servers of a higher one get requests only if none of a lower one is up (RFC 2782)."""


class Answer(NamedTuple):
    """The servers that a name stands for now, at least one."""

    servers: frozenset[Discovered]
    ttl: float
    """Seconds for which this holds."""
    problem: str = ""
    """Why it may differ from what DNS says: a part is of an earlier answer, or it is too large."""

    @property
    def refresh_after(self) -> float:
        """Seconds until the next look-up: the TTL within bounds."""
        return min(max(self.ttl, limits.DISCOVERY_MIN_TTL), limits.DISCOVERY_MAX_TTL)


class Resolver(Protocol):
    """Where servers are looked up."""

    async def addresses(self, name: str, port: int) -> Answer:
        """The servers at the addresses of a host (A, AAAA); raises DiscoveryError."""

    async def services(self, name: str) -> Answer:
        """The servers of a service (SRV); raises DiscoveryError."""


async def look_up(origin: OriginServer, resolver: Resolver) -> Answer:
    """Look the servers of an entry up once; raises DiscoveryError."""
    address = address_of(origin)
    try:
        async with asyncio.timeout(limits.DISCOVERY_LOOK_UP):
            if origin.discover is Discover.SRV:
                return await resolver.services(address.host)
            return await resolver.addresses(address.host, address.port)
    except TimeoutError:
        seconds = limits.DISCOVERY_LOOK_UP
        raise DiscoveryError(f"{address.host}: not looked up in {seconds:g} s") from None
