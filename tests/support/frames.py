"""Ethernet frames with UDP in them, checksums right."""

from __future__ import annotations

import ipaddress
import struct


def _checksum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total = sum(word for (word,) in struct.iter_unpack("!H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_frame(
    source: str, source_port: int, destination: str, port: int, payload: bytes, ttl: int = 64
) -> bytes:
    """An IPv4 or IPv6 frame, by the form of the addresses."""
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    length = 8 + len(payload)
    udp = struct.pack("!HHHH", source_port, port, length, 0) + payload
    checksum = _checksum(ends + struct.pack("!HH", 17, length) + udp) or 0xFFFF
    udp = udp[:6] + checksum.to_bytes(2, "big") + udp[8:]
    if len(ends) == 8:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, ttl, 17, 0) + ends
        header = header[:10] + _checksum(header).to_bytes(2, "big") + header[12:]
        return bytes(12) + b"\x08\0" + header + udp
    header = struct.pack("!IHBB", 6 << 28, length, 17, ttl) + ends
    return bytes(12) + b"\x86\xdd" + header + udp
