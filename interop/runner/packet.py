"""One Ethernet frame on the emulated link, with the few fields that a router or a NAT changes."""

from __future__ import annotations

import ipaddress
import struct

ETHERNET_HEADER = 14
ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_IPV6 = 0x86DD
PROTOCOL_UDP = 17
UDP_HEADER = 8


class Packet:
    """A frame holding an IPv4 or IPv6 packet, changed in place.

    `data` is the whole Ethernet frame. IPv6 extension headers are not followed: such a packet
    is forwarded but never counts as UDP.
    """

    __slots__ = ("_l4", "data", "ip_length", "is_udp", "version")

    def __init__(self, frame: bytes | bytearray) -> None:
        """Raises ValueError for anything that is not a whole IPv4 or IPv6 packet."""
        data = bytearray(frame)
        ethertype = int.from_bytes(data[12:14], "big")
        if ethertype == ETHERTYPE_IPV4 and len(data) >= ETHERNET_HEADER + 20:
            self.version = 4
            self._l4 = ETHERNET_HEADER + (data[14] & 0x0F) * 4
            self.ip_length = int.from_bytes(data[16:18], "big")
            protocol = data[23]
            fragmented = int.from_bytes(data[20:22], "big") & 0x3FFF
        elif ethertype == ETHERTYPE_IPV6 and len(data) >= ETHERNET_HEADER + 40:
            self.version = 6
            self._l4 = ETHERNET_HEADER + 40
            self.ip_length = 40 + int.from_bytes(data[18:20], "big")
            protocol = data[20]
            fragmented = 0
        else:
            raise ValueError(f"not an IP packet (ethertype {ethertype:#06x})")
        if len(data) < ETHERNET_HEADER + self.ip_length:
            raise ValueError(f"frame of {len(data)} bytes cuts an IP packet of {self.ip_length}")
        del data[ETHERNET_HEADER + self.ip_length :]
        self.data = data
        self.is_udp = (
            protocol == PROTOCOL_UDP and not fragmented and len(data) >= self._l4 + UDP_HEADER
        )

    @property
    def source(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        return self._address(0)

    @property
    def destination(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        return self._address(1)

    def _address(self, index: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        if self.version == 4:
            return ipaddress.IPv4Address(bytes(self.data[26 + 4 * index : 30 + 4 * index]))
        return ipaddress.IPv6Address(bytes(self.data[22 + 16 * index : 38 + 16 * index]))

    @property
    def source_port(self) -> int:
        return int.from_bytes(self.data[self._l4 : self._l4 + 2], "big")

    @property
    def destination_port(self) -> int:
        return int.from_bytes(self.data[self._l4 + 2 : self._l4 + 4], "big")

    @property
    def payload(self) -> memoryview:
        """The UDP payload."""
        return memoryview(self.data)[self._l4 + UDP_HEADER :]

    @property
    def is_version_negotiation(self) -> bool:
        payload = self.payload
        return len(payload) >= 5 and payload[0] & 0x80 != 0 and payload[1:5] == b"\0\0\0\0"

    def hop(self, count: int = 1) -> bool:
        """Take `count` hops off the TTL; False when it ran out."""
        offset = 22 if self.version == 4 else 21
        if self.data[offset] <= count:
            return False
        before = bytes(self.data[22:24])
        self.data[offset] -= count
        if self.version == 4:
            self._adjust(24, before, bytes(self.data[22:24]))
        return True

    def set_source(self, address: ipaddress.IPv4Address, port: int) -> None:
        """Rewrite an IPv4 UDP packet's source."""
        self._set_endpoint(26, self._l4, address, port)

    def set_destination(self, address: ipaddress.IPv4Address, port: int) -> None:
        """Rewrite an IPv4 UDP packet's destination."""
        self._set_endpoint(30, self._l4 + 2, address, port)

    def _set_endpoint(
        self, at: int, port_at: int, address: ipaddress.IPv4Address, port: int
    ) -> None:
        old_address, new_address = bytes(self.data[at : at + 4]), address.packed
        old_port, new_port = bytes(self.data[port_at : port_at + 2]), port.to_bytes(2, "big")
        self.data[at : at + 4] = new_address
        self.data[port_at : port_at + 2] = new_port
        self._adjust(24, old_address, new_address)
        self._adjust_udp(old_address + old_port, new_address + new_port)

    def flip(self, offset: int, value: int) -> None:
        """Put `value` at `offset` of the UDP payload and make the UDP checksum right again."""
        at = self._l4 + UDP_HEADER + offset
        start = at - (at - self._l4) % 2
        padded = self.data if len(self.data) > start + 1 else self.data + b"\0"
        before = bytes(padded[start : start + 2])
        self.data[at] = value
        padded = self.data if len(self.data) > start + 1 else self.data + b"\0"
        self._adjust_udp(before, bytes(padded[start : start + 2]))

    def _adjust_udp(self, old: bytes, new: bytes) -> None:
        at = self._l4 + 6
        # RFC 768: a checksum of zero means that the sender made none.
        if self.data[at : at + 2] != b"\0\0":
            self._adjust(at, old, new)
            if self.data[at : at + 2] == b"\0\0":
                self.data[at : at + 2] = b"\xff\xff"

    def _adjust(self, at: int, old: bytes, new: bytes) -> None:
        """Update the checksum at `at` for 16-bit words that changed (RFC 1624 section 3)."""
        total = ~int.from_bytes(self.data[at : at + 2], "big") & 0xFFFF
        for (before,), (after,) in zip(
            struct.iter_unpack("!H", old), struct.iter_unpack("!H", new), strict=True
        ):
            total += (~before & 0xFFFF) + after
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        self.data[at : at + 2] = (~total & 0xFFFF).to_bytes(2, "big")
