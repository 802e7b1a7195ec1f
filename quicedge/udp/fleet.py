"""Forwarding between hosts: datagrams of connections that another host of the fleet owns.

Behind a balancer that knows only addresses and ports, a client whose address changes, or every
client when the set of hosts changes, reaches any host. The server ID in the connection ID says
which one owns the connection; the datagram is forwarded there, once. The owner answers the client
directly if it has the address that the client sent to (ECMP, direct server return), or else
through the host at which the datagram arrived (NAT, Kubernetes services).
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quicedge.config.limits import (
    FLEET_ADDRESS_CHECK,
    FLEET_DATAGRAMS_PER_SECOND,
    FLEET_HOPS,
    FLEET_PEER_TIMEOUT,
    UDP_PATHS_REMEMBERED,
    UDP_SEND_BUFFER,
)
from quicedge.shares.rates import RateLimit
from quicedge.udp import kernel
from quicedge.udp.fleet_messages import (
    FIRST_QUIC_BYTE,
    ROUTING_FIRST,
    Body,
    FleetOpener,
    FleetSealer,
    Forward,
    Kind,
    Present,
    Probe,
    Relay,
)
from quicedge.udp.forwarding import Forwarder
from quicedge.udp.quic_lb import QuicLb, ServerIds
from quicedge.udp.socket import FourTuple, UdpSocket

Address = tuple[Any, ...]
Deliver = Callable[[bytes, FourTuple, int], None]


class FleetForwarder:
    """One worker's end of the fleet.

    `forward` takes every datagram of an unknown connection. `local` steers between the workers of
    this host, if there are several; `deliver` receives what other hosts forwarded. Datagrams that
    cannot be sent are dropped, as a network would, and counted.
    """

    def __init__(
        self,
        server_id: bytes,
        ids: ServerIds,
        secret: bytes,
        *,
        instance: bytes,
        sockets: Sequence[UdpSocket],
        local: Forwarder | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.deliver: Deliver = lambda data, path, ecn: None
        self._server_id = server_id
        self._instance = instance
        self._ids = ids
        self._sockets = sockets
        self._local = local
        self._clock = clock
        self._wall = wall
        self._sealer = FleetSealer(secret)
        self._opener = FleetOpener(secret, ids.length, wall)
        self._peers: dict[bytes, Address] = {}
        self._known_at = clock() + FLEET_PEER_TIMEOUT
        """From then on a peer that has not answered is taken to be down."""
        self._budget = RateLimit(FLEET_DATAGRAMS_PER_SECOND)
        self._outgoing: dict[int, socket.socket] = {}
        self._own_hosts: dict[str, tuple[bool, float]] = {}
        self._relays: dict[tuple[bytes, str, int], RelaySocket] = {}
        self._is_arriving = False

    def use_peers(self, peers: Mapping[bytes, Address]) -> None:
        """The hosts that answer, by server ID."""
        self._peers = dict(peers)

    def use_configurations(self, configurations: Sequence[QuicLb]) -> None:
        """Decode the server IDs of these from now on, and go on with those that they replace."""
        self._ids.add(configurations)

    def forward(self, data: bytes, path: FourTuple, ecn: int) -> bool:
        """Take a datagram of an unknown connection; False if this worker must deal with it."""
        first = data[0]
        if first < FIRST_QUIC_BYTE:
            return self._receive(data, path, ecn)
        is_long = first >= 0x80
        owner = self._ids.of(data, 6, data[5]) if is_long and len(data) > 6 else None
        if not is_long:
            owner = self._ids.of(data, 1, self._ids.length)
            if owner is None:
                # A host may have a newer configuration: a reset from us would end its connection.
                self.counters["dropped_server_id"] += 1
                return True
        address = None if owner is None else self._peers.get(owner)
        if owner == self._server_id or (is_long and address is None):
            # Ours, or a new client's: the connection ID that it chose may look like ours.
            return self._local is not None and self._local.forward(data, path, ecn)
        if self._is_arriving:
            self.counters["fleet_dropped_hops"] += 1
            return True
        if address is None:
            # Without an owner the connection is lost, and its client should know.
            return self._clock() < self._known_at
        self._send_forward(data, path, ecn, address, 6 if is_long else 1)
        return True

    def _send_forward(
        self, data: bytes, path: FourTuple, ecn: int, address: Address, cid_at: int
    ) -> None:
        routing = ROUTING_FIRST + data[cid_at + 1 : cid_at + self._ids.length]
        body = Forward(
            self._wall(), FLEET_HOPS - 1, self._server_id, ecn, path.local_host,
            int(path.socket.address[1]), path.remote, data,
        )  # fmt: skip
        if self._send(Kind.FORWARD, routing, body, address):
            self.counters["fleet_forwarded"] += 1

    def relay(
        self, data: bytes, path: FourTuple, ecn: int, via: bytes, local: tuple[str, int]
    ) -> None:
        """Send a datagram to a client through the host that its datagrams arrive at."""
        address = self._peers.get(via)
        if address is None:
            self.counters["fleet_dropped_peer"] += 1
            return
        body = Relay(self._wall(), ecn, *local, path.remote, data)
        if self._send(Kind.RELAY, self._random_routing(), body, address):
            self.counters["fleet_relayed"] += 1

    def _random_routing(self) -> bytes:
        return ROUTING_FIRST + os.urandom(self._ids.length - 1)

    def _send(self, kind: Kind, routing: bytes, body: Body, address: Address) -> bool:
        if not self._budget.allow(self._clock()):
            self.counters["fleet_dropped_rate"] += 1
            return False
        try:
            self._socket_for(address).sendto(self._sealer.seal(kind, routing, body), address)
        except OSError:
            self.counters["fleet_dropped_send"] += 1
            return False
        return True

    def _socket_for(self, address: Address) -> socket.socket:
        """A socket without "don't fragment": a message is longer than the datagram in it."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = self._outgoing.get(family)
        if sock is None:
            sock = self._outgoing[family] = socket.socket(family, socket.SOCK_DGRAM)
            sock.setblocking(False)
            kernel.set_option(sock, socket.SOL_SOCKET, socket.SO_SNDBUF, UDP_SEND_BUFFER)
            if kernel.IS_LINUX:
                v6 = family == socket.AF_INET6
                level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
                option = kernel.IPV6_MTU_DISCOVER if v6 else kernel.IP_MTU_DISCOVER
                kernel.set_option(sock, level, option, kernel.PMTUDISC_DONT)
        return sock

    # --- messages of other hosts ----------------------------------------------------------------

    def _receive(self, message: bytes, path: FourTuple, ecn: int) -> bool:
        """Process a message; False if it is none."""
        if self._local is not None and self._local.forward(message, path, ecn):
            return True
        body = self._opener.open(message)
        match body:
            case Forward():
                self._receive_forward(body)
            case Relay():
                self._receive_relay(body)
            case Probe():
                answer = Present(self._wall(), body.challenge, self._server_id, self._instance)
                message = self._sealer.seal(Kind.PRESENT, self._random_routing(), answer)
                path.socket.send([message], path)
            case _:
                self.counters["fleet_refused"] += 1
                return False
        return True

    def _receive_forward(self, body: Forward) -> None:
        sock = self._listener(body.remote, body.port, body.host)
        if sock is None or body.hops < 0 or not body.data or body.data[0] < FIRST_QUIC_BYTE:
            self.counters["fleet_refused"] += 1
            return
        self.counters["fleet_received"] += 1
        if body.host and not self._is_own(sock, body):
            path = self._relay_socket(body, sock).path(body.remote)
        else:
            path = sock.path(body.remote, _pktinfo(body.host))
        self._is_arriving = True
        try:
            self.deliver(body.data, path, body.ecn)
        finally:
            self._is_arriving = False

    def _receive_relay(self, body: Relay) -> None:
        sock = self._listener(body.remote, body.port, body.host)
        if sock is None or not body.data:
            self.counters["fleet_refused"] += 1
            return
        self.counters["fleet_relays_sent"] += 1
        sock.send([body.data], sock.path(body.remote, _pktinfo(body.host)), body.ecn)

    def _listener(self, remote: Address, port: int, host: str) -> UdpSocket | None:
        """The socket on that port, or else any of the client's family; the one bound to `host` is
        preferred."""
        family = socket.AF_INET6 if ":" in str(remote[0]) else socket.AF_INET
        found = [sock for sock in self._sockets if sock.family == family]
        found.sort(key=lambda sock: (sock.address[1] != port, sock.address[0] != host))
        return found[0] if found else None

    def _is_own(self, sock: UdpSocket, body: Forward) -> bool:
        """Whether this host can answer from the address that the client sent to."""
        if sock.address[1] != body.port:
            return False
        now = self._clock()
        known = self._own_hosts.get(body.host)
        if known is None or now > known[1]:
            if len(self._own_hosts) >= UDP_PATHS_REMEMBERED:
                self._own_hosts.clear()
            known = self._own_hosts[body.host] = (
                _can_bind(body.host), now + FLEET_ADDRESS_CHECK,
            )  # fmt: skip
        return known[0]

    def _relay_socket(self, body: Forward, sock: UdpSocket) -> RelaySocket:
        key = body.via, body.host, body.port
        found = self._relays.get(key)
        if found is None:
            if len(self._relays) >= UDP_PATHS_REMEMBERED:
                self._relays.clear()
            found = self._relays[key] = RelaySocket(self, sock, *key)
        return found

    def close(self) -> None:
        for sock in self._outgoing.values():
            sock.close()


