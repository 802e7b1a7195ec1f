"""Looks up the servers of upstreams in DNS, with dnspython."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdata
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

from quicedge.config import limits
from quicedge.config.addresses import DNS_PORT
from quicedge.config.host_port import HostPort
from quicedge.upstream.discovered import Answer, Discovered, DiscoveryError
from quicedge.upstream.dns_server import DnsServer

RESOLV_CONF = "/etc/resolv.conf"


class _Records(NamedTuple):
    """Of one name and type; none if there are none."""

    values: tuple[dns.rdata.Rdata, ...] = ()
    ttl: float = 0.0
    problem: str = ""
    """Why these are the last ones known, if any, and not the current ones."""


class _Kept(NamedTuple):
    values: tuple[dns.rdata.Rdata, ...]
    expires: float


class _Addresses(NamedTuple):
    """Of a host in both families."""

    hosts: list[str]
    ttl: float
    problem: str
    """Of a family that could not be looked up: its addresses are the last ones known."""
    is_current: bool
    """Whether at least one family could be looked up."""


class DnsResolver:
    """Asks the configured resolvers, or those of the system as they are configured at the time.

    The system's search domains and `ndots` apply as in other programs; configured resolvers are
    asked for names as they are written. Truncated answers are fetched over TCP. Records are kept
    until they expire, and longer while they cannot be looked up.
    """

    def __init__(
        self,
        resolvers: Sequence[HostPort] = (),
        *,
        resolv_conf: str = RESOLV_CONF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolvers = resolvers
        self._resolv_conf = resolv_conf
        self._clock = clock
        self._state: tuple[int, int] | None = None
        """Which state of `resolv_conf` is in use."""
        self._stub: dns.asyncresolver.Resolver | None = None
        self._backend = dns.asyncbackend.get_backend("asyncio")
        self._places = asyncio.Semaphore(limits.DISCOVERY_QUERIES)
        self._known: dict[tuple[str, str], _Kept] = {}

    async def addresses(self, name: str, port: int) -> Answer:
        found = await self._addresses(name)
        if not found.is_current:
            raise DiscoveryError(found.problem)
        if not found.hosts:
            raise DiscoveryError(found.problem or f"{name} has no address")
        servers = (Discovered(host, port) for host in found.hosts)
        return _answer(servers, found.ttl, found.problem)

    async def services(self, name: str) -> Answer:
        records = await self._ask(name, "SRV")
        if records.problem:
            raise DiscoveryError(records.problem)
        # RFC 2782: the root as the only target means that there is no such service.
        services = (item for item in records.values if isinstance(item, SRV))
        offered = [item for item in services if item.target != dns.name.root]
        if not offered:
            raise DiscoveryError(f"{name} has no server")
        offered.sort(key=lambda item: (item.priority, item.target, item.port))
        problem = ""
        if len(offered) > limits.DISCOVERY_SERVERS:
            problem = _too_many(len(offered))
            del offered[limits.DISCOVERY_SERVERS :]
        targets = list({item.target.to_text(): None for item in offered})
        addresses = dict(zip(targets, await self._all_addresses(targets), strict=True))
        problem = next((each.problem for each in addresses.values() if each.problem), problem)
        servers: list[Discovered] = []
        for item in offered:
            hosts = addresses[item.target.to_text()].hosts
            servers += (
                # The addresses of one target share what is due to it.
                Discovered(host, item.port, _weight(item.weight) / len(hosts), item.priority)
                for host in hosts
            )
        if not servers:
            raise DiscoveryError(problem or f"no server of {name} has an address")
        ttl = min([records.ttl, *(each.ttl for each in addresses.values())])
        return _answer(servers, ttl, problem)

    async def _all_addresses(self, names: Iterable[str]) -> list[_Addresses]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._addresses(name)) for name in names]
        return [task.result() for task in tasks]

    async def _addresses(self, name: str) -> _Addresses:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask(name, kind)) for kind in ("A", "AAAA")]
        both = [task.result() for task in tasks]
        return _Addresses(
            [item.to_text() for records in both for item in records.values],
            min((records.ttl for records in both if records.values), default=0.0),
            next((records.problem for records in both if records.problem), ""),
            not all(records.problem for records in both),
        )

    async def _ask(self, name: str, kind: str) -> _Records:
        known = self._known.get((name, kind))
        left = 0.0 if known is None else known.expires - self._clock()
        if known is not None and left > 0:
            return _Records(known.values, left)
        async with self._places:
            try:
                answer = await self._resolver().resolve(
                    name,
                    kind,
                    search=not self._resolvers,
                    raise_on_no_answer=False,
                    backend=self._backend,
                )
            except dns.resolver.NXDOMAIN:
                answer = None
            except (dns.exception.DNSException, OSError, EOFError) as error:
                values = () if known is None else known.values
                return _Records(values, problem=f"{name} {kind}: {_reason(error)}")
        self._known.pop((name, kind), None)
        if answer is None or answer.rrset is None:
            return _Records()
        values = tuple(answer.rrset)
        ttl = min(answer.chaining_result.minimum_ttl, limits.DISCOVERY_MAX_TTL)
        self._known[name, kind] = _Kept(values, self._clock() + ttl)
        if len(self._known) > limits.DISCOVERY_RECORDS:
            del self._known[next(iter(self._known))]
        return _Records(values, ttl)

    def _resolver(self) -> dns.asyncresolver.Resolver:
        """The resolvers to ask now; those of the system may have changed."""
        if self._resolvers:
            if self._stub is None:
                self._stub = dns.asyncresolver.Resolver(configure=False)
                self._stub.nameservers = [DnsServer(*each) for each in self._resolvers]
                _limit(self._stub)
            return self._stub
        status = os.stat(self._resolv_conf)
        state = status.st_mtime_ns, status.st_ino
        if self._stub is None or state != self._state:
            self._stub = dns.asyncresolver.Resolver(self._resolv_conf)
            self._stub.nameservers = [
                DnsServer(str(each), DNS_PORT) for each in self._stub.nameservers
            ]
            _limit(self._stub)
            self._state = state
        return self._stub


def _limit(resolver: dns.asyncresolver.Resolver) -> None:
    resolver.timeout = limits.DISCOVERY_TRY
    resolver.lifetime = limits.DISCOVERY_QUERY
    resolver.use_edns(0, 0, limits.DISCOVERY_UDP_SIZE)


def _weight(weight: int) -> float:
    """RFC 2782: one of 0 is a very small one beside others."""
    return weight or limits.DISCOVERY_LEAST_WEIGHT


def _answer(servers: Iterable[Discovered], ttl: float, problem: str) -> Answer:
    """An answer of bounded size; a server that is named again adds its weight.

    Of the priorities of one server the first counts.
    """
    best: dict[tuple[str, int], Discovered] = {}
    for server in sorted(servers, key=lambda item: (item.priority, item.host, item.port)):
        first = best.setdefault((server.host, server.port), server)
        if first is not server and first.priority == server.priority:
            weight = first.weight + server.weight
            best[server.host, server.port] = first._replace(weight=weight)
    kept = list(best.values())
    if len(kept) > limits.DISCOVERY_SERVERS:
        problem = problem or _too_many(len(kept))
        del kept[limits.DISCOVERY_SERVERS :]
    return Answer(frozenset(kept), ttl, problem)


def _too_many(count: int) -> str:
    return f"{count} servers, of which {limits.DISCOVERY_SERVERS} are used"


def _problem_of(failed: dns.resolver.NoNameservers) -> str:
    """What the resolver that was asked last has said, or done."""
    for server, _, _, problem, _ in reversed(failed.kwargs["errors"]):
        return f"{server}: {problem if isinstance(problem, str) else _reason(problem)}"
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, dns.exception.Timeout):
        return "no resolver answers"
    if isinstance(error, dns.resolver.NoNameservers):
        return _problem_of(error) or "there is no resolver"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
