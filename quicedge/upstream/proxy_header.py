"""The header of the PROXY protocol, which tells an origin who the client of a connection is.

HAProxy's `doc/proxy-protocol.txt`, sections 2.1 and 2.2.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Protocol

from quicedge.config.schema import ProxyVersion

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LOCAL, _PROXY = 0x20, 0x21
_STREAM_OF_FAMILY = {4: 0x11, 6: 0x21}
_HEAD = struct.Struct("!12sBBH")
_PORTS = struct.Struct("!HH")
_UNSPECIFIED = {4: ipaddress.ip_address("0.0.0.0"), 6: ipaddress.ip_address("::")}


class Peer(Protocol):
    """The client of a request, as far as origins are told."""

    @property
    def address(self) -> tuple[str, int] | None:
        """IP address and port; None until validated."""

    @property
    def local_address(self) -> tuple[str, int] | None:
        """The address and port that it connected to."""


def proxy_header(version: ProxyVersion, peer: Peer | None) -> bytes:
    """What precedes the requests of a client; without one, or an address, the edge's own."""
    address = peer.address if peer is not None else None
    if peer is None or address is None:
        return b"PROXY UNKNOWN\r\n" if version is ProxyVersion.V1 else _v2(_LOCAL, 0, b"")
    source = _parse(address[0])
    local = peer.local_address
    port = local[1] if local is not None else 0
    destination = _parse(local[0]) if local is not None else _UNSPECIFIED[source.version]
    if destination.version != source.version:
        # One family serves both: the address that the client sees is not known here.
        destination = _UNSPECIFIED[source.version]
    if version is ProxyVersion.V1:
        return f"PROXY TCP{source.version} {source} {destination} {address[1]} {port}\r\n".encode()
    ends = source.packed + destination.packed + _PORTS.pack(address[1], port)
    return _v2(_PROXY, _STREAM_OF_FAMILY[source.version], ends)


def _parse(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address without its zone, as IPv4 if it is mapped."""
    found = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def _v2(command: int, kind: int, addresses: bytes) -> bytes:
    return _HEAD.pack(_SIGNATURE, command, kind, len(addresses)) + addresses
