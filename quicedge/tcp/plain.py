"""Connections without TLS: the same limits, counted with all others."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from quicedge.config.host_port import HostPort
from quicedge.shares.connections import AdmissionReason, Connections
from quicedge.shares.prefixes import Networks, packed
from quicedge.tcp.attaching import attach
from quicedge.tcp.listener import Listener
from quicedge.tcp.proxy_protocol import ProxyHeaderError, read_header
from quicedge.tcp.sockets import reset
from quicedge.tcp.transport import HandshakeFailure

MakeProtocol = Callable[[HostPort, Callable[[], None]], asyncio.Protocol]
"""Makes what the connection of a client speaks; it calls its argument when that is lost."""

_UNKNOWN = b""
"""The address of clients whose PROXY header is still to come."""


def refusal(connections: Connections, address: bytes) -> AdmissionReason | None:
    """Why a client is not let in, apart from handshakes and rates; None if it is."""
    if connections.closed is not None:
        return connections.closed
    if not connections.permits(address):
        return AdmissionReason.DENIED
    return connections.crowded(address)


def proxy_refusal(
    connections: Connections, address: bytes, proxies: Networks
) -> AdmissionReason | None:
    """Why a proxy is not let in, before it says for whom it speaks."""
    if proxies.longest(address) < 0:
        return AdmissionReason.UNTRUSTED_PROXY
    if connections.closed is not None:
        return connections.closed
    crowded = connections.crowded(_UNKNOWN)
    return crowded if crowded is AdmissionReason.CONNECTIONS else None


class PlainArrivals:
    """Gives accepted connections their protocol. Call `check` about once per second."""

    def __init__(
        self,
        connections: Connections,
        make: MakeProtocol,
        *,
        header_timeout: float,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
    ) -> None:
        """`header_timeout`: seconds in which a PROXY header has to be complete."""
        self.counters: Counter[str] = Counter()
        """`accepted`, `refused_*`, `failed_*`."""
        self.header_timeout = header_timeout
        self._connections = connections
        self._make = make
        self._loop = loop
        self._clock = clock
        self._introducing: dict[_Introduction, float] = {}
        """Since when PROXY headers are awaited; oldest first."""

    def accept(self, sock: socket.socket, sockaddr: tuple[Any, ...], listener: Listener) -> None:
        """Take an accepted connection (`listener.Accepted`)."""
        remote = HostPort.of(sockaddr)
        address = packed(remote.host)
        proxies = listener.proxies
        if proxies is None:
            reason = refusal(self._connections, address)
        else:
            reason = proxy_refusal(self._connections, address, proxies)
        if reason is not None:
            self.counters[f"refused_{reason}"] += 1
            reset(sock)
            return
        self.counters["accepted"] += 1
        protocol: asyncio.Protocol
        if proxies is None:
            lost = self._open(address)
            protocol = self._make(remote, lost)
        else:
            lost = self._open(_UNKNOWN)
            protocol = introduction = _Introduction(self, remote, lost)
            self._introducing[introduction] = self._clock()
        attach(self._loop, protocol, sock, lambda _: lost())

    def _open(self, address: bytes) -> Callable[[], None]:
        """Count a connection of an address; returns what to call when it is lost."""
        self._connections.note_opened(address)
        self._connections.note_handshake_over(address)
        return lambda: self._connections.note_closed(address)

    def introduced(self, client: HostPort) -> asyncio.Protocol | None:
        """A PROXY header has named the client: what the connection speaks; None: it is refused."""
        address = packed(client.host)
        reason = refusal(self._connections, address)
        if reason is not None:
            self.counters[f"refused_{reason}"] += 1
            return None
        return self._make(client, self._open(address))

    def introduction_over(self, introduction: _Introduction) -> None:
        """The header is complete, or the connection lost."""
        self._introducing.pop(introduction, None)

    def check(self, now: float) -> None:
        """Cut off connections whose PROXY header does not come."""
        late = now - self.header_timeout
        for introduction, since in list(self._introducing.items()):
            if since > late:
                return
            introduction.refuse(HandshakeFailure.TIMEOUT)


class _Introduction(asyncio.Protocol):
    """Reads the PROXY header of a connection, then makes way for what the connection speaks."""

    def __init__(
        self, arrivals: PlainArrivals, proxy: HostPort, on_lost: Callable[[], None]
    ) -> None:
        self._arrivals = arrivals
        self._proxy = proxy
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        try:
            header = read_header(self._data)
        except ProxyHeaderError:
            self.refuse(HandshakeFailure.PROXY_HEADER)
            return
        if header is None:
            return
        transport = self._transport
        assert transport is not None
        protocol = self._arrivals.introduced(header.source or self._proxy)
        if protocol is None:
            transport.abort()
            return
        self._arrivals.introduction_over(self)
        self._on_lost()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if len(self._data) > header.size:
            protocol.data_received(self._data[header.size :])

    def refuse(self, failure: HandshakeFailure) -> None:
        """End a connection without a valid header."""
        if self._transport is not None and not self._transport.is_closing():
            self._arrivals.counters[f"failed_{failure.value}"] += 1
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrivals.introduction_over(self)
        self._on_lost()
