"""Which preferred addresses of servers a client accepts (RFC 9000 sections 9.6 and 21.5.6)."""

from __future__ import annotations

import ipaddress
from typing import Any

from quicedge.quic.transport_parameters import PreferredAddressParameter

_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


def usable_address(preferred: PreferredAddressParameter, current: Any) -> Any | None:
    """The preferred address in the family and format of the current address, or None.

    Malformed addresses, and those usable for request forgery, are rejected.
    """
    try:
        host = ipaddress.ip_address(current[0])
    except (TypeError, ValueError, IndexError):
        return None
    prefix = ""
    candidate = preferred.ipv4 if host.version == 4 else preferred.ipv6
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        # A dual-stack socket reports IPv4 peers this way.
        host, prefix, candidate = host.ipv4_mapped, "::ffff:", preferred.ipv4
    if candidate is None:
        return None
    target = ipaddress.ip_address(candidate[0])
    mapped = isinstance(target, ipaddress.IPv6Address) and target.ipv4_mapped is not None
    if (
        candidate[1] == 0
        or target.is_multicast
        or target == _BROADCAST
        or mapped
        or (target.is_loopback and not host.is_loopback)
    ):
        return None
    address = (prefix + candidate[0], candidate[1], *current[2:])
    return None if address == tuple(current) else address
