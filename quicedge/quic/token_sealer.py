"""Small secrets that clients keep for us, sealed under keys that all workers share.

The keys follow from a secret of this host, or they are given by the operator for a whole fleet.
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


class Sealing(Protocol):
    """Seals byte strings and opens them: one byte that names the key, a nonce, AES-256-GCM."""

    def seal(self, plain: bytes, binding: bytes, now: float) -> bytes:
        """`plain`, readable only to who has the key and names the same `binding`."""

    def open(self, sealed: bytes, binding: bytes, now: float) -> bytes | None:
        """What was sealed, or None when it is not ours, bound otherwise, or its key is gone."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the hosts of a fleet have in common."""

    keys: Sequence[bytes]
    """The first seals, all open."""
    wall_offset: Callable[[], float]
    """Seconds to add to the time of this host's clock for that of the wall clock."""

    def sealing(self, purpose: bytes) -> KeyringSealer:
        return KeyringSealer(self.keys, purpose=purpose)


class Sealer:
    """`Sealing` under keys of this host.

    They follow from the shared `secret` and the time, so every worker has the same ones without a
    word. A key seals for `key_lifetime` seconds and opens for as long again. Times are seconds
    of a clock that all workers of the host share. `purpose` keeps the keys of one use from
    opening what was sealed for another.
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
        """`plain`, readable only to who knows the secret and names the same `binding`."""
        epoch = int(now // self._key_lifetime)
        nonce = os.urandom(NONCE_LENGTH)
        return bytes((epoch & 0xFF,)) + nonce + self._aead(epoch).encrypt(nonce, plain, binding)

    def open(self, sealed: bytes, binding: bytes, now: float) -> bytes | None:
        """What was sealed, or None when it is not ours, bound otherwise, or its key is gone."""
        if len(sealed) < 1 + NONCE_LENGTH:
            return None
        current = int(now // self._key_lifetime)
        # The byte tells this period's key from the last one's; older keys are gone.
        epoch = current - ((current - sealed[0]) & 0xFF)
        if epoch < max(current - 1, 0):
            return None
        nonce, body = sealed[1 : 1 + NONCE_LENGTH], sealed[1 + NONCE_LENGTH :]
        try:
            return self._aead(epoch).decrypt(nonce, body, binding)
        except InvalidTag:
            return None


class KeyringSealer:
    """`Sealing` under keys that the operator gives and rotates: the first seals, all open.

    `purpose` separates the uses, as above. The nonces are random: NIST SP 800-38D section 8.3
    allows a key 2**32 of them, a week at seven thousand handshakes per second.
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
                continue  # two keys may have the same name
        return None
