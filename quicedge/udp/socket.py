"""UDP sockets with batched receive and send (GRO, GSO), ECN and local addresses."""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from quicedge.config import limits
from quicedge.config.host_port import HostPort
from quicedge.udp import kernel


class FourTuple(NamedTuple):
    """A path as a server sees it: the peer, and the local address and socket it sent to."""

    remote: tuple[Any, ...]
    """The peer's sockaddr."""
    local: bytes
    """A pktinfo control message that makes replies leave from that address; b"" when unknown."""
    socket: UdpSocket

    @property
    def local_host(self) -> str:
        """The local IP address in text; empty when unknown."""
        if len(self.local) == 12:  # struct in_pktinfo: index, spec_dst, addr
            return socket.inet_ntop(socket.AF_INET, self.local[4:8])
        if len(self.local) == 20:  # struct in6_pktinfo: addr, index
            return socket.inet_ntop(socket.AF_INET6, self.local[:16])
        return ""

    def __str__(self) -> str:
        return str(HostPort.of(self.remote))


Handler = Callable[[list[bytes], FourTuple, int], None]
"""Receives consecutive datagrams of one path with the same ECN mark."""

_TRAFFIC_CLASS = struct.Struct("=i")
_GRO_SIZE = struct.Struct("=i")


class SendFailure(StrEnum):
    """Why the kernel did not take a datagram; the names of the `send_dropped_*` counters."""

    TOO_LARGE = "too_large"
    NOT_PERMITTED = "not_permitted"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    ADDRESS_GONE = "address_gone"
    ERROR = "error"


_SEND_FAILURES = {
    errno.EMSGSIZE: SendFailure.TOO_LARGE,
    errno.EPERM: SendFailure.NOT_PERMITTED,
    errno.ENETUNREACH: SendFailure.UNREACHABLE,
    errno.EHOSTUNREACH: SendFailure.UNREACHABLE,
    errno.ECONNREFUSED: SendFailure.REFUSED,
    errno.EADDRNOTAVAIL: SendFailure.ADDRESS_GONE,
}


def open_socket(
    family: socket.AddressFamily,
    host: str,
    port: int,
    *,
    reuse_port: bool = False,
    receive_buffer: int = limits.UDP_RECEIVE_BUFFER,
    send_buffer: int = limits.UDP_SEND_BUFFER,
) -> socket.socket:
    """A bound, non-blocking UDP socket with all available kernel features enabled.

    Raises OSError if it cannot be bound; features that the kernel refuses are omitted.
    """
    sock = socket.socket(family, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0))
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for force, option, size in (
            (kernel.SO_RCVBUFFORCE, socket.SO_RCVBUF, receive_buffer),
            (kernel.SO_SNDBUFFORCE, socket.SO_SNDBUF, send_buffer),
        ):
            if not (kernel.IS_LINUX and kernel.set_option(sock, socket.SOL_SOCKET, force, size)):
                kernel.set_option(sock, socket.SOL_SOCKET, option, size)
        if kernel.IS_LINUX:
            _ask_for_ancillary_data(sock, family)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _ask_for_ancillary_data(sock: socket.socket, family: int) -> None:
    if family == socket.AF_INET6:
        level = socket.IPPROTO_IPV6
        wanted = (
            (kernel.IPV6_RECVPKTINFO, 1),
            (kernel.IPV6_RECVTCLASS, 1),
            (kernel.IPV6_MTU_DISCOVER, kernel.PMTUDISC_PROBE),
        )
    else:
        level = socket.IPPROTO_IP
        wanted = (
            (kernel.IP_PKTINFO, 1),
            (kernel.IP_RECVTOS, 1),
            (kernel.IP_MTU_DISCOVER, kernel.PMTUDISC_PROBE),
        )
    for option, value in wanted:
        kernel.set_option(sock, level, option, value)
    kernel.set_option(sock, kernel.SOL_UDP, kernel.UDP_GRO, 1)


