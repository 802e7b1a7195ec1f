"""Initial packets of a client that never was: any frames, sealed as RFC 9001 section 5.2 says."""

from __future__ import annotations

import os

from aioquic.buffer import encode_uint_var
from aioquic.quic.crypto import CryptoPair

from quicedge.quic.packet import VERSION_1


def initial(
    frames: bytes,
    *,
    dcid: bytes | None = None,
    scid: bytes | None = None,
    size: int = 1200,
    number: int = 0,
) -> bytes:
    """A datagram of `size` bytes with one Initial packet that carries `frames` and padding."""
    dcid = dcid or os.urandom(8)
    scid = scid or os.urandom(8)
    crypto = CryptoPair()
    crypto.setup_initial(cid=dcid, is_client=True, version=VERSION_1)
    head = b"\xc1" + VERSION_1.to_bytes(4, "big") + bytes((len(dcid),)) + dcid
    head += bytes((len(scid),)) + scid + b"\0"
    room = size - len(head) - 2 - 2 - 16
    length = (0x4000 | (2 + room + 16)).to_bytes(2, "big")
    return crypto.encrypt_packet(
        head + length + number.to_bytes(2, "big"), frames.ljust(room, b"\0"), number
    )


def crypto_frame(offset: int, data: bytes) -> bytes:
    """A CRYPTO frame (RFC 9000 section 19.6)."""
    return b"\x06" + encode_uint_var(offset) + encode_uint_var(len(data)) + data
