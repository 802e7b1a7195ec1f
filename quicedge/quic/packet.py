"""What every QUIC packet shows without keys (RFC 8999), and the packets a server sends with no
connection behind them."""

from __future__ import annotations

import os
from typing import NamedTuple

from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicFrameType, QuicPacketType, QuicProtocolVersion
from aioquic.quic.packet_builder import QuicPacketBuilder

from quicedge.config.limits import CONNECTION_ID_LENGTH, MIN_INITIAL_DATAGRAM
from quicedge.quic.cids import STATELESS_RESET_TOKEN_LENGTH

VERSION_1 = int(QuicProtocolVersion.VERSION_1)
VERSION_2 = int(QuicProtocolVersion.VERSION_2)
VERSION_NAMES = {VERSION_1: "v1", VERSION_2: "v2"}
VERSION_NUMBERS = {name: number for number, name in VERSION_NAMES.items()}

MIN_STATELESS_RESET = 5 + STATELESS_RESET_TOKEN_LENGTH
"""Bytes; RFC 9000 section 10.3: shorter ones are not taken for a reset."""


class LongHeader(NamedTuple):
    """The version-independent part of a long header (RFC 8999 section 5.1)."""

    version: int
    destination_cid: bytes
    source_cid: bytes
    is_initial: bool


def is_long(datagram: bytes) -> bool:
    return datagram[0] & 0x80 != 0


def short_destination_cid(datagram: bytes) -> bytes:
    """The destination connection ID of a short header packet sent to us."""
    return datagram[1 : 1 + CONNECTION_ID_LENGTH]


def parse_long_header(datagram: bytes) -> LongHeader | None:
    """The invariant fields of the first packet of a datagram, or None when cut short."""
    if len(datagram) < 7:
        return None
    version = int.from_bytes(datagram[1:5], "big")
    scid_at = 6 + datagram[5]
    if len(datagram) <= scid_at:
        return None
    end = scid_at + 1 + datagram[scid_at]
    if len(datagram) < end:
        return None
    kind = (datagram[0] & 0x30) >> 4
    # RFC 9369 section 3.2: version 2 numbers the long header types differently.
    is_initial = kind == (1 if version == VERSION_2 else 0)
    return LongHeader(
        version, datagram[6:scid_at], datagram[scid_at + 1 : end], is_initial and version != 0
    )


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


def initial_close(header: LongHeader, error_code: int) -> bytes:
    """An Initial packet that refuses a connection (RFC 9000 section 10.2.3), without state."""
    crypto = CryptoPair()
    crypto.setup_initial(cid=header.destination_cid, is_client=False, version=header.version)
    builder = QuicPacketBuilder(
        host_cid=header.destination_cid,
        peer_cid=header.source_cid,
        version=header.version,
        is_client=False,
        max_datagram_size=MIN_INITIAL_DATAGRAM,
    )
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    frame = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE, capacity=16)
    frame.push_uint_var(error_code)
    frame.push_uint_var(QuicFrameType.PADDING)
    frame.push_uint_var(0)
    datagrams, _ = builder.flush()
    return datagrams[0]
