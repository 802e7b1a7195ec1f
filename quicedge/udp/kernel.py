"""Linux socket options and control messages; Python's socket module does not name all of them."""

from __future__ import annotations

import socket
import struct
import sys

IS_LINUX = sys.platform == "linux"

SOL_UDP = socket.IPPROTO_UDP
UDP_SEGMENT = 103
UDP_GRO = 104
IP_PKTINFO = 8
IP_TOS = 1
IP_RECVTOS = 13
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PMTUDISC_DONT = 0
"""Fragment what is larger than the path MTU."""
PMTUDISC_PROBE = 3
"""Set don't-fragment and ignore the path MTU that ICMP reports (RFC 8899 section 4.6.2)."""
SO_RXQ_OVFL = 40
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32
SO_ATTACH_REUSEPORT_CBPF = 51
# Plain numbers: `&` on enum members costs as much as a read.
MSG_CTRUNC = int(socket.MSG_CTRUNC)
MSG_TRUNC = int(socket.MSG_TRUNC)

IPV6_PKTINFO = getattr(socket, "IPV6_PKTINFO", 50)
IPV6_RECVPKTINFO = getattr(socket, "IPV6_RECVPKTINFO", 49)
IPV6_TCLASS = getattr(socket, "IPV6_TCLASS", 67)
IPV6_RECVTCLASS = getattr(socket, "IPV6_RECVTCLASS", 66)

_UINT16 = struct.Struct("=H")
_INT = struct.Struct("=i")

CONTROL_SPACE = (
    socket.CMSG_SPACE(20) + 3 * socket.CMSG_SPACE(_INT.size) if hasattr(socket, "CMSG_SPACE") else 0
)
"""Bytes for pktinfo, traffic class, GRO size and queue overflow."""


ControlMessage = tuple[int, int, bytes]
"""Level, type and data."""


def segment_message(size: int) -> ControlMessage:
    """The control message that splits a buffer into datagrams of `size` bytes (UDP GSO)."""
    return SOL_UDP, UDP_SEGMENT, _UINT16.pack(size)


def pktinfo_message(family: int, local: bytes) -> ControlMessage:
    """The control message that selects the local address to send from."""
    if family == socket.AF_INET6:
        return socket.IPPROTO_IPV6, IPV6_PKTINFO, local
    return socket.IPPROTO_IP, IP_PKTINFO, local


def pktinfo(host: str) -> bytes:
    """The pktinfo that makes a datagram leave from an address, on any interface with a route."""
    if ":" in host:
        return socket.inet_pton(socket.AF_INET6, host) + b"\0\0\0\0"
    return b"\0\0\0\0" + socket.inet_aton(host) + b"\0\0\0\0"


def ecn_message(family: int, ecn: int) -> ControlMessage:
    """The control message that marks a datagram (RFC 3168)."""
    if family == socket.AF_INET6:
        return socket.IPPROTO_IPV6, IPV6_TCLASS, _INT.pack(ecn)
    return socket.IPPROTO_IP, IP_TOS, _INT.pack(ecn)


def set_option(sock: socket.socket, level: int, option: int, value: int) -> bool:
    """Set an option; returns whether the kernel accepted it."""
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True
