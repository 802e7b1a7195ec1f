"""Authenticated encryption of what clients keep for us: session tickets and tokens.

Keys are derived from a secret of this host, or configured by the operator for a whole fleet.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_LENGTH = 12


class TokenSealer(Protocol):
    """Seals byte strings with AES-256-GCM; one byte that identifies the key and a nonce precede."""

    def seal(self, plain: bytes, binding: bytes, now: float) -> bytes:
        """Encrypt `plain`; only the same key and `binding` open it."""

    def open(self, sealed: bytes, binding: bytes, now: float) -> bytes | None:
        """Decrypt; None if it is not ours, has another binding, or its key has expired."""


@dataclass(frozen=True, slots=True)
class FleetKeys:
    """Keys that the hosts of a fleet share."""

    keys: Sequence[bytes]
    """The first one seals; all of them open."""
    wall_offset: Callable[[], float]
    """Seconds from the time of this host's clock to wall clock time."""

    def sealer(self, purpose: bytes) -> KeyringSealer:
        return KeyringSealer(self.keys, purpose=purpose)


class Sealer:
    """A `TokenSealer` with keys of this host.

    Keys are derived from the shared `secret` and the time, so all workers have the same ones
    without communicating. A key seals for `key_lifetime` seconds and opens for as long again. Times
    are seconds of a clock that all workers of the host share. `purpose` separates key domains.
    """

    def __init__(self, secret: bytes, *, purpose: bytes, key_lifetime: float) -> None:
        self._material = b"quicedge " + purpose + b"\0" + secret
        self._key_lifetime = key_lifetime
        self._aeads: dict[int, AESGCM] = {}

    def _aead(self, epoch: int) -> AESGCM:
        aead = self._aeads.get(epoch)
        if aead is None:
            self._aeads = {e: a for e, a in self._aeads.items() if e >= epoch - 1}
            key = hashlib.sha256(self._material + epoch.to_bytes(8, "big")).digest()
            aead = self._aeads[epoch] = AESGCM(key)
        return aead

    def seal(self, plain: bytes, binding: bytes, now: float) -> bytes:
        """Encrypt `plain`; only the same secret and `binding` open it."""
        epoch = int(now // self._key_lifetime)
        nonce = os.urandom(NONCE_LENGTH)
        return bytes((epoch & 0xFF,)) + nonce + self._aead(epoch).encrypt(nonce, plain, binding)

    def open(self, sealed: bytes, binding: bytes, now: float) -> bytes | None:
        """Decrypt; None if it is not ours, has another binding, or its key has expired."""
        if len(sealed) < 1 + NONCE_LENGTH:
            return None
        current = int(now // self._key_lifetime)
        # The byte identifies the current or the previous key; older ones have expired.
        epoch = current - ((current - sealed[0]) & 0xFF)
        if epoch < max(current - 1, 0):
            return None
        nonce, body = sealed[1 : 1 + NONCE_LENGTH], sealed[1 + NONCE_LENGTH :]
        try:
            return self._aead(epoch).decrypt(nonce, body, binding)
        except InvalidTag:
            return None


class KeyringSealer:
    """A `TokenSealer` with keys that the operator configures and rotates: the first one seals, all
    of them open.

    `purpose` separates key domains, as above. Nonces are random: NIST SP 800-38D section 8.3
    permits 2**32 of them per key, a week at 7000 handshakes per second.
    """

    def __init__(self, keys: Sequence[bytes], *, purpose: bytes) -> None:
        self._aeads: list[tuple[int, AESGCM]] = []
        for key in keys:
            derived = hashlib.sha512(b"quicedge fleet " + purpose + b"\0" + key).digest()
            self._aeads.append((derived[-1], AESGCM(derived[:32])))

    def seal(self, plain: bytes, binding: bytes, now: float) -> bytes:
        name, aead = self._aeads[0]
        nonce = os.urandom(NONCE_LENGTH)
        return bytes((name,)) + nonce + aead.encrypt(nonce, plain, binding)

    def open(self, sealed: bytes, binding: bytes, now: float) -> bytes | None:
        if len(sealed) < 1 + NONCE_LENGTH:
            return None
        nonce, body = sealed[1 : 1 + NONCE_LENGTH], sealed[1 + NONCE_LENGTH :]
        for name, aead in self._aeads:
            if name != sealed[0]:
                continue
            try:
                return aead.decrypt(nonce, body, binding)
            except InvalidTag:
                continue  # two keys may have the same identifier
        return None
