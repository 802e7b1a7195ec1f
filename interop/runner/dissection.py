"""The copy of a capture that tshark is given, free of two things that tshark 4.0 stumbles over.

Both meet peers whose connection IDs have length zero, and leave nothing decrypted after:

- Zero bytes after the last QUIC packet of a datagram, as aioquic pads, are read as a short header
  with a packet number of noise. In the copy they count as not captured.
- Packets to a rebound address belong to no connection. In the copy a lone client has one address.

Lengths on the wire and the numbers of frames stay as they were.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from interop.runner import addresses
from interop.runner.nat import Endpoint
from interop.runner.packet import Packet
from interop.runner.pcap import PcapWriter, read_pcap

VERSION_2 = 0x6B3343CF
_TYPE_INITIAL = {1: 0, VERSION_2: 1}
_TYPE_RETRY = {1: 3, VERSION_2: 0}


def unpadded_length(payload: bytes) -> int:
    """How many bytes of a UDP payload are not zero padding behind its long-header packets."""
    offset = 0
    try:
        while offset < len(payload) and payload[offset] & 0x80:
            offset = _end_of_packet(payload, offset)
    except (IndexError, KeyError):
        return len(payload)
    return len(payload) if not offset or any(payload[offset:]) else min(offset, len(payload))


def _end_of_packet(payload: bytes, offset: int) -> int:
    """Where the long-header packet at `offset` ends; KeyError for a version we do not know."""
    version = int.from_bytes(payload[offset + 1 : offset + 5], "big")
    kind = payload[offset] >> 4 & 0x03
    if kind == _TYPE_RETRY[version]:
        return len(payload)
    at = offset + 5
    at += 1 + payload[at]
    at += 1 + payload[at]
    if kind == _TYPE_INITIAL[version]:
        token, at = _varint(payload, at)
        at += token
    length, at = _varint(payload, at)
    return at + length


def _varint(payload: bytes, at: int) -> tuple[int, int]:
    """RFC 9000 section 16: the value, and where it ends."""
    size = 1 << (payload[at] >> 6)
    value = int.from_bytes(payload[at : at + size], "big") & ((1 << (8 * size - 2)) - 1)
    return value, at + size


def write_dissectible(source: Path, target: Path, client: Endpoint | None) -> None:
    """Copy a capture; over IPv4, the client's end of every UDP packet becomes `client`, if any."""
    writer = PcapWriter(target)
    try:
        for time, frame in read_pcap(source):
            packet = Packet(frame)
            captured = len(frame)
            if packet.is_udp:
                payload = bytes(packet.payload)
                captured -= len(payload) - unpadded_length(payload)
                if client is not None and packet.version == 4:
                    _set_client(packet, client)
            writer.write(time, packet.data[:captured], len(frame))
    finally:
        writer.close()


def _set_client(packet: Packet, client: Endpoint) -> None:
    if str(packet.source) == addresses.SERVER_V4:
        packet.set_destination(*client)
    elif str(packet.destination) == addresses.SERVER_V4:
        packet.set_source(*client)


def only_client(capture: Path) -> Endpoint | None:
    """The one IPv4 address and port that a capture's client has; None when it has several."""
    seen: set[Endpoint] = set()
    for _, frame in read_pcap(capture):
        packet = Packet(frame)
        source = packet.source
        if (
            packet.is_udp
            and isinstance(source, IPv4Address)
            and str(packet.destination) == addresses.SERVER_V4
        ):
            seen.add((source, packet.source_port))
    return seen.pop() if len(seen) == 1 else None
