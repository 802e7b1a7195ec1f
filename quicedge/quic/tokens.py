"""Address validation tokens (RFC 9000 section 8.1), sealed under keys that all workers share."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import struct
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quicedge.config.limits import RETRY_TOKEN_LIFETIME, TOKEN_KEY_LIFETIME

_NONCE_LENGTH = 12
_HEAD = struct.Struct("!BdB")  # kind, issue time in seconds, length of the original DCID
_RETRY = 1


class RetryToken(NamedTuple):
    """What a valid Retry token says."""

    original_destination_cid: bytes


class TokenKeys:
    """Makes and opens tokens.

    Keys follow from the shared `secret` and the time, so every worker has the same ones without
    a word, and a key leaves use after two of its lifetimes. Times are seconds of a clock that
    all workers of the host share.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._aeads: dict[int, AESGCM] = {}

    def _aead(self, epoch: int) -> AESGCM:
        aead = self._aeads.get(epoch)
        if aead is None:
            material = b"quicedge token" + self._secret + epoch.to_bytes(8, "big")
            self._aeads = {e: a for e, a in self._aeads.items() if e >= epoch - 1}
            aead = self._aeads[epoch] = AESGCM(hashlib.sha256(material).digest()[:16])
        return aead

    def seal_retry(
        self,
        address: tuple[str, int],
        original_destination_cid: bytes,
        retry_source_cid: bytes,
        now: float,
    ) -> bytes:
        """A Retry token for a client at `address`, who must send it to `retry_source_cid`."""
        epoch = int(now // TOKEN_KEY_LIFETIME)
        nonce = os.urandom(_NONCE_LENGTH)
        plain = _HEAD.pack(_RETRY, now, len(original_destination_cid)) + original_destination_cid
        sealed = self._aead(epoch).encrypt(nonce, plain, _binding(address, retry_source_cid))
        return bytes((epoch & 0xFF,)) + nonce + sealed

    def open_retry(
        self, token: bytes, address: tuple[str, int], destination_cid: bytes, now: float
    ) -> RetryToken | None:
        """The token's content, or None when it is not ours, not this client's, or too old."""
        if len(token) < 1 + _NONCE_LENGTH:
            return None
        current = int(now // TOKEN_KEY_LIFETIME)
        # The byte tells this period's key from the last one's; older keys are gone.
        epoch = current - ((current - token[0]) & 0xFF)
        if epoch < max(current - 1, 0):
            return None
        try:
            plain = self._aead(epoch).decrypt(
                token[1 : 1 + _NONCE_LENGTH],
                token[1 + _NONCE_LENGTH :],
                _binding(address, destination_cid),
            )
        except InvalidTag:
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
