"""Stateless resets (RFC 9000 section 10.3), which need no keys."""

from __future__ import annotations

import os

from quicedge.quic.connection_id_issuer import STATELESS_RESET_TOKEN_LENGTH

MIN_STATELESS_RESET = 5 + STATELESS_RESET_TOKEN_LENGTH
"""Bytes; RFC 9000 section 10.3: shorter ones are not taken for a reset."""


def stateless_reset(trigger_size: int, token: bytes) -> bytes | None:
    """A stateless reset that answers a datagram of `trigger_size` bytes, or None.

    RFC 9000 section 10.3.3: an endpoint MUST ensure that every Stateless Reset that it sends is
    smaller than the packet that triggered it, unless it maintains state sufficient to prevent
    looping.
    """
    size = min(trigger_size - 1, 41 + os.urandom(1)[0] % 8)
    if size < MIN_STATELESS_RESET:
        return None
    noise = bytearray(os.urandom(size - STATELESS_RESET_TOKEN_LENGTH))
    noise[0] = noise[0] & 0x3F | 0x40
    return bytes(noise) + token
