"""What every QUIC packet shows without keys (RFC 8999), and the packets a server sends with no
connection behind them."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from quicedge.quic.frames import (
    MAX_CONNECTION_ID_LENGTH,
    ConnectionClose,
    FrameError,
    decode_varint,
    encode_varint,
)
from quicedge.quic.packet_cipher import TAG_LENGTH
from quicedge.quic.protection import VERSION_2, initial_keys

VERSION_1 = 1
VERSION_NAMES = {VERSION_1: "v1", VERSION_2: "v2"}
VERSION_NUMBERS = {name: number for number, name in VERSION_NAMES.items()}


class PacketKind(IntEnum):
    """Long header packets, numbered as version 1 codes them."""

    INITIAL = 0
    ZERO_RTT = 1
    HANDSHAKE = 2
    RETRY = 3


_KINDS = tuple(PacketKind)
_LONG_HEAD = struct.Struct("!BIB")
"""First byte, version, and length of the destination connection ID."""


class LongHeader(NamedTuple):
    """The version-independent part of a long header (RFC 8999 section 5.1)."""

    version: int
    destination_cid: bytes
    source_cid: bytes
    is_initial: bool


LONG_HEADER = 0x80
"""Set in the first byte of packets with a long header (RFC 8999 section 5.1)."""


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


class LongPacket(NamedTuple):
    """A long header packet of a version that we speak, within its datagram."""

    kind: PacketKind
    version: int
    destination_cid: bytes
    source_cid: bytes
    token: bytes
    """Of Initial and Retry packets."""
    pn_at: int
    """Where the packet number starts; for Retry, where the token does."""
    end: int


def parse_long_packet(data: bytes, at: int) -> LongPacket | None:
    """The long header packet that starts at `at`, or None when it cannot be one."""
    try:
        first, version, dcid_length = _LONG_HEAD.unpack_from(data, at)
        dcid_at = at + _LONG_HEAD.size
        dcid_end = dcid_at + dcid_length
        scid_length = data[dcid_end]
        scid_end = dcid_end + 1 + scid_length
        size = len(data)
        if (
            not first & 0x40
            or dcid_length > MAX_CONNECTION_ID_LENGTH
            or scid_length > MAX_CONNECTION_ID_LENGTH
            or scid_end > size
        ):
            return None
        destination, source = data[dcid_at:dcid_end], data[dcid_end + 1 : scid_end]
        # RFC 9369 section 3.2: version 2 numbers the types differently.
        kind = _KINDS[(first >> 4) - (1 if version == VERSION_2 else 0) & 3]
        position, token = scid_end, b""
        if kind is PacketKind.RETRY:
            token = data[scid_end:-TAG_LENGTH]
            return LongPacket(kind, version, destination, source, token, scid_end, size)
        if kind is PacketKind.INITIAL:
            length, position = decode_varint(data, position)
            if length:
                token = data[position : position + length]
                position += length
        length, position = decode_varint(data, position)
    except (IndexError, struct.error, FrameError):
        return None
    end = position + length
    if end > size:
        return None
    return LongPacket(kind, version, destination, source, token, position, end)


def parse_version_negotiation(data: bytes) -> list[int]:
    """The versions that a Version Negotiation packet lists (RFC 9000 section 17.2.1)."""
    header = parse_long_header(data)
    if header is None:
        return []
    at = 7 + len(header.destination_cid) + len(header.source_cid)
    return [int.from_bytes(data[i : i + 4], "big") for i in range(at, len(data) - 3, 4)]


def long_header(
    kind: PacketKind,
    version: int,
    destination: bytes,
    source: bytes,
    token: bytes,
    length: int,
    number: int,
    pn_length: int,
) -> bytes:
    """A long header; `length` is that of number, payload and tag, and takes two bytes."""
    coded = (kind + 1) & 3 if version == VERSION_2 else kind
    return b"".join((
        bytes((0xC0 | coded << 4 | (pn_length - 1),)), version.to_bytes(4, "big"),
        bytes((len(destination),)), destination, bytes((len(source),)), source,
        encode_varint(len(token)) + token if kind is PacketKind.INITIAL else b"",
        (length | 0x4000).to_bytes(2, "big"),
        (number & ((1 << 8 * pn_length) - 1)).to_bytes(pn_length, "big"),
    ))  # fmt: skip


def initial_close(header: LongHeader, error_code: int) -> bytes:
    """An Initial packet that refuses a connection (RFC 9000 section 10.2.3), without state."""
    _, keys = initial_keys(header.destination_cid, header.version)
    payload = ConnectionClose(error_code, 0, b"").encode()
    head = long_header(
        PacketKind.INITIAL, header.version, header.source_cid, header.destination_cid, b"",
        1 + len(payload) + TAG_LENGTH, 0, 1,
    )  # fmt: skip
    return keys.cipher.seal_one(head, payload, 0)
