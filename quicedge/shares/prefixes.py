"""Client addresses as numbers: networks to look them up in, and prefixes to count them by."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache

from quicedge.config.limits import ADDRESSES_REMEMBERED

PREFIX_V4 = 24
"""Bits of an IPv4 address that distinguish networks."""
PREFIX_V6 = 56
"""Bits of an IPv6 address: what a household is given (RFC 6177)."""

_MAPPED = bytes(10) + b"\xff\xff"


@lru_cache(maxsize=ADDRESSES_REMEMBERED)
def packed(host: str) -> bytes:
    """An address as 4 or 16 bytes; an IPv4-mapped one as 4. Empty when it is none."""
    try:
        if ":" not in host:
            return socket.inet_pton(socket.AF_INET, host)
        data = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):  # ValueError: a null character
        return b""
    return data[12:] if data.startswith(_MAPPED) else data


@lru_cache(maxsize=ADDRESSES_REMEMBERED)
def prefix_of(address: bytes) -> bytes:
    """What addresses of one network share: its first 24 bits, or 56 of IPv6."""
    return address[: PREFIX_V4 // 8] if len(address) == 4 else address[: PREFIX_V6 // 8]


class Networks:
    """A set of networks; finds the longest that holds an address."""

    __slots__ = ("_lengths",)

    def __init__(self, networks: Iterable[str]) -> None:
        """Networks or addresses as text; ValueError for others."""
        tables: dict[tuple[int, int], set[int]] = {}
        for text in networks:
            network = ipaddress.ip_network(text)
            bits = network.max_prefixlen
            shifted = int(network.network_address) >> (bits - network.prefixlen)
            tables.setdefault((bits, network.prefixlen), set()).add(shifted)
        self._lengths = sorted(tables.items(), key=lambda item: -item[0][1])

    def __bool__(self) -> bool:
        return bool(self._lengths)

    def longest(self, address: bytes) -> int:
        """Length of the longest prefix that holds the address; -1 when none does."""
        bits = 8 * len(address)
        number = int.from_bytes(address, "big")
        for (family, length), table in self._lengths:
            if family == bits and number >> (bits - length) in table:
                return length
        return -1


class AccessList:
    """Who may come: the longest matching prefix of both lists decides, `deny` on a tie.

    With an `allow` list nobody else may; without one everybody who is not denied.
    """

    __slots__ = ("_allow", "_deny")

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        self._allow = Networks(allow)
        self._deny = Networks(deny)

    def __bool__(self) -> bool:
        return bool(self._allow or self._deny)

    def permits(self, address: bytes) -> bool:
        denied = self._deny.longest(address)
        allowed = self._allow.longest(address) if self._allow else 0
        return allowed >= 0 and (denied < 0 or allowed > denied)
