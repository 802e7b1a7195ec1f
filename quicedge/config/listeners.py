"""The listeners of a configuration: each address with what it speaks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from quicedge.config.host_port import HostPort
from quicedge.config.schema import Config, ListenerProtocol

HTTP_PORT, HTTPS_PORT = 80, 443

QUIC_PROTOCOLS: frozenset[ListenerProtocol] = frozenset({"h3"})


class Transport(StrEnum):
    """What carries a connection to the edge."""

    UDP = "UDP"
    TCP = "TCP"

    @property
    def socket_kind(self) -> socket.SocketKind:
        return socket.SOCK_DGRAM if self is Transport.UDP else socket.SOCK_STREAM


class Listening(NamedTuple):
    """One entry of `listen`, with the defaults filled in."""

    address: str
    """`host:port` or `[v6]:port`, as written."""
    protocols: tuple[ListenerProtocol, ...]
    """In order of preference."""
    proxy_protocol: tuple[str, ...] | None = None
    """Networks that begin TCP connections with a PROXY header; None: nobody does."""

    @property
    def quic(self) -> bool:
        """Whether it needs a UDP socket."""
        return not QUIC_PROTOCOLS.isdisjoint(self.protocols)

    @property
    def tcp_protocols(self) -> tuple[ListenerProtocol, ...]:
        """What it speaks over TLS on TCP; none: no TCP socket."""
        return tuple(name for name in self.protocols if name not in QUIC_PROTOCOLS)

    @property
    def transports(self) -> tuple[Transport, ...]:
        """The kinds of sockets that it needs."""
        return (
            *((Transport.UDP,) if self.quic else ()),
            *((Transport.TCP,) if self.tcp_protocols else ()),
        )


def listeners(config: Config) -> Iterator[Listening]:
    """All listeners, in the order of `listen`."""
    for item in config.listen:
        if isinstance(item, str):
            yield Listening(item, tuple(config.protocols))
        else:
            protocols = config.protocols if item.protocols is None else item.protocols
            proxies = None if item.proxy_protocol is None else tuple(item.proxy_protocol)
            yield Listening(item.address, tuple(protocols), proxies)


class Redirecting(NamedTuple):
    """An address on which plain HTTP is redirected."""

    address: str
    required: bool
    """The configuration asks for it: failing to listen is an error."""
    proxy_protocol: tuple[str, ...] | None = None
    """Who begins connections with a PROXY header, and alone may connect."""


def redirecting(config: Config) -> Iterator[Redirecting]:
    """The addresses of `redirect_http`."""
    wanted = config.redirect_http
    if isinstance(wanted, list):
        for given in wanted:
            if isinstance(given, str):
                yield Redirecting(given, required=True)
            else:
                proxies = None if given.proxy_protocol is None else tuple(given.proxy_protocol)
                yield Redirecting(given.address, True, proxies)
        return
    if wanted is False:
        return
    for item in listeners(config):
        host, port = HostPort.parse(item.address)
        if item.tcp_protocols and (wanted or port == HTTPS_PORT):
            address = str(HostPort(host, HTTP_PORT))
            # Load balancers in front of an address are in front of its port 80 too.
            yield Redirecting(address, wanted is True, item.proxy_protocol)
