"""Which hosts of the fleet are up, and where: every configured address is asked again and again."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import structlog

from quicedge.admin.view import FleetStatus, PeerStatus
from quicedge.config.host_port import HostPort
from quicedge.config.limits import (
    FLEET_PEERS,
    FLEET_PROBE_INTERVAL,
    FLEET_PROBES_MISSED,
    FLEET_RESOLVE_INTERVAL,
    REFUSAL_LOG_INTERVAL,
)
from quicedge.quic.fleet_identity import FleetIdentity, instance_of
from quicedge.telemetry.bounded_log import BoundedLog
from quicedge.udp.fleet_messages import (
    ROUTING_FIRST,
    FleetOpener,
    FleetSealer,
    Kind,
    Present,
    Probe,
)
from quicedge.worker.control import Peer

log = structlog.get_logger("quicedge.supervisor")

_CHALLENGE_LENGTH = 8


class _Candidate:
    """An address that may lead to a host of the fleet."""

    def __init__(self, address: HostPort) -> None:
        self.address = address
        self.server_id: bytes | None = None
        self.instance = b""
        self.answered_at = float("-inf")
        self.asked: dict[bytes, float] = {}
        """When the probes were sent that are not answered, by challenge."""
        self.round_trip: float | None = None


class FleetDirectory(asyncio.DatagramProtocol):
    """Probes the peers and tells `on_change` who answers, whenever that changes.

    Nothing runs while there are none.
    """

    def __init__(
        self,
        secret: bytes,
        on_change: Callable[[list[Peer]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`secret`: of this host."""
        self.peers: list[Peer] = []
        """Those that answer."""
        self._instance = instance_of(secret)
        self._on_change = on_change
        self._clock = clock
        self._wall = wall
        self._identity: FleetIdentity | None = None
        self._names: list[HostPort] = []
        self._candidates: dict[HostPort, _Candidate] = {}
        self._asked: dict[bytes, _Candidate] = {}
        """By challenge of the probes that are not answered."""
        self._endpoints: dict[int, asyncio.DatagramTransport] = {}
        self._task: asyncio.Task[None] | None = None
        self._refusals = BoundedLog(self._log_conflict, REFUSAL_LOG_INTERVAL)

    def configure(self, identity: FleetIdentity | None, peers: list[str]) -> None:
        """Ask these from now on."""
        usable = identity is not None and identity.secret is not None
        self._identity = identity if usable else None
        self._names = [HostPort.parse(text) for text in peers] if usable else []
        if identity is not None and identity.secret is not None:
            self._sealer = FleetSealer(identity.secret)
            self._length = identity.server_ids().length
            self._opener = FleetOpener(identity.secret, self._length, self._wall)
        if self._names and self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """Look names up and probe until there are none or it is cancelled."""
        resolved_at = float("-inf")
        names: list[HostPort] = []
        while self._names:
            now = self._clock()
            try:
                if names != self._names or now - resolved_at >= FLEET_RESOLVE_INTERVAL:
                    names, resolved_at = self._names, now
                    await self._resolve(names)
                await self._probe_all()
            except Exception:
                # Without probes all hosts would seem to be down.
                log.exception("probing peers failed")
            self._publish()
            await asyncio.sleep(FLEET_PROBE_INTERVAL)
        self._task = None
        self._candidates = {}
        self._asked = {}
        self._publish()

    async def _resolve(self, names: list[HostPort]) -> None:
        """Keep candidates whose name can currently not be looked up: they may still answer."""
        loop = asyncio.get_running_loop()
        found: list[HostPort] = []
        complete = True
        for name in names:
            try:
                answers = await loop.getaddrinfo(name.host, name.port, type=socket.SOCK_DGRAM)
            except (OSError, UnicodeError) as error:
                complete = False
                log.warning("peer not found", peer=str(name), error=str(error))
                continue
            found += [HostPort.of(sockaddr) for *_, sockaddr in answers]
        if not complete:
            found += self._candidates
        addresses = list(dict.fromkeys(found))
        if len(addresses) > FLEET_PEERS:
            log.warning("too many peers", found=len(addresses), used=FLEET_PEERS)
        self._candidates = {
            address: self._candidates.get(address) or _Candidate(address)
            for address in addresses[:FLEET_PEERS]
        }
        self._asked = {
            challenge: candidate
            for candidate in self._candidates.values()
            for challenge in candidate.asked
        }

    async def _probe_all(self) -> None:
        for candidate in self._candidates.values():
            address = candidate.address
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            endpoint = self._endpoints.get(family)
            if endpoint is None:
                loop = asyncio.get_running_loop()
                try:
                    endpoint, _ = await loop.create_datagram_endpoint(lambda: self, family=family)
                except OSError as error:
                    log.warning("cannot probe peer", peer=str(address), error=str(error))
                    continue
                self._endpoints[family] = endpoint
            challenge = os.urandom(_CHALLENGE_LENGTH)
            if len(candidate.asked) > FLEET_PROBES_MISSED:
                oldest = next(iter(candidate.asked))
                del candidate.asked[oldest], self._asked[oldest]
            candidate.asked[challenge] = self._clock()
            self._asked[challenge] = candidate
            routing = ROUTING_FIRST + os.urandom(self._length - 1)
            body = Probe(self._wall(), challenge)
            endpoint.sendto(self._sealer.seal(Kind.PROBE, routing, body), tuple(address))

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if self._identity is None or not data:
            return
        body = self._opener.open(data)
        if not isinstance(body, Present):
            return
        candidate = self._asked.get(body.challenge)
        if candidate is None:
            return
        known = candidate.server_id, candidate.instance
        was_alive = self._alive(candidate)
        candidate.answered_at = self._clock()
        candidate.round_trip = candidate.answered_at - candidate.asked[body.challenge]
        for challenge in candidate.asked:
            del self._asked[challenge]
        candidate.asked.clear()
        candidate.server_id, candidate.instance = body.server_id, body.instance
        if not was_alive or known != (body.server_id, body.instance):
            self._publish()

    @staticmethod
    def _alive(candidate: _Candidate) -> bool:
        """Probes are counted, not seconds: a pause of this machine tells nothing of others."""
        return candidate.server_id is not None and len(candidate.asked) <= FLEET_PROBES_MISSED

    def _publish(self) -> None:
        identity = self._identity
        found: dict[bytes, _Candidate] = {}
        for candidate in self._candidates.values():
            sid = candidate.server_id
            if identity is None or sid is None or not self._alive(candidate):
                continue
            if candidate.instance == self._instance:
                continue
            other = found.setdefault(sid, candidate)
            if sid == identity.server_id or other.instance != candidate.instance:
                self._refusals.note(f"{candidate.address} {sid.hex()}", self._clock())
        if identity is not None:
            found.pop(identity.server_id, None)
        peers = [Peer(sid, *item.address) for sid, item in sorted(found.items())]
        if peers != self.peers:
            log.info("fleet changed", peers=[str(HostPort(item.host, item.port)) for item in peers])
            self.peers = peers
            self._on_change(peers)

    @staticmethod
    def _log_conflict(claim: str, count: int) -> None:
        address, _, server_id = claim.partition(" ")
        log.error("two hosts have the same server ID", server_id=server_id, peer=address)

    @property
    def status(self) -> FleetStatus | None:
        identity = self._identity
        if identity is None:
            return None
        now = self._clock()
        return FleetStatus(
            server_id=identity.server_id.hex(),
            peers=[
                PeerStatus(
                    address=str(item.address),
                    server_id=item.server_id.hex() if item.server_id is not None else None,
                    up=self._alive(item),
                    this_host=bool(item.instance) and item.instance == self._instance,
                    answered_seconds=now - item.answered_at if item.server_id is not None else None,
                    round_trip_seconds=item.round_trip,
                )
                for item in self._candidates.values()
            ],
        )

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        for endpoint in self._endpoints.values():
            endpoint.close()

    def error_received(self, exc: Exception) -> None:
        """A peer is unreachable: it does not answer, which is how we know."""