class RelaySocket:
    """Stands for a socket of another host, through which the clients behind it are answered."""

    def __init__(
        self, fleet: FleetForwarder, sock: UdpSocket, via: bytes, host: str, port: int
    ) -> None:
        self.family = sock.family
        self.address = sock.address
        self.name = sock.name
        self._fleet = fleet
        self._via = via
        self._source = host, port
        self._local = kernel.pktinfo(host)
        self._paths: dict[Address, FourTuple] = {}

    def path(self, remote: Address) -> FourTuple:
        """The path to a client; the same object each time."""
        path = self._paths.get(remote)
        if path is None:
            if len(self._paths) >= UDP_PATHS_REMEMBERED:
                self._paths.clear()
            path = self._paths[remote] = FourTuple(remote, self._local, self)
        return path

    def send(self, datagrams: list[bytes], path: FourTuple, ecn: int = 0) -> None:
        for data in datagrams:
            self._fleet.relay(data, path, ecn, self._via, self._source)

    def send_segments(self, data: bytes, segment: int, path: FourTuple, ecn: int = 0) -> None:
        self.send([data[at : at + segment] for at in range(0, len(data), segment)], path, ecn)


def _pktinfo(host: str) -> bytes:
    return kernel.pktinfo(host) if host else b""


def _can_bind(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True