class UdpSocket:
    """Batched I/O on one bound socket; never blocks and never raises on network errors.

    Datagrams that the kernel does not accept at once are queued for `flush`, in order. The queue is
    bounded; beyond the bound datagrams are dropped, as a network would, and counted. Call `receive`
    when the socket is readable, `flush` when it is writable after `on_blocked`.
    """

    def __init__(self, sock: socket.socket, *, batching: bool = kernel.IS_LINUX) -> None:
        self.counters: Counter[str] = Counter()
        self.family = sock.family
        self.gso = batching and kernel.set_option(sock, kernel.SOL_UDP, kernel.UDP_SEGMENT, 0)
        """Whether one call may carry many datagrams; permanently disabled if refused."""
        self._sock = sock
        self._ancillary = batching and bool(kernel.CONTROL_SPACE)
        self._paths: dict[tuple[tuple[object, ...], bytes], FourTuple] = {}
        self._queue: deque[tuple[bytes, int, FourTuple, int]] = deque()
        self._queued_bytes = 0
        self._buffer = bytearray(limits.UDP_READ_SIZE)
        self._view = memoryview(self._buffer)
        self.on_blocked: Callable[[], None] | None = None
        """Called when datagrams start to queue up: arrange for `flush` when writable."""

    def fileno(self) -> int:
        return self._sock.fileno()

    @cached_property
    def address(self) -> tuple[object, ...]:
        """The sockaddr that the socket is bound to."""
        return self._sock.getsockname()

    def close(self) -> None:
        self._sock.close()

    # --- receiving ----------------------------------------------------------------------------

    def receive(self, handler: Handler, clock: Callable[[], float] | None = None) -> int:
        """Deliver a bounded batch of received datagrams; returns their number.

        With a `clock`, in seconds, reading ends once handlers have taken UDP_SECONDS_PER_WAKEUP.
        """
        counters = self.counters
        until = clock() + limits.UDP_SECONDS_PER_WAKEUP if clock is not None else 0.0
        total = nbytes = 0
        datagrams: list[bytes] = []
        path: FourTuple | None = None
        ecn = segment = 0
        last: tuple[object, object] | None = None
        out_of_time = False
        for _ in range(limits.UDP_READS_PER_WAKEUP):
            if nbytes > limits.UDP_BYTES_PER_WAKEUP or out_of_time:
                break
            try:
                if self._ancillary:
                    size, messages, flags, remote = self._sock.recvmsg_into(
                        [self._buffer], kernel.CONTROL_SPACE
                    )
                else:
                    size, remote = self._sock.recvfrom_into(self._buffer)
                    messages, flags = [], 0
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                # An ICMP error of an earlier send; the next read continues.
                counters["receive_errors"] += 1
                continue
            counters["reads"] += 1
            if flags & kernel.MSG_TRUNC:
                counters["dropped_truncated"] += 1
                continue
            if (remote, messages) != last:
                # Most datagrams of a wake-up come from one peer: reuse the parsed control data.
                if datagrams and path is not None:
                    handler(datagrams, path, ecn)
                    total += len(datagrams)
                    datagrams = []
                    out_of_time = clock is not None and clock() > until
                last = remote, messages
                local, ecn, segment = self._control(messages)
                path = self.path(remote, local)
            nbytes += size
            # Copy once out of the reused buffer, then slice.
            data = bytes(self._view[:size])
            if not segment or size <= segment:
                datagrams.append(data)
            else:
                counters["gro_batches"] += 1
                datagrams += [data[at : at + segment] for at in range(0, size, segment)]
        if datagrams and path is not None:
            handler(datagrams, path, ecn)
            total += len(datagrams)
        counters["bytes_received"] += nbytes
        counters["datagrams_received"] += total
        return total

    def _control(self, messages: list[tuple[int, int, bytes]]) -> tuple[bytes, int, int]:
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

    def path(self, remote: tuple[object, ...], local: bytes) -> FourTuple:
        """The path between a peer and a local address; the same object each time."""
        key = remote, local
        path = self._paths.get(key)
        if path is None:
            if len(self._paths) >= limits.UDP_PATHS_REMEMBERED:
                self._paths.clear()
            path = self._paths[key] = FourTuple(remote, local, self)
        return path

    # --- sending ------------------------------------------------------------------------------

    def send(self, datagrams: list[bytes], path: FourTuple, ecn: int = 0) -> None:
        """Send datagrams in order; runs of equal size are passed to the kernel together."""
        if len(datagrams) == 1:
            self._send(datagrams[0], len(datagrams[0]), path, ecn)
            return
        start = 0
        while start < len(datagrams):
            segment = len(datagrams[start])
            stop = start + 1
            room = min(limits.UDP_MAX_SEGMENTS, limits.UDP_MAX_PAYLOAD // segment) - 1
            while room and stop < len(datagrams) and len(datagrams[stop]) <= segment:
                stop += 1
                room -= 1
                if len(datagrams[stop - 1]) < segment:
                    break  # only the last one may be shorter
            self._send(b"".join(datagrams[start:stop]), segment, path, ecn)
            start = stop

    def send_segments(self, data: bytes, segment: int, path: FourTuple, ecn: int = 0) -> None:
        """Send `data` as datagrams of `segment` bytes; the last may be shorter."""
        self._send(data, segment, path, ecn)

    def _send(self, data: bytes, segment: int, path: FourTuple, ecn: int) -> None:
        if self._queue or not self._try(data, segment, path, ecn):
            self._enqueue(data, segment, path, ecn)

    def _try(self, data: bytes, segment: int, path: FourTuple, ecn: int) -> bool:
        """Offer datagrams to the kernel; False if it has no room now."""
        if len(data) > segment and not self.gso:
            return self._try_singly(data, segment, path, ecn)
        messages = []
        if self._ancillary:
            if path.local:
                messages.append(kernel.pktinfo_message(self.family, path.local))
            if ecn:
                messages.append(kernel.ecn_message(self.family, ecn))
            if len(data) > segment:
                messages.append(kernel.segment_message(segment))
        try:
            if messages:
                self._sock.sendmsg((data,), messages, 0, path.remote)
            else:
                self._sock.sendto(data, path.remote)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            return self._send_failed(error, data, segment, path, ecn)
        self.counters["writes"] += 1
        self.counters["datagrams_sent"] += -(-len(data) // segment)
        self.counters["bytes_sent"] += len(data)
        return True

    def _try_singly(self, data: bytes, segment: int, path: FourTuple, ecn: int) -> bool:
        for at in range(0, len(data), segment):
            if not self._try(data[at : at + segment], segment, path, ecn):
                self._enqueue(data[at:], segment, path, ecn)
                break
        return True

    def _send_failed(
        self, error: OSError, data: bytes, segment: int, path: FourTuple, ecn: int
    ) -> bool:
        if error.errno == errno.ENOBUFS:
            return False
        if self.gso and len(data) > segment and error.errno in (errno.EIO, errno.EINVAL):
            # The device or driver does not support GSO: do not try again.
            self.gso = False
            self.counters["gso_refused"] += 1
            return self._try_singly(data, segment, path, ecn)
        reason = _SEND_FAILURES.get(error.errno or 0, SendFailure.ERROR)
        self.counters[f"send_dropped_{reason}"] += -(-len(data) // segment)
        return True

    def _enqueue(self, data: bytes, segment: int, path: FourTuple, ecn: int) -> None:
        if self._queued_bytes + len(data) > limits.UDP_SEND_QUEUE:
            self.counters["send_dropped_queue"] += -(-len(data) // segment)
            return
        waiting = bool(self._queue)
        self._queue.append((data, segment, path, ecn))
        self._queued_bytes += len(data)
        if not waiting and self.on_blocked is not None:
            self.on_blocked()

    def flush(self) -> bool:
        """Send queued datagrams; True if the queue is empty afterwards."""
        while self._queue:
            item = self._queue.popleft()
            self._queued_bytes -= len(item[0])
            if not self._try(*item):
                self._queue.appendleft(item)
                self._queued_bytes += len(item[0])
                return False
        return True
