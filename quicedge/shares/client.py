"""Whom a share is counted for."""

from __future__ import annotations

from typing import NamedTuple


class Client(NamedTuple):
    """A client by its address and by its network, packed as `quic.prefixes` has them."""

    address: bytes
    """4 or 16 bytes."""
    prefix: bytes
    """The first 3 or 7 bytes of it: an IPv4 /24 or an IPv6 /56."""
