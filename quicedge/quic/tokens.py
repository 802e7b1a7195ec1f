"""Address validation tokens (RFC 9000 section 8.1), sealed under keys that all workers share."""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

from quicedge.config.limits import RETRY_TOKEN_LIFETIME, TOKEN_KEY_LIFETIME
from quicedge.quic.sealing import Sealer

_HEAD = struct.Struct("!BdB")  # kind, issue time in seconds, length of the original DCID
_RETRY = 1


class RetryToken(NamedTuple):
    """What a valid Retry token says."""

    original_destination_cid: bytes


class TokenKeys:
    """Makes and opens tokens. Times are seconds of a clock that all workers of the host share."""

    def __init__(self, secret: bytes) -> None:
        self._sealer = Sealer(secret, purpose=b"token", key_lifetime=TOKEN_KEY_LIFETIME)

    def seal_retry(
        self,
        address: tuple[str, int],
        original_destination_cid: bytes,
        retry_source_cid: bytes,
        now: float,
    ) -> bytes:
        """A Retry token for a client at `address`, who must send it to `retry_source_cid`."""
        plain = _HEAD.pack(_RETRY, now, len(original_destination_cid)) + original_destination_cid
        return self._sealer.seal(plain, _binding(address, retry_source_cid), now)

    def open_retry(
        self, token: bytes, address: tuple[str, int], destination_cid: bytes, now: float
    ) -> RetryToken | None:
        """The token's content, or None when it is not ours, not this client's, or too old."""
        plain = self._sealer.open(token, _binding(address, destination_cid), now)
        if plain is None:
            return None
        kind, issued_at, length = _HEAD.unpack_from(plain)
        # RFC 9000 section 8.1.4: clients are expected to use a Retry token at once.
        if kind != _RETRY or not 0 <= now - issued_at <= RETRY_TOKEN_LIFETIME:
            return None
        return RetryToken(plain[_HEAD.size : _HEAD.size + length])


def _binding(address: tuple[str, int], connection_id: bytes) -> bytes:
    """Associated data: a token works from one address and port, towards one connection ID."""
    host = ipaddress.ip_address(address[0].partition("%")[0])
    return host.packed + address[1].to_bytes(2, "big") + connection_id
