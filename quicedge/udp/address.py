"""Where datagrams come from and go to."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from quicedge.udp.socket import UdpSocket


class FourTuple(NamedTuple):
    """A path as a server sees it: the peer, and the local address and socket it wrote to."""

    remote: tuple[Any, ...]
    """The peer's sockaddr."""
    local: bytes
    """A pktinfo control message to answer from the address that was asked; b"" when unknown."""
    socket: UdpSocket

    @property
    def local_host(self) -> str:
        """The local IP address in text; empty when unknown."""
        if len(self.local) == 12:  # struct in_pktinfo: index, spec_dst, addr
            return socket.inet_ntop(socket.AF_INET, self.local[4:8])
        if len(self.local) == 20:  # struct in6_pktinfo: addr, index
            return socket.inet_ntop(socket.AF_INET6, self.local[:16])
        return ""

    def __str__(self) -> str:
        return format_address(self.remote)


def format_address(address: tuple[Any, ...]) -> str:
    """`host:port` or `[v6]:port` of a sockaddr."""
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
