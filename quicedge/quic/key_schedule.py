"""The key schedule of TLS 1.3 (RFC 8446 section 7.1) and HKDF (RFC 5869) under it.

It stands in for aioquic's, which makes some objects of `cryptography` for each of the thirty
secrets and keys of a handshake; here each is one call of HMAC.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import cache
from typing import Protocol

from aioquic.tls import CipherSuite, cipher_suite_hash


class Algorithm(Protocol):
    """A hash of `cryptography`, of which only these two are asked."""

    @property
    def name(self) -> str: ...
    @property
    def digest_size(self) -> int: ...


@cache
def _label(label: bytes, length: int) -> bytes:
    """HkdfLabel up to its context. The labels are those of the program, so they are few."""
    name = b"tls13 " + label
    return length.to_bytes(2, "big") + bytes((len(name),)) + name


def expand_label(
    algorithm: Algorithm, secret: bytes, label: bytes, hash_value: bytes, length: int
) -> bytes:
    """HKDF-Expand-Label (RFC 8446 section 7.1) of at most one hash's length.

    Raises ValueError when more is asked for, which neither TLS 1.3 nor QUIC do.
    """
    if length > algorithm.digest_size:
        raise ValueError(f"{length} bytes are more than one block of {algorithm.name}")
    info = b"%b%c%b\x01" % (_label(label, length), len(hash_value), hash_value)
    return hmac.digest(secret, info, algorithm.name)[:length]


def extract(algorithm: Algorithm, salt: bytes, key_material: bytes) -> bytes:
    """HKDF-Extract (RFC 5869 section 2.2)."""
    return hmac.digest(salt, key_material, algorithm.name)


class KeySchedule:
    """The secrets of one handshake and the hash of its transcript."""

    def __init__(self, cipher_suite: CipherSuite) -> None:
        self.algorithm = cipher_suite_hash(cipher_suite)
        self.cipher_suite = cipher_suite
        self.generation = 0
        """How many times a secret was mixed in: 1 early, 2 handshake, 3 main secret."""
        self.hash = hashlib.new(self.algorithm.name)
        self.secret = bytes(self.algorithm.digest_size)

    def update_hash(self, message: bytes) -> None:
        """Add handshake messages to the transcript."""
        self.hash.update(message)

    def extract(self, key_material: bytes | None = None) -> None:
        """Go on to the next secret; without key material, with zeros."""
        if self.generation:
            nothing = hashlib.new(self.algorithm.name).digest()
            self.secret = self._expand(self.secret, b"derived", nothing)
        self.generation += 1
        self.secret = extract(
            self.algorithm, self.secret, key_material or bytes(self.algorithm.digest_size)
        )

    def derive_secret(self, label: bytes) -> bytes:
        """Derive-Secret over the transcript so far."""
        return self._expand(self.secret, label, self.hash.digest())

    def finished_verify_data(self, secret: bytes) -> bytes:
        """What a Finished message holds, or a PSK binder (RFC 8446 section 4.4.4)."""
        key = self._expand(secret, b"finished", b"")
        return hmac.digest(key, self.hash.digest(), self.algorithm.name)

    def resumption_secret(self, nonce: bytes) -> bytes:
        """The secret that a ticket keeps; the transcript ends with the client's Finished."""
        return self._expand(self.derive_secret(b"res master"), b"resumption", nonce)

    def certificate_verify_data(self, context: bytes) -> bytes:
        """What a CertificateVerify signs (RFC 8446 section 4.4.3)."""
        return b" " * 64 + context + b"\0" + self.hash.digest()

    def _expand(self, secret: bytes, label: bytes, hash_value: bytes) -> bytes:
        return expand_label(self.algorithm, secret, label, hash_value, self.algorithm.digest_size)
