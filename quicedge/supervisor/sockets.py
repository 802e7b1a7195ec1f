"""The listening sockets: opened once, inherited by workers, closed when the supervisor exits.

Each address has one UDP and one TCP socket per worker, each kind in one SO_REUSEPORT group in the
order of the slots. Closing a socket would change the indices of the others in the group, so none is
closed before the end; the sockets of a second bank of workers are appended.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from quicedge.admin.view import ListenerStatus
from quicedge.config.host_port import HostPort
from quicedge.config.limits import PORT_ATTEMPTS, UDP_RECEIVE_BUFFER, UDP_SEND_BUFFER
from quicedge.config.listeners import Listening, Redirecting, Transport
from quicedge.tcp.sockets import open_listening_socket
from quicedge.udp.connection_id_codec import ConnectionIdCodec
from quicedge.udp.connection_id_layout import PLAIN, ConnectionIdLayout
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
    listening: Listening
    entry: int
    """Index in `listen`."""
    sockets: list[socket.socket] = field(default_factory=list)
    """UDP; none without HTTP/3."""
    tcp: list[socket.socket] = field(default_factory=list)
    """None without a protocol on TCP."""
    steering: bool = False

    def status(self) -> ListenerStatus:
        return ListenerStatus(
            address=self.address,
            protocols=list(self.listening.protocols),
            sockets=len(self.sockets),
            tcp_sockets=len(self.tcp),
            receive_buffer=_granted(self.sockets, socket.SO_RCVBUF),
            receive_buffer_wanted=UDP_RECEIVE_BUFFER,
            send_buffer=_granted(self.sockets, socket.SO_SNDBUF),
            send_buffer_wanted=UDP_SEND_BUFFER,
            steering=self.steering,
        )

    def close(self) -> None:
        for sock in (*self.sockets, *self.tcp):
            sock.close()


class Listeners:
    """All listening sockets. The constructor opens them, or raises ListenError and opens none."""

    def __init__(
        self,
        wanted: Iterable[Listening],
        workers: int,
        redirects: Iterable[Redirecting] = (),
        *,
        layout: ConnectionIdLayout = PLAIN,
    ) -> None:
        self._listeners: list[Listener] = []
        self._redirects: list[list[socket.socket]] = []
        self._mailboxes: list[tuple[socket.socket, socket.socket]] = []
        try:
            for entry, listening in enumerate(wanted):
                self._listeners.append(_open(listening, entry, workers, layout))
            for item in redirects:
                if sockets := _open_redirect(item, workers):
                    self._redirects.append(sockets)
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
        """The UDP sockets that the worker in `slot` inherits."""
        return [
            ListeningSocket(listener.sockets[slot].fileno(), listener.address, listener.entry)
            for listener in self._listeners
            if listener.sockets
        ]

    def tcp_of_slot(self, slot: int) -> list[ListeningSocket]:
        """The listening TCP sockets that the worker in `slot` inherits."""
        return [
            ListeningSocket(listener.tcp[slot].fileno(), listener.address, listener.entry)
            for listener in self._listeners
            if listener.tcp
        ]

    def redirects_of_slot(self, slot: int) -> list[ListeningSocket]:
        """The sockets for plain HTTP that the worker in `slot` inherits."""
        return [
            ListeningSocket(
                sockets[slot].fileno(), str(HostPort.of(sockets[slot].getsockname())), entry
            )
            for entry, sockets in enumerate(self._redirects)
        ]

    def sockets_of_slot(self, slot: int) -> list[socket.socket]:
        """The supervisor's own ends of the same UDP sockets."""
        return [listener.sockets[slot] for listener in self._listeners if listener.sockets]

    def status(self) -> list[ListenerStatus]:
        return [listener.status() for listener in self._listeners]

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()
        for sock in (sock for sockets in self._redirects for sock in sockets):
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
                if state.sockets
                and (granted := getattr(state, f"{name}_buffer"))
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


def _mailbox() -> tuple[socket.socket, socket.socket]:
    """A pair of datagram sockets, the inbox and its sending end, which any worker can write to."""
    inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for sock in (inbox, outbox):
        sock.setblocking(False)
    outbox.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UDP_SEND_BUFFER)
    return inbox, outbox


def _open(listening: Listening, entry: int, workers: int, layout: ConnectionIdLayout) -> Listener:
    text = listening.address
    family, wanted = resolve_listen(text)
    for attempt in range(PORT_ATTEMPTS):
        listener = Listener(text, listening, entry)
        transport, port = Transport.UDP, wanted.port
        try:
            if listening.quic:
                port = _bind(listener.sockets, family, wanted, workers, _open_udp)
            transport = Transport.TCP
            if listening.tcp_protocols:
                address = HostPort(wanted.host, port)
                port = _bind(listener.tcp, family, address, workers, open_listening_socket)
        except OSError as error:
            listener.close()
            # A port that the kernel chose for UDP may be taken on TCP.
            by_kernel = wanted.port == 0 and error.errno == errno.EADDRINUSE
            if by_kernel and attempt < PORT_ATTEMPTS - 1:
                continue
            raise ListenError(f"listen: {text}: {explain(error, port, transport)}") from error
        break
    listener.address = str(HostPort(wanted.host, port))
    if workers > 1 and listener.sockets:
        _steer(listener, workers, layout)
    return listener


def _open_redirect(wanted: Redirecting, workers: int) -> list[socket.socket]:
    """The sockets of one address for plain HTTP; none if it is not required and cannot be had."""
    sockets: list[socket.socket] = []
    family, address = resolve_listen(wanted.address)
    try:
        _bind(sockets, family, address, workers, open_listening_socket)
    except OSError as error:
        for sock in sockets:
            sock.close()
        reason = explain(error, address.port, Transport.TCP)
        if wanted.required:
            raise ListenError(f"redirect_http: {wanted.address}: {reason}") from error
        log.warning("plain HTTP is not redirected", address=wanted.address, reason=reason)
        return []
    return sockets


_OpenSocket = Callable[..., socket.socket]


def _open_udp(
    family: socket.AddressFamily, host: str, port: int, *, reuse_port: bool
) -> socket.socket:
    return open_socket(
        family,
        host,
        port,
        reuse_port=reuse_port,
        receive_buffer=UDP_RECEIVE_BUFFER,
        send_buffer=UDP_SEND_BUFFER,
    )


def _bind(
    sockets: list[socket.socket],
    family: socket.AddressFamily,
    wanted: HostPort,
    workers: int,
    open_one: _OpenSocket,
) -> int:
    """Add one socket per worker to `sockets`; returns the bound port."""
    host, port = wanted
    if port and workers > 1:
        # With SO_REUSEPORT a second edge of the same user would silently join the first one's group
        # and take a share of its clients.
        open_one(family, host, port, reuse_port=False).close()
    for _ in range(workers):
        sockets.append(open_one(family, host, port, reuse_port=workers > 1))
        port = sockets[-1].getsockname()[1]
    return port


def _steer(listener: Listener, workers: int, layout: ConnectionIdLayout) -> None:
    try:
        ConnectionIdCodec(workers, layout).steer(listener.sockets[0])
        listener.steering = True
    except OSError as error:
        log.warning(
            "no steering by connection ID; workers forward datagrams",
            address=listener.address,
            error=str(error),
        )


def _granted(sockets: list[socket.socket], option: int) -> int:
    # Linux reports twice what it grants (socket(7)).
    return sockets[0].getsockopt(socket.SOL_SOCKET, option) // 2 if sockets else 0
