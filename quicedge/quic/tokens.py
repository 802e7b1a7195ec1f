"""Address validation tokens (RFC 9000 section 8.1), sealed under keys that all workers share.

Under the keys of a fleet (`quic.token_sealer.FleetKeys`) they are valid at all of its hosts and
carry wall clock time.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from quicedge.config.limits import (
    FLEET_CLOCK_SKEW,
    NEW_TOKEN_LIFETIME,
    RETRY_TOKEN_LIFETIME,
    TOKEN_KEY_LIFETIME,
)
from quicedge.quic.token_sealer import FleetKeys, Sealer, TokenSealer
from quicedge.shares.prefixes import packed

# RFC 9000 section 8.1.1: a token MUST be constructed so that the server can tell how it was
# provided to a client. The first byte indicates it, even if the key has expired.
_RETRY = b"\x01"
_NEW_TOKEN = b"\x02"

_RETRY_HEAD = struct.Struct("!dB")  # issue time in seconds, length of the original DCID
_NEW_TOKEN_HEAD = struct.Struct("!d")  # issue time in seconds


class RetryToken(NamedTuple):
    """Content of a valid Retry token."""

    original_destination_cid: bytes


def is_retry_token(token: bytes) -> bool:
    """Whether a token claims to be from a Retry packet, so that an invalid one is an error."""
    return token.startswith(_RETRY)


class TokenKeys:
    """Issues and validates tokens. Times are seconds of a clock that all workers share."""

    def __init__(self, secret: bytes, fleet: FleetKeys | None = None) -> None:
        """`secret` is this host's; the keys of a fleet, if any, replace it."""
        self._fleet = fleet
        self._retry = self._sealer(secret, b"Retry token", TOKEN_KEY_LIFETIME)
        self._new = self._sealer(secret, b"NEW_TOKEN token", NEW_TOKEN_LIFETIME)

    def _sealer(self, secret: bytes, purpose: bytes, key_lifetime: float) -> TokenSealer:
        if self._fleet is not None:
            return self._fleet.sealer(purpose)
        return Sealer(secret, purpose=purpose, key_lifetime=key_lifetime)

    def _stamp(self, now: float) -> float:
        """Issue time to put into a token."""
        return now if self._fleet is None else now + self._fleet.wall_offset()

    def _is_fresh(self, issued_at: float, lifetime: float, now: float) -> bool:
        earliest = 0.0 if self._fleet is None else -FLEET_CLOCK_SKEW
        return earliest <= self._stamp(now) - issued_at <= lifetime

    def seal_retry(
        self,
        address: tuple[str, int],
        original_destination_cid: bytes,
        retry_source_cid: bytes,
        now: float,
    ) -> bytes:
        """A Retry token, valid from `address` and towards `retry_source_cid` only."""
        plain = _RETRY_HEAD.pack(self._stamp(now), len(original_destination_cid))
        plain += original_destination_cid
        return _RETRY + self._retry.seal(plain, _retry_binding(address, retry_source_cid), now)

    def open_retry(
        self, token: bytes, address: tuple[str, int], destination_cid: bytes, now: float
    ) -> RetryToken | None:
        """Content of a token, or None if it is not ours, not this client's, or expired."""
        if not is_retry_token(token):
            return None
        plain = self._retry.open(token[1:], _retry_binding(address, destination_cid), now)
        if plain is None:
            return None
        issued_at, length = _RETRY_HEAD.unpack_from(plain)
        # RFC 9000 section 8.1.4: clients are expected to use a Retry token at once.
        if not self._is_fresh(issued_at, RETRY_TOKEN_LIFETIME, now):
            return None
        return RetryToken(plain[_RETRY_HEAD.size : _RETRY_HEAD.size + length])

    def seal_new(self, host: str, version: int, now: float) -> bytes:
        """A NEW_TOKEN token for later connections of the client from `host`, from any port.

        RFC 9369 section 5: it is valid for the QUIC version of the issuing connection only.
        """
        plain = _NEW_TOKEN_HEAD.pack(self._stamp(now))
        return _NEW_TOKEN + self._new.seal(plain, _new_binding(host, version), now)

    def open_new(self, token: bytes, host: str, version: int, now: float) -> bool:
        """Whether it is a NEW_TOKEN token of ours, for this host and version, and not expired."""
        if not token.startswith(_NEW_TOKEN):
            return False
        plain = self._new.open(token[1:], _new_binding(host, version), now)
        if plain is None:
            return False
        (issued_at,) = _NEW_TOKEN_HEAD.unpack(plain)
        return self._is_fresh(issued_at, NEW_TOKEN_LIFETIME, now)


def _new_binding(host: str, version: int) -> bytes:
    return packed(host) + version.to_bytes(4, "big")


def _retry_binding(address: tuple[str, int], connection_id: bytes) -> bytes:
    """A Retry token is bound to address, port and connection ID."""
    return packed(address[0]) + address[1].to_bytes(2, "big") + connection_id
