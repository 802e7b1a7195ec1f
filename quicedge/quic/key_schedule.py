"""The key schedule of TLS 1.3 (RFC 8446 section 7.1) and HKDF (RFC 5869) under it.

It stands in for aioquic's, which makes some objects of `cryptography` for each of the thirty
secrets and keys of a handshake; here each is one call of HMAC.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Protocol

from aioquic.tls import CipherSuite, cipher_suite_hash

from quicedge.quic.hkdf import expand_block, hmac_sha2


class Algorithm(Protocol):
    """A hash of `cryptography`, of which only these two are asked."""

    @property
    def name(self) -> str: ...
    @property
    def digest_size(self) -> int: ...


def expand_label(
    algorithm: Algorithm, secret: bytes, label: bytes, hash_value: bytes, length: int
) -> bytes:
    """HKDF-Expand-Label (RFC 8446 section 7.1) of at most one hash's length.

    Raises ValueError when more is asked for, which neither TLS 1.3 nor QUIC do.
    """
    return expand_block(algorithm.digest_size, secret, label, hash_value, length)


def extract(algorithm: Algorithm, salt: bytes, key_material: bytes) -> bytes:
    """HKDF-Extract (RFC 5869 section 2.2)."""
    return hmac_sha2(algorithm.digest_size, salt, key_material)


class _Suite:
    """What is the same in all handshakes with a cipher suite."""

    __slots__ = ("algorithm", "early_secret", "nothing", "salt", "size", "zeros")

    def __init__(self, cipher_suite: CipherSuite) -> None:
        self.algorithm: Algorithm = cipher_suite_hash(cipher_suite)
        self.size = size = self.algorithm.digest_size
        self.zeros = bytes(size)
        self.nothing = hashlib.new(self.algorithm.name).digest()
        """The hash of no messages."""
        self.early_secret = extract(self.algorithm, self.zeros, self.zeros)
        """The first secret without a pre-shared key, and the salt that follows from it."""
        self.salt = expand_label(self.algorithm, self.early_secret, b"derived", self.nothing, size)


_suite = cache(_Suite)


class KeySchedule:
    """The secrets of one handshake and the hash of its transcript."""

    def __init__(self, cipher_suite: CipherSuite) -> None:
        self._suite = suite = _suite(cipher_suite)
        self.algorithm = suite.algorithm
        self.cipher_suite = cipher_suite
        self.generation = 0
        """How many times a secret was mixed in: 1 early, 2 handshake, 3 main secret."""
        self.hash = hashlib.new(self.algorithm.name)
        self.secret = suite.zeros

    def update_hash(self, message: bytes) -> None:
        """Add handshake messages to the transcript."""
        self.hash.update(message)

    def extract(self, key_material: bytes | None = None) -> None:
        """Go on to the next secret; without key material, with zeros."""
        suite = self._suite
        self.generation += 1
        if self.generation == 1 and key_material is None:
            self.secret = suite.early_secret
            return
        salt = self.secret
        if salt is suite.early_secret:
            salt = suite.salt
        elif self.generation > 1:
            salt = self._expand(salt, b"derived", suite.nothing)
        self.secret = extract(self.algorithm, salt, key_material or suite.zeros)

    def derive_secret(self, label: bytes) -> bytes:
        """Derive-Secret over the transcript so far."""
        return self._expand(self.secret, label, self.hash.digest())

    def finished_verify_data(self, secret: bytes) -> bytes:
        """What a Finished message holds, or a PSK binder (RFC 8446 section 4.4.4)."""
        key = self._expand(secret, b"finished", b"")
        return hmac_sha2(self.algorithm.digest_size, key, self.hash.digest())

    def resumption_secret(self, nonce: bytes) -> bytes:
        """The secret that a ticket keeps; the transcript ends with the client's Finished."""
        return self._expand(self.derive_secret(b"res master"), b"resumption", nonce)

    def certificate_verify_data(self, context: bytes) -> bytes:
        """What a CertificateVerify signs (RFC 8446 section 4.4.3)."""
        return b" " * 64 + context + b"\0" + self.hash.digest()

    def _expand(self, secret: bytes, label: bytes, hash_value: bytes) -> bytes:
        size = self._suite.size
        return expand_block(size, secret, label, hash_value, size)
