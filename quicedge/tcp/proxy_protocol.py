"""The PROXY protocol, versions 1 and 2: a load balancer says who its client is.

Sans-IO: `read_header` takes what was received so far. The specification is HAProxy's
`doc/proxy-protocol.txt`, sections 2.1 and 2.2.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from typing import NamedTuple

from quicedge.config.host_port import HostPort
from quicedge.config.limits import PROXY_HEADER_MAX

_V1 = b"PROXY "
_V1_MAX = 107
"""Bytes of the longest header of version 1, its line break included."""
_V1_LINE = re.compile(rb"PROXY TCP([46]) ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+) ([0-9]+) ([0-9]+)")

_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD = struct.Struct("!12sBBH")
"""Signature, version and command, family and protocol, bytes that follow."""
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESSES = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}
"""Family and length of an address, for TCP over IPv4 and IPv6."""
_WITHOUT_ADDRESS = {0x00: 0, 0x31: 216}
"""Unspecified, and a unix stream: the client has no IP address."""
_MAPPED = bytes(10) + b"\xff\xff"
"""What IPv4-mapped IPv6 addresses begin with (RFC 4291 section 2.5.5.2): load balancers with one
socket for both families know their IPv4 clients by them."""
_TLV = struct.Struct("!BH")
_CRC32C_TLV = 0x03


class ProxyHeaderError(ValueError):
    """A malformed or oversized header."""


class ProxyHeader(NamedTuple):
    """A complete header."""

    size: int
    """Bytes that it takes of the input."""
    source: HostPort | None
    """The client; None: the proxy speaks for itself, or does not know."""
    destination: HostPort | None
    """The address that the client connected to."""


def read_header(data: bytes) -> ProxyHeader | None:
    """The header that `data` begins with; None while it is incomplete.

    Raises ProxyHeaderError as soon as it cannot become a valid one.
    """
    if data.startswith(_V2):
        return _read_v2(data)
    if data.startswith(_V1):
        return _read_v1(data)
    if _V2.startswith(data) or _V1.startswith(data):
        return None
    raise ProxyHeaderError("no PROXY header")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _V1_MAX)
    if end < 0:
        if len(data) >= _V1_MAX:
            raise ProxyHeaderError("the header is too long")
        return None
    line, size = data[:end], end + 2
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return ProxyHeader(size, None, None)
    match = _V1_LINE.fullmatch(line)
    if match is None:
        raise ProxyHeaderError("the header is malformed")
    version = int(match[1])
    ends = [_v1_end(match[at], match[at + 2], version) for at in (2, 3)]
    return ProxyHeader(size, *ends)


def _v1_end(host: bytes, port: bytes, version: int) -> HostPort:
    try:
        address = ipaddress.ip_address(host.decode())
    except ValueError as error:
        raise ProxyHeaderError("an address is malformed") from error
    if (
        address.version != version
        or len(port) > 5
        or int(port) > 65535
        or port != b"%d" % int(port)
    ):
        raise ProxyHeaderError("an address or port is malformed")
    if isinstance(address, ipaddress.IPv6Address):
        return HostPort(str(address.ipv4_mapped or address), int(port))
    return HostPort(str(address), int(port))


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_HEAD.size:
        return None
    _, command, kind, length = _V2_HEAD.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError("unknown version or command")
    size = _V2_HEAD.size + length
    if size > PROXY_HEADER_MAX:
        raise ProxyHeaderError("the header is too long")
    if len(data) < size:
        return None
    header = bytes(data[:size])
    source = destination = None
    if command == _LOCAL:
        # The receiver must accept any address, and skip it: where TLVs begin is not known then.
        return ProxyHeader(size, None, None)
    if kind in _ADDRESSES:
        family, width = _ADDRESSES[kind]
        at = _V2_HEAD.size
        tlvs = at + 2 * width + 4
        if tlvs > size:
            raise ProxyHeaderError("the addresses are cut off")
        hosts = [_v2_host(family, header[at + n * width :][:width]) for n in (0, 1)]
        ports = struct.unpack_from("!HH", header, at + 2 * width)
        source, destination = (HostPort(*end) for end in zip(hosts, ports, strict=True))
    elif kind in _WITHOUT_ADDRESS:
        tlvs = min(_V2_HEAD.size + _WITHOUT_ADDRESS[kind], size)
    else:
        raise ProxyHeaderError("unknown family or protocol")
    _check_tlvs(header, tlvs)
    return ProxyHeader(size, source, destination)


def _v2_host(family: socket.AddressFamily, address: bytes) -> str:
    if address.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, address[len(_MAPPED) :])
    return socket.inet_ntop(family, address)


def _check_tlvs(header: bytes, at: int) -> None:
    """Skip all TLVs but the checksum, which must be right where there is one."""
    while at < len(header):
        if at + _TLV.size > len(header):
            raise ProxyHeaderError("a TLV is cut off")
        kind, length = _TLV.unpack_from(header, at)
        value = at + _TLV.size
        at = value + length
        if at > len(header):
            raise ProxyHeaderError("a TLV is cut off")
        if kind == _CRC32C_TLV:
            if length != 4:
                raise ProxyHeaderError("the checksum is malformed")
            without = header[:value] + bytes(4) + header[at:]
            if crc32c(without) != int.from_bytes(header[value:at], "big"):
                raise ProxyHeaderError("the checksum is wrong")


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc32c_table()


def crc32c(data: bytes) -> int:
    """The checksum of RFC 4960 appendix B, with Castagnoli's polynomial."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
