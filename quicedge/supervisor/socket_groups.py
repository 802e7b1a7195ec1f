"""Sockets that share an address: one SO_REUSEPORT group each, for all workers of both banks.

A UDP group has one socket per worker, and the sockets of a worker belong to it alone: the kernel
steers each datagram to one of them. Closing a socket would renumber the others in the group, so
none is closed before the group is; the sockets of a bank that is gone are for the next one.

What waits in a listening TCP socket belongs to nobody yet. The sockets of a TCP group are therefore
divided among the workers of whichever bank takes new connections.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable

from quicedge.config.host_port import HostPort
from quicedge.config.limits import UDP_RECEIVE_BUFFER, UDP_SEND_BUFFER
from quicedge.config.listeners import Transport
from quicedge.tcp.sockets import open_listening_socket
from quicedge.udp.connection_id_codec import ConnectionIdCodec, Routes, slot_number
from quicedge.udp.socket import open_socket

_STALE_DATAGRAM = 65536


class ListenError(Exception):
    """An address that cannot be listened on; the message names it."""


def resolve_listen(text: str) -> tuple[socket.AddressFamily, HostPort]:
    """Family, address and port of `host:port` or `[v6]:port`; raises ListenError."""
    try:
        wanted = HostPort.parse(text)
    except ValueError as error:
        raise ListenError(f"listen: {error}") from None
    try:
        found = socket.getaddrinfo(*wanted, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ListenError(f"listen: {text}: {getattr(error, 'strerror', error)}") from error
    family, *_, sockaddr = found[0]
    return family, HostPort.of(sockaddr)


def explain(error: OSError, port: int, transport: Transport = Transport.UDP) -> str:
    """Why a UDP or TCP address cannot be bound, with a remedy."""
    which = "u" if transport is Transport.UDP else "t"
    remedy = {
        errno.EADDRINUSE: f"`ss -{which}lpn 'sport = :{port}'` shows who holds it",
        errno.EACCES: "ports below 1024 require CAP_NET_BIND_SERVICE "
        "(see deploy/quicedge.service); or listen on 4433",
        errno.EADDRNOTAVAIL: "no local interface has this address; 0.0.0.0 and [::] mean all",
        errno.EAFNOSUPPORT: "this machine has no IPv6; remove the address from `listen`",
    }.get(error.errno or 0)
    return f"{error.strerror}: {remedy}" if remedy else str(error.strerror or error)


class UdpGroup:
    """The UDP sockets of one address, in the order in which they were bound."""

    def __init__(
        self, sockets: Iterable[socket.socket] = (), banks: dict[int, list[int]] | None = None
    ) -> None:
        self.sockets = list(sockets)
        self.banks = banks if banks is not None else {}
        """Numbers in `sockets` of the workers of a bank."""
        self.is_steered = False

    @property
    def address(self) -> HostPort:
        return HostPort.of(self.sockets[0].getsockname())

    def of_bank(self, bank: int) -> list[socket.socket]:
        """The sockets of a bank, by worker."""
        return [self.sockets[number] for number in self.banks[bank]]

    def open_bank(
        self, family: socket.AddressFamily, at: HostPort, bank: int, workers: int
    ) -> None:
        """Give the workers of a bank their sockets; raises OSError.

        Steer before the second bank is opened: its sockets would get their share of datagrams.
        """
        others = {number for numbers in self.banks.values() for number in numbers}
        if not self.sockets and at.port:
            # With SO_REUSEPORT a second edge of the same user would silently join the first one's
            # group and take a share of its clients.
            _open_udp(family, at, reuse_port=False).close()
        while len(self.sockets) < len(others) + workers:
            sock = _open_udp(family, at, reuse_port=True)
            self.sockets.append(sock)
            at = HostPort(at.host, sock.getsockname()[1])
        free = [number for number in range(len(self.sockets)) if number not in others]
        self.banks[bank] = free[:workers]
        for sock in self.of_bank(bank):
            _discard_waiting(sock)

    def close_bank(self, bank: int) -> None:
        """The workers of a bank are gone, or never came."""
        self.banks.pop(bank, None)

    def steer(self, codec: ConnectionIdCodec, active: int, dead: Iterable[int] = ()) -> None:
        """Have the kernel steer to the workers of all banks, and newcomers to those of `active`.

        Raises OSError if the kernel cannot steer. `dead`: slots without a worker, which the active
        bank answers for.
        """
        sockets = {
            slot_number(bank, worker): number
            for bank, numbers in self.banks.items()
            for worker, number in enumerate(numbers)
        }
        for slot in dead:
            sockets.pop(slot, None)
        codec.steer(self.sockets[0], Routes(active, sockets))
        self.is_steered = True

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


class TcpGroup:
    """The listening TCP sockets of one address."""

    def __init__(self, sockets: Iterable[socket.socket] = ()) -> None:
        self.sockets = list(sockets)

    @property
    def address(self) -> HostPort:
        return HostPort.of(self.sockets[0].getsockname())

    def open(self, family: socket.AddressFamily, at: HostPort, workers: int) -> None:
        """Have at least one socket per worker; raises OSError.

        Sockets that are added later do not listen: their workers see to it once they serve.
        """
        first = not self.sockets
        if first and at.port:
            open_listening_socket(family, at.host, at.port).close()
        while len(self.sockets) < workers:
            sock = open_listening_socket(family, at.host, at.port, reuse_port=True, listen=first)
            self.sockets.append(sock)
            at = HostPort(at.host, sock.getsockname()[1])

    def of_worker(self, worker: int, workers: int) -> list[socket.socket]:
        """Those that one of so many workers takes connections from: at least one."""
        return self.sockets[worker::workers]

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def _open_udp(family: socket.AddressFamily, at: HostPort, *, reuse_port: bool) -> socket.socket:
    return open_socket(
        family,
        at.host,
        at.port,
        reuse_port=reuse_port,
        receive_buffer=UDP_RECEIVE_BUFFER,
        send_buffer=UDP_SEND_BUFFER,
    )


def _discard_waiting(sock: socket.socket) -> None:
    """Drop what came for the previous worker of a socket after its end."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(_STALE_DATAGRAM)
