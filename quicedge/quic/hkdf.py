"""HMAC (RFC 2104) and the one block of HKDF (RFC 5869) that TLS 1.3 and QUIC derive keys with."""

from __future__ import annotations

import hmac
from functools import cache

from quicedge import native

_IV_LENGTH = 12
_HASHES = {32: "sha256", 48: "sha384"}


@native.twin
def hmac_sha2(digest_size: int, key: bytes, message: bytes) -> bytes:
    """HMAC (RFC 2104) with the SHA-2 hash of this size; raises ValueError for another."""
    name = _HASHES.get(digest_size)
    if name is None:
        raise ValueError("unknown hash")
    return hmac.digest(key, message, name)


@native.twin
def expand_block(
    digest_size: int, secret: bytes, label: bytes, context: bytes, length: int
) -> bytes:
    """HKDF-Expand-Label (RFC 8446 section 7.1) of at most one block, else ValueError."""
    name = _HASHES.get(digest_size)
    if name is None:
        raise ValueError("unknown hash")
    if length > digest_size:
        raise ValueError("more than one block")
    if len(context) > 255:
        raise ValueError("context too long")
    if context:
        info = b"%b%c%b\x01" % (_info(label, length), len(context), context)
    else:
        info = _whole_info(label, length)
    return hmac.digest(secret, info, name)[:length]


@native.twin
def packet_keys(secret: bytes, prefix: bytes, length: int) -> tuple[bytes, bytes, bytes]:
    """Key, IV and header protection key of a traffic secret (RFC 9001 section 5.1), which is as
    long as its hash; `prefix` is that of the labels."""
    size = len(secret)
    return (
        expand_block(size, secret, prefix + b"key", b"", length),
        expand_block(size, secret, prefix + b"iv", b"", _IV_LENGTH),
        expand_block(size, secret, prefix + b"hp", b"", length),
    )


@cache
def _info(label: bytes, length: int) -> bytes:
    """HkdfLabel up to its context. The labels are those of the program, so they are few."""
    name = b"tls13 " + label
    return length.to_bytes(2, "big") + bytes((len(name),)) + name


@cache
def _whole_info(label: bytes, length: int) -> bytes:
    """HkdfLabel with an empty context, and the number of the block."""
    return _info(label, length) + b"\0\x01"
