"""A named group of origin servers."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from quicedge.config.addresses import parse_resolver
from quicedge.config.schema import OriginProtocol, OriginServer
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.config.unusable import UnusableError
from quicedge.telemetry.discovery import DiscoveryStats
from quicedge.telemetry.upstreams import HedgeResult, UpstreamState
from quicedge.upstream.address import Address, address_of
from quicedge.upstream.breaker import Breaker
from quicedge.upstream.connect import tls_context
from quicedge.upstream.deadline import DeadlinePool
from quicedge.upstream.discovered import Discovered, Resolver, look_up
from quicedge.upstream.discovery import Discovery
from quicedge.upstream.hedging import Hedging
from quicedge.upstream.member import Member, TlsContexts
from quicedge.upstream.opening import open_stream
from quicedge.upstream.selection import Selection
from quicedge.upstream.server import Server

_PRIORITIES = 1 << 16
"""Of SRV records: they order the servers within a tier."""


class _Entry(NamedTuple):
    """An entry of `servers`."""

    settings: OriginServer
    address: Address
    """Of the server, or what the addresses of all have in common."""
    discovery: Discovery | None


class _Wanted(NamedTuple):
    """A server that the upstream should have: which entry it is of, and where it is."""

    entry: int
    address: Address


class Upstream:
    """Opens requests on its servers, which come and go if they are looked up in DNS.

    Its configuration is immutable: a reload builds a new one and calls `retire` on this one;
    `close` is the last call. Raises UnusableError if a server or the CA file of `config` is
    invalid.
    """

    def __init__(
        self,
        name: str,
        config: UpstreamConfig,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        previous: Upstream | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`previous`: that of the same name before a reload, whose servers are known already;
        `resolver`: where they are looked up, by default as configured."""
        self.name = name
        self.config = config
        self.loop = loop or asyncio.get_running_loop()
        self.deadlines = DeadlinePool(self.loop)
        self.selection = Selection((), config)
        self.breaker: Breaker | None = None
        if config.circuit_breaker is not None:
            self.breaker = Breaker(name, config.circuit_breaker)
        self.hedges: dict[HedgeResult, int] = {}
        """Requests that took longer than hedging waits, of all routes with hedging."""
        self.hedging: Hedging | None = None
        if config.hedge is not None:
            self.hedging = Hedging(config.hedge, self.hedges)
        self.servers: tuple[Server, ...] = ()
        self._members: dict[_Wanted, Member] = {}
        self._leaving: list[Member] = []
        """What is left of servers that DNS no longer names."""
        try:
            addresses = [address_of(origin) for origin in config.origins]
        except ValueError as error:
            raise UnusableError(f"upstreams.{name}.servers", error) from None
        self._tls = self._tls_contexts(any(address.tls for address in addresses))
        self._entries: list[_Entry] = [
            _Entry(origin, address, self._discovery(origin, address, resolver, previous))
            for origin, address in zip(config.origins, addresses, strict=True)
        ]
        self._change_servers()

    def _tls_contexts(self, are_needed: bool) -> TlsContexts:
        if not are_needed:
            return TlsContexts(None, None)
        config = self.config
        try:
            context, tunnels = tls_context(config), None
            if config.protocol is OriginProtocol.AUTO:
                http1 = msgspec.structs.replace(config, protocol=OriginProtocol.HTTP_1_1)
                tunnels = tls_context(http1)
        except ssl.SSLError as error:
            raise UnusableError(
                f"upstreams.{self.name}.tls_ca", f"{config.tls_ca}: holds no PEM certificate"
            ) from error
        except OSError as error:
            reason = f"{config.tls_ca}: {error.strerror or error}"
            raise UnusableError(f"upstreams.{self.name}.tls_ca", reason) from error
        return TlsContexts(context, tunnels)

    # --- servers --------------------------------------------------------------------------------

    def _discovery(
        self,
        origin: OriginServer,
        address: Address,
        resolver: Resolver | None,
        previous: Upstream | None,
    ) -> Discovery | None:
        """What looks the servers of an entry up, if they are."""
        if origin.discover is None:
            return None
        if resolver is None:
            resolver = self._resolver
        known = frozenset[Discovered]()
        if previous is not None and previous.config.resolvers == self.config.resolvers:
            known = previous.known_servers(origin)
        return Discovery(
            self.name,
            address.host,
            functools.partial(look_up, origin, resolver),
            self._change_servers,
            self.loop,
            known=known,
        )

    @functools.cached_property
    def _resolver(self) -> Resolver:
        # Imported only where it is needed: most edges discover nothing.
        from quicedge.upstream.resolver import DnsResolver

        return DnsResolver([parse_resolver(text) for text in self.config.resolvers])

    def known_servers(self, origin: OriginServer) -> frozenset[Discovered]:
        """The servers of an entry that DNS has named last; for the next upstream of this name."""
        for entry in self._entries:
            same = (entry.settings.url, entry.settings.discover) == (origin.url, origin.discover)
            if same and entry.discovery is not None:
                return entry.discovery.servers
        return frozenset()

    def _wanted(self) -> Iterator[tuple[_Wanted, float, int]]:
        """The servers as they are known now, with their weights and tiers."""
        for index, (settings, address, discovery) in enumerate(self._entries):
            tier = settings.tier * _PRIORITIES
            if discovery is None:
                yield _Wanted(index, address), settings.weight, tier
                continue
            # In an order that all workers share.
            for found in sorted(discovery.servers):
                wanted = _Wanted(index, address.at(found.host, found.port))
                yield wanted, settings.weight * found.weight, tier + found.priority

    def _change_servers(self) -> None:
        """Take the servers that are known now; what runs on others ends there."""
        before, self._members = self._members, {}
        established = {wanted.entry for wanted in before}
        for wanted, weight, tier in self._wanted():
            member = before.pop(wanted, None)
            if member is None:
                member = Member(wanted.address, self.config, self._tls, self.loop, self.deadlines)
                if wanted.entry in established:
                    member.server.health.joined()
            member.server.base_weight, member.server.tier = weight, tier
            self._members[wanted] = member
        self.servers = tuple(member.server for member in self._members.values())
        self._leaving = [member for member in self._leaving if not member.is_empty]
        self._leaving += before.values()
        looked_up = [entry.discovery for entry in self._entries if entry.discovery is not None]
        self.selection.use(
            self.servers, are_looked_up=not all(each.has_looked_up for each in looked_up)
        )
        for member in before.values():
            member.depart()

    # --- requests -------------------------------------------------------------------------------

    open = open_stream

    @property
    def is_usable(self) -> bool:
        """Whether a reload may keep it."""
        return True

    @property
    def is_contended(self) -> bool:
        """Whether requests wait for resources that others hold."""
        return any(pool.is_contended for pool in self._pools())

    def reclaim(self) -> None:
        """Take resources that others wait for from stalled clients; call about once per second."""
        for pool in self._pools():
            pool.reclaim()

    def _pools(self) -> Iterator[Server]:
        for member in self._members.values():
            yield from member.pools

    def stats(self) -> dict[str, dict[str, int]]:
        """Gauges and counters per server (`Server.stats`); those that leave until they are idle."""
        leaving = (member.server for member in self._leaving if not member.is_empty)
        return {server.address.text: server.stats() for server in (*leaving, *self.servers)}

    def discoveries(self) -> list[DiscoveryStats]:
        """The state of each name whose servers are looked up."""
        found = (entry.discovery for entry in self._entries)
        return [discovery.stats() for discovery in found if discovery is not None]

    def state(self) -> UpstreamState:
        """What is known of it as a whole."""
        hedges = {result.value: count for result, count in self.hedges.items()}
        state = UpstreamState(hedges=hedges)
        if self.breaker is not None:
            state.circuit = self.breaker.state
            state.circuit_opened = self.breaker.opened
            state.circuit_refused = self.breaker.refused
        return state

    def retire(self) -> None:
        """Serve what is on its way; close idle connections now, others when they become idle."""
        for entry in self._entries:
            if entry.discovery is not None:
                entry.discovery.close()
        for member in (*self._members.values(), *self._leaving):
            member.retire()
        self.selection.expect_nothing()

    async def close(self, grace: float = 0.0) -> None:
        """Accept no more requests, wait up to `grace` seconds for running ones, then close all."""
        self.retire()
        members = (*self._members.values(), *self._leaving)
        for member in members:
            member.stop()
        await asyncio.gather(*(member.close(grace) for member in members))
