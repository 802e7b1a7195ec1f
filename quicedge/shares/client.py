"""The identity of a client for fair sharing."""

from __future__ import annotations

from typing import NamedTuple


class Client(NamedTuple):
    """A client by address and by network, packed as in `shares.prefixes`."""

    address: bytes
    """4 or 16 bytes."""
    prefix: bytes
    """Its first 3 or 7 bytes: an IPv4 /24 or an IPv6 /56."""
