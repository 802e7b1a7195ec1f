"""Batched receive calls: what has arrived on a socket, as runs of datagrams of one peer.

`DatagramReceiver` reads control messages and splits what GRO coalesced; its compiled twin
(`native/src/receiver.rs`) reads with `recvmmsg`. `PlainReceiver` is for systems without these.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from quicedge import native
from quicedge.config import limits
from quicedge.udp import kernel

Run = tuple[tuple[Any, ...], bytes, int, list[bytes]]
"""The peer's sockaddr, the local address as a pktinfo control message, the ECN mark, and the
datagrams that arrived in a row with these."""

Batch = tuple[list[Run], int, int, int, int, int]
"""Runs in order; then how many reads, bytes, truncated messages, GRO batches and errors."""

_TRAFFIC_CLASS = struct.Struct("=i")
_GRO_SIZE = struct.Struct("=i")


@native.twin
class DatagramReceiver:
    """Receives from one socket with pktinfo, ECN and GRO enabled; never blocks."""

    __slots__ = ("_buffer", "_socket", "_view")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(limits.UDP_READ_SIZE)
        self._view = memoryview(self._buffer)

    def receive(self, max_reads: int, max_bytes: int) -> Batch:
        """What has arrived: at most `max_reads` messages, and no more once `max_bytes` are read."""
        runs: list[Run] = []
        reads = nbytes = truncated = coalesced = errors = 0
        last: tuple[Any, ...] | None = None
        datagrams: list[bytes] = []
        said: object = None
        local, ecn, segment = b"", 0, 0
        receive, buffer, view = self._socket.recvmsg_into, [self._buffer], self._view
        for _ in range(max_reads):
            if nbytes > max_bytes:
                break
            try:
                size, messages, flags, remote = receive(buffer, kernel.CONTROL_SPACE)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                # An ICMP error of an earlier send; the next read continues.
                errors += 1
                continue
            reads += 1
            if flags & kernel.MSG_TRUNC:
                truncated += 1
                continue
            if messages != said:
                said = messages
                local, ecn, segment = _read_control(messages)
            key = remote, local, ecn
            if key != last:
                # Most datagrams of a wake-up come from one peer.
                last = key
                datagrams = []
                runs.append((remote, local, ecn, datagrams))
            nbytes += size
            # Copy once out of the reused buffer, then slice.
            data = bytes(view[:size])
            if not segment or size <= segment:
                datagrams.append(data)
            else:
                coalesced += 1
                datagrams += [data[at : at + segment] for at in range(0, size, segment)]
        return runs, reads, nbytes, truncated, coalesced, errors


class PlainReceiver:
    """Receives one datagram per read, without local addresses and ECN marks."""

    __slots__ = ("_buffer", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(limits.UDP_READ_SIZE)

    def receive(self, max_reads: int, max_bytes: int) -> Batch:
        """As `DatagramReceiver.receive`."""
        runs: list[Run] = []
        reads = nbytes = errors = 0
        for _ in range(max_reads):
            if nbytes > max_bytes:
                break
            try:
                size, remote = self._socket.recvfrom_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                errors += 1
                continue
            reads += 1
            nbytes += size
            if not runs or runs[-1][0] != remote:
                runs.append((remote, b"", 0, []))
            runs[-1][3].append(bytes(self._buffer[:size]))
        return runs, reads, nbytes, 0, 0, errors


def _read_control(messages: list[tuple[int, int, bytes]]) -> tuple[bytes, int, int]:
    """Local address, ECN mark and GRO segment size from control messages."""
    local, ecn, segment = b"", 0, 0
    for level, kind, data in messages:
        if level == kernel.SOL_UDP:
            if kind == kernel.UDP_GRO:
                segment = _GRO_SIZE.unpack_from(data)[0]
        elif level == socket.IPPROTO_IP:
            if kind == kernel.IP_PKTINFO:
                # Reply from the address that the peer sent to, on any interface with a route.
                local = b"\0\0\0\0" + data[4:8] + b"\0\0\0\0"
            elif kind == kernel.IP_TOS:
                ecn = data[0] & 3
        elif level == socket.IPPROTO_IPV6:
            if kind == kernel.IPV6_PKTINFO:
                # Only a link-local address needs its interface.
                local = data if data[0] == 0xFE else data[:16] + b"\0\0\0\0"
            elif kind == kernel.IPV6_TCLASS:
                ecn = _TRAFFIC_CLASS.unpack_from(data)[0] & 3
    return local, ecn, segment
