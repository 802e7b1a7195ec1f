"""The listening sockets: opened once, inherited by workers, closed when the supervisor exits.

Each address has one socket per worker, in one SO_REUSEPORT group in the order of the slots. Closing
a socket would change the indices of the others in the group, so none is closed before the end; the
sockets of a second bank of workers are appended.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass, field

import structlog

from quicedge.admin.view import ListenerStatus
from quicedge.config.host_port import HostPort
from quicedge.config.limits import UDP_RECEIVE_BUFFER, UDP_SEND_BUFFER
from quicedge.udp.connection_id_codec import ConnectionIdCodec
from quicedge.udp.socket import open_socket
from quicedge.worker.control import ListeningSocket

log = structlog.get_logger(__name__)


class ListenError(Exception):
    """An address that cannot be listened on; the message names it."""


@dataclass
class Listener:
    """One address and its sockets; `sockets[k]` belongs to the worker in slot k."""

    address: str
    """Where it is bound, `host:port` or `[v6]:port`."""
    sockets: list[socket.socket] = field(default_factory=list)
    steering: bool = False

    def status(self) -> ListenerStatus:
        return ListenerStatus(
            address=self.address,
            sockets=len(self.sockets),
            receive_buffer=_granted(self.sockets[0], socket.SO_RCVBUF),
            receive_buffer_wanted=UDP_RECEIVE_BUFFER,
            send_buffer=_granted(self.sockets[0], socket.SO_SNDBUF),
            send_buffer_wanted=UDP_SEND_BUFFER,
            steering=self.steering,
        )


class Listeners:
    """All listening sockets. The constructor opens them, or raises ListenError and opens none."""

    def __init__(self, addresses: list[str], workers: int) -> None:
        self._listeners: list[Listener] = []
        self._mailboxes: list[tuple[socket.socket, socket.socket]] = []
        try:
            for address in addresses:
                self._listeners.append(_open(address, workers))
            if workers > 1:
                self._mailboxes = [_mailbox() for _ in range(workers)]
        except BaseException:
            self.close()
            raise
        self._report()

    @property
    def outboxes(self) -> list[int]:
        """Descriptors for sending to the workers' inboxes, by slot; empty with one worker."""
        return [outbox.fileno() for _, outbox in self._mailboxes]

    def inbox_of(self, slot: int) -> int:
        """The descriptor on which `slot` receives forwarded datagrams (`udp.forwarding`), or -1."""
        return self._mailboxes[slot][0].fileno() if self._mailboxes else -1

    def of_slot(self, slot: int) -> list[ListeningSocket]:
        """The sockets that the worker in `slot` inherits."""
        return [
            ListeningSocket(listener.sockets[slot].fileno(), listener.address)
            for listener in self._listeners
        ]

    def sockets_of_slot(self, slot: int) -> list[socket.socket]:
        """The supervisor's own ends of the same sockets."""
        return [listener.sockets[slot] for listener in self._listeners]

    def status(self) -> list[ListenerStatus]:
        return [listener.status() for listener in self._listeners]

    def close(self) -> None:
        for listener in self._listeners:
            for sock in listener.sockets:
                sock.close()
        for pair in self._mailboxes:
            for sock in pair:
                sock.close()

    def _report(self) -> None:
        """Log once which buffer sizes the kernel refused."""
        states = self.status()
        for name, key in (("receive", "net.core.rmem_max"), ("send", "net.core.wmem_max")):
            refused = [
                (granted, wanted)
                for state in states
                if (granted := getattr(state, f"{name}_buffer"))
                < (wanted := getattr(state, f"{name}_buffer_wanted"))
            ]
            if refused:
                granted, wanted = refused[0]
                log.warning(
                    f"UDP {name} buffers are small; bursts will be lost",
                    granted=granted,
                    wanted=wanted,
                    remedy=f"sysctl -w {key}={wanted}",
                )


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


def explain(error: OSError, port: int) -> str:
    """Why a UDP address cannot be bound, with a remedy."""
    remedy = {
        errno.EADDRINUSE: f"`ss -ulpn 'sport = :{port}'` shows who holds it",
        errno.EACCES: "ports below 1024 require CAP_NET_BIND_SERVICE "
        "(see deploy/quicedge.service); or listen on 4433",
        errno.EADDRNOTAVAIL: "no local interface has this address; 0.0.0.0 and [::] mean all",
        errno.EAFNOSUPPORT: "this machine has no IPv6; remove the address from `listen`",
    }.get(error.errno or 0)
    return f"{error.strerror}: {remedy}" if remedy else str(error.strerror or error)


def _mailbox() -> tuple[socket.socket, socket.socket]:
    """A pair of datagram sockets, the inbox and its sending end, which any worker can write to."""
    inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for sock in (inbox, outbox):
        sock.setblocking(False)
    outbox.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UDP_SEND_BUFFER)
    return inbox, outbox


def _open(text: str, workers: int) -> Listener:
    family, (host, port) = resolve_listen(text)
    listener = Listener(text)
    try:
        if port and workers > 1:
            _ensure_unused(family, host, port)
        for _ in range(workers):
            sock = open_socket(
                family,
                host,
                port,
                reuse_port=workers > 1,
                receive_buffer=UDP_RECEIVE_BUFFER,
                send_buffer=UDP_SEND_BUFFER,
            )
            listener.sockets.append(sock)
            port = sock.getsockname()[1]
    except OSError as error:
        for sock in listener.sockets:
            sock.close()
        raise ListenError(f"listen: {text}: {explain(error, port)}") from error
    listener.address = str(HostPort(host, port))
    if workers > 1:
        try:
            ConnectionIdCodec(workers).steer(listener.sockets[0])
            listener.steering = True
        except OSError as error:
            log.warning(
                "no steering by connection ID; workers forward datagrams",
                address=listener.address,
                error=str(error),
            )
    return listener


def _ensure_unused(family: socket.AddressFamily, host: str, port: int) -> None:
    """Fail when another process has the address.

    With SO_REUSEPORT a second edge of the same user would silently join the first one's group
    and take a share of its datagrams.
    """
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind((host, port))


def _granted(sock: socket.socket, option: int) -> int:
    # Linux reports twice what it grants (socket(7)).
    return sock.getsockopt(socket.SOL_SOCKET, option) // 2
