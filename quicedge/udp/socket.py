"""UDP sockets with batched receive and send (GRO, GSO), ECN and local addresses."""

from __future__ import annotations

import errno
import socket
from collections import Counter, deque
from collections.abc import Callable
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from quicedge.config import limits
from quicedge.config.host_port import HostPort
from quicedge.udp import kernel
from quicedge.udp.receiver import DatagramReceiver, PlainReceiver, Run


class Sender(Protocol):
    """What a path's datagrams are sent by: a socket, or what stands for one of another host."""

    @property
    def address(self) -> tuple[Any, ...]:
        """The sockaddr that clients are answered from."""

    @property
    def name(self) -> str:
        """Its address in text, as listeners are called by."""

    def send(self, datagrams: list[bytes], path: FourTuple, ecn: int = 0) -> None: ...

    def send_segments(self, data: bytes, segment: int, path: FourTuple, ecn: int = 0) -> None: ...


class FourTuple(NamedTuple):
    """A path as a server sees it: the peer, and the local address and socket it sent to."""

    remote: tuple[Any, ...]
    """The peer's sockaddr."""
    local: bytes
    """A pktinfo control message that makes replies leave from that address; b"" when unknown."""
    socket: Sender

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
        self._controls: dict[tuple[bytes, int, int], list[kernel.ControlMessage]] = {}
        self._queue: deque[tuple[bytes, int, FourTuple, int]] = deque()
        self._queued_bytes = 0
        self._receiver = DatagramReceiver(sock) if self._ancillary else PlainReceiver(sock)
        self.undelivered: deque[Run] = deque()
        """What was read and waits for `receive`, while the socket need not be readable; to be read
        only."""
        self.on_blocked: Callable[[], None] | None = None
        """Called when datagrams start to queue up: arrange for `flush` when writable."""

    def fileno(self) -> int:
        return self._sock.fileno()

    @cached_property
    def address(self) -> tuple[Any, ...]:
        """The sockaddr that the socket is bound to."""
        return self._sock.getsockname()

    @cached_property
    def name(self) -> str:
        """Its address in text, as listeners are called by."""
        return str(HostPort.of(self.address))

    @property
    def receive_buffer(self) -> int:
        """Bytes that the kernel holds for it until they are received."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def close(self) -> None:
        self._sock.close()

    # --- receiving ----------------------------------------------------------------------------

    def receive(self, handler: Handler, clock: Callable[[], float] | None = None) -> int:
        """Deliver a bounded batch of received datagrams; returns their number.

        With a `clock`, in seconds, delivery ends once handlers have taken UDP_SECONDS_PER_WAKEUP;
        what was read and is `undelivered` then waits for the next call.
        """
        runs, paths = self.undelivered, self._paths
        if not runs:
            counters = self.counters
            batch, reads, nbytes, truncated, coalesced, errors = self._receiver.receive(
                limits.UDP_READS_PER_WAKEUP, limits.UDP_BYTES_PER_WAKEUP
            )
            runs.extend(batch)
            counters["reads"] += reads
            counters["bytes_received"] += nbytes
            if coalesced:
                counters["gro_batches"] += coalesced
            if truncated:
                counters["dropped_truncated"] += truncated
            if errors:
                counters["receive_errors"] += errors
        until = clock() + limits.UDP_SECONDS_PER_WAKEUP if clock is not None else 0.0
        total = 0
        while runs:
            remote, local, ecn, datagrams = runs.popleft()
            total += len(datagrams)
            handler(datagrams, paths.get((remote, local)) or self.path(remote, local), ecn)
            if clock is not None and runs and clock() > until:
                break
        self.counters["datagrams_received"] += total
        return total

    def path(self, remote: tuple[Any, ...], local: bytes) -> FourTuple:
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
            data = datagrams[0]
            if self._queue or not self._try(data, len(data), path, ecn):
                self._enqueue(data, len(data), path, ecn)
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
        size = len(data)
        if size <= segment:
            segment = 0
        messages = self._controls.get((path.local, ecn, segment))
        if messages is None:
            messages = self._control(path.local, ecn, segment)
        try:
            if messages:
                self._sock.sendmsg((data,), messages, 0, path.remote)
            else:
                self._sock.sendto(data, path.remote)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            return self._send_failed(error, data, segment or size, path, ecn)
        counters = self.counters
        counters["writes"] += 1
        counters["datagrams_sent"] += -(-size // segment) if segment else 1
        counters["bytes_sent"] += size
        return True

    def _control(self, local: bytes, ecn: int, segment: int) -> list[kernel.ControlMessage]:
        """Control messages: leave from `local`, marked `ecn`, split into segments if not 0; they
        are remembered."""
        messages: list[kernel.ControlMessage] = []
        if self._ancillary:
            if local:
                messages.append(kernel.pktinfo_message(self.family, local))
            if ecn:
                messages.append(kernel.ecn_message(self.family, ecn))
            if segment:
                messages.append(kernel.segment_message(segment))
        if len(self._controls) >= limits.UDP_CONTROLS_REMEMBERED:
            self._controls.clear()
        self._controls[local, ecn, segment] = messages
        return messages

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
