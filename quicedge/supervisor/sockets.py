"""The sockets of one generation of workers: those it listens on, and those between its workers.

Listening sockets are shared with the generation before and the one after (`socket_groups`), so that
no client notices when workers are replaced.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog

from quicedge.admin.view import ListenerStatus
from quicedge.config.host_port import HostPort
from quicedge.config.limits import PORT_ATTEMPTS, UDP_RECEIVE_BUFFER, UDP_SEND_BUFFER
from quicedge.config.listeners import Listening, Redirecting, Transport
from quicedge.supervisor.socket_groups import (
    ListenError,
    TcpGroup,
    UdpGroup,
    explain,
    resolve_listen,
)
from quicedge.udp.connection_id_codec import ConnectionIdCodec, slot_number
from quicedge.udp.connection_id_layout import PLAIN, ConnectionIdLayout
from quicedge.worker.control import ListeningSocket
from quicedge.worker.estate import Estate, ListenerEstate, RedirectEstate, UdpEstate

log = structlog.get_logger(__name__)

__all__ = ["ListenError", "Listeners", "explain", "resolve_listen"]


@dataclass
class Listener:
    """One entry of `listen` and its sockets."""

    address: str
    """Where it is bound, `host:port` or `[v6]:port`."""
    listening: Listening
    entry: int
    """Index in `listen`."""
    udp: UdpGroup | None = None
    """None without HTTP/3."""
    tcp: TcpGroup | None = None
    """None without a protocol on TCP."""


@dataclass
class Redirect:
    """One address for plain HTTP."""

    text: str
    """As configured."""
    group: TcpGroup
    entry: int
    """Index in `redirecting`."""


class Listeners:
    """All sockets of one generation.

    The constructor opens what `previous`, the generation that it replaces, does not have, or raises
    ListenError and leaves everything as it was. Call `activate` once the workers serve, `retire`
    when they are gone.
    """

    def __init__(
        self,
        wanted: Iterable[Listening],
        workers: int,
        redirects: Iterable[Redirecting] = (),
        *,
        layout: ConnectionIdLayout = PLAIN,
        bank: int = 0,
        previous: Listeners | None = None,
    ) -> None:
        self.bank = bank
        self.workers = workers
        self.listeners: list[Listener] = []
        self.redirects: list[Redirect] = []
        self.codec = ConnectionIdCodec(layout)
        self.mailboxes: list[tuple[socket.socket | None, socket.socket]] = []
        """The inbox of each worker, unless it was inherited, and its sending end."""
        self._dead: set[int] = set()
        """Slots of the bank before without a worker."""
        self._previous = previous
        self._opened: list[UdpGroup | TcpGroup] = []
        try:
            for entry, listening in enumerate(wanted):
                self.listeners.append(self._open(listening, entry))
            for entry, item in enumerate(redirects):
                self._open_redirect(item, entry)
            self.mailboxes = [_mailbox() for _ in range(workers)]
        except BaseException:
            self.abandon()
            raise
        if previous is None:
            self._steer_if_several()
        self._report()

    # --- what a worker gets ---------------------------------------------------------------------

    @property
    def outboxes(self) -> dict[int, int]:
        """Descriptors for sending to the workers' inboxes, by slot."""
        return {
            slot_number(self.bank, worker): outbox.fileno()
            for worker, (_, outbox) in enumerate(self.mailboxes)
        }

    def inbox_of(self, worker: int) -> int:
        """The descriptor on which a worker receives forwarded datagrams (`udp.forwarding`)."""
        inbox = self.mailboxes[worker][0]
        return -1 if inbox is None else inbox.fileno()

    def renew_mailbox(self, worker: int) -> bool:
        """Make a mailbox where only the sending end was inherited; whether that was so."""
        inbox, outbox = self.mailboxes[worker]
        if inbox is not None:
            return False
        outbox.close()
        self.mailboxes[worker] = _mailbox()
        return True

    def of_slot(self, worker: int) -> list[ListeningSocket]:
        """The UDP sockets that a worker inherits."""
        return [
            ListeningSocket(item.udp.of_bank(self.bank)[worker].fileno(), item.address, item.entry)
            for item in self.listeners
            if item.udp is not None
        ]

    def tcp_of_slot(self, worker: int) -> list[ListeningSocket]:
        """The listening TCP sockets that a worker inherits."""
        return [
            ListeningSocket(sock.fileno(), item.address, item.entry)
            for item in self.listeners
            if item.tcp is not None
            for sock in item.tcp.of_worker(worker, self.workers)
        ]

    def redirects_of_slot(self, worker: int) -> list[ListeningSocket]:
        """The sockets for plain HTTP that a worker inherits."""
        return [
            ListeningSocket(sock.fileno(), str(item.group.address), item.entry)
            for item in self.redirects
            for sock in item.group.of_worker(worker, self.workers)
        ]

    def sockets_of_slot(self, worker: int) -> list[socket.socket]:
        """The supervisor's own ends of the same UDP sockets."""
        return [
            item.udp.of_bank(self.bank)[worker] for item in self.listeners if item.udp is not None
        ]

    def estate(self) -> Estate:
        """All of it, for the next supervisor."""
        return Estate(
            bank=self.bank,
            workers=self.workers,
            listeners=[
                ListenerEstate(
                    text=item.listening.address,
                    address=item.address,
                    protocols=list(item.listening.protocols),
                    entry=item.entry,
                    udp=None if item.udp is None else _udp_estate(item.udp),
                    tcp=None if item.tcp is None else _fds(item.tcp.sockets),
                )
                for item in self.listeners
            ],
            redirects=[
                RedirectEstate(text=item.text, entry=item.entry, tcp=_fds(item.group.sockets))
                for item in self.redirects
            ],
            outboxes=self.outboxes,
        )

    @classmethod
    def inherit(cls, estate: Estate, layout: ConnectionIdLayout) -> Listeners:
        """Those of another supervisor's generation. Its workers' inboxes are their own."""
        self = cls((), 0, layout=layout, bank=estate.bank)
        self.workers = estate.workers
        for item in estate.listeners:
            protocols: tuple[Any, ...] = tuple(item.protocols)
            listener = Listener(item.address, Listening(item.text, protocols), item.entry)
            if item.udp is not None:
                banks = {bank: list(numbers) for bank, numbers in item.udp.banks.items()}
                listener.udp = UdpGroup(map(_socket, item.udp.fds), banks)
                listener.udp.is_steered = len(item.udp.fds) > 1
            if item.tcp is not None:
                listener.tcp = TcpGroup(map(_socket, item.tcp))
            self.listeners.append(listener)
        for redirect in estate.redirects:
            group = TcpGroup(map(_socket, redirect.tcp))
            self.redirects.append(Redirect(redirect.text, group, redirect.entry))
        self.mailboxes = [(None, _socket(fd)) for _, fd in sorted(estate.outboxes.items())]
        return self

    def forget_other_banks(self) -> None:
        """No worker of another bank lives."""
        for item in self.listeners:
            if item.udp is not None:
                for bank in set(item.udp.banks) - {self.bank}:
                    item.udp.close_bank(bank)

    # --- its life -------------------------------------------------------------------------------

    def activate(self) -> None:
        """From now on newcomers come to these workers; raises ListenError."""
        for item in self.listeners:
            if item.udp is not None:
                self._steer(item.udp)
        self._previous = None
        self._opened = []

    def answer_for(self, slot: int) -> None:
        """A worker of the bank before is gone: answer what comes for it with resets."""
        self._dead.add(slot)
        for item in self.listeners:
            if item.udp is not None and item.udp.is_steered:
                self._steer(item.udp)

    def abandon(self) -> None:
        """Undo the constructor: the workers did not start."""
        for item in self.listeners:
            if item.udp is not None and item.udp not in self._opened:
                item.udp.close_bank(self.bank)
        for group in self._opened:
            group.close()
        self._close_mailboxes()

    def retire(self, successor: Listeners) -> None:
        """The workers of these sockets are gone; the successor has taken over what it needs."""
        kept = {id(group) for group in successor.groups()}
        for group in self.groups():
            if id(group) not in kept:
                group.close()
            elif isinstance(group, UdpGroup):
                group.close_bank(self.bank)
        successor._dead.clear()
        successor.activate()
        self._close_mailboxes()

    def close(self) -> None:
        """Close everything at the end."""
        for group in self.groups():
            group.close()
        self._close_mailboxes()

    def groups(self) -> list[UdpGroup | TcpGroup]:
        """All groups that this generation uses."""
        of_listeners = [group for item in self.listeners for group in (item.udp, item.tcp)]
        return [
            *(group for group in of_listeners if group is not None),
            *(item.group for item in self.redirects),
        ]

    @property
    def udp_addresses(self) -> list[str]:
        """Where new connections over UDP are taken."""
        return [str(group.address) for group in self.groups() if isinstance(group, UdpGroup)]

    def tcp_groups(self) -> list[TcpGroup]:
        """Those of all listening TCP sockets."""
        return [group for group in self.groups() if isinstance(group, TcpGroup)]

    def status(self) -> list[ListenerStatus]:
        return [self._status(item) for item in self.listeners]

    def _status(self, item: Listener) -> ListenerStatus:
        udp = item.udp.of_bank(self.bank) if item.udp is not None else []
        return ListenerStatus(
            address=item.address,
            protocols=list(item.listening.protocols),
            sockets=len(udp),
            tcp_sockets=len(item.tcp.sockets) if item.tcp is not None else 0,
            receive_buffer=_granted(udp, socket.SO_RCVBUF),
            receive_buffer_wanted=UDP_RECEIVE_BUFFER,
            send_buffer=_granted(udp, socket.SO_SNDBUF),
            send_buffer_wanted=UDP_SEND_BUFFER,
            steering=item.udp is not None and item.udp.is_steered,
        )

    def _close_mailboxes(self) -> None:
        for pair in self.mailboxes:
            for sock in pair:
                if sock is not None:
                    sock.close()
        self.mailboxes = []

    # --- opening --------------------------------------------------------------------------------

    def _open(self, listening: Listening, entry: int) -> Listener:
        text = listening.address
        family, wanted = resolve_listen(text)
        before = self._before(text)
        if before is not None:
            # Whatever port the kernel chose when it was opened first.
            wanted = HostPort(wanted.host, HostPort.parse(before.address).port)
        for attempt in range(PORT_ATTEMPTS):
            listener = Listener(text, listening, entry)
            opened = len(self._opened)
            transport, address = Transport.UDP, wanted
            try:
                if listening.quic:
                    listener.udp = self._open_udp(before, family, address)
                    address = HostPort(wanted.host, listener.udp.address.port)
                transport = Transport.TCP
                if listening.tcp_protocols:
                    listener.tcp = self._open_tcp(
                        None if before is None else before.tcp, family, address
                    )
                    address = HostPort(wanted.host, listener.tcp.address.port)
            except OSError as error:
                for group in self._opened[opened:]:
                    group.close()
                del self._opened[opened:]
                if before is not None and before.udp is not None:
                    before.udp.close_bank(self.bank)
                # A port that the kernel chose for UDP may be taken on TCP.
                by_kernel = wanted.port == 0 and error.errno == errno.EADDRINUSE
                if by_kernel and attempt < PORT_ATTEMPTS - 1:
                    continue
                reason = explain(error, address.port, transport)
                raise ListenError(f"listen: {text}: {reason}") from error
            break
        listener.address = str(address)
        return listener

    def _before(self, text: str) -> Listener | None:
        """What the previous generation has at an address."""
        known = self._previous.listeners if self._previous is not None else []
        return next((item for item in known if item.listening.address == text), None)

    def _open_udp(
        self, before: Listener | None, family: socket.AddressFamily, at: HostPort
    ) -> UdpGroup:
        if before is None or before.udp is None:
            group = UdpGroup()
            self._opened.append(group)
        else:
            assert self._previous is not None
            group = before.udp
            # From now on new sockets of the group get nothing by chance.
            group.steer(self.codec, self._previous.bank)
        group.open_bank(family, at, self.bank, self.workers)
        return group

    def _open_tcp(
        self, before: TcpGroup | None, family: socket.AddressFamily, at: HostPort
    ) -> TcpGroup:
        group = before
        if group is None:
            group = TcpGroup()
            self._opened.append(group)
        group.open(family, at, self.workers)
        return group

    def _open_redirect(self, wanted: Redirecting, entry: int) -> None:
        family, address = resolve_listen(wanted.address)
        known = self._previous.redirects if self._previous is not None else []
        before = next((item.group for item in known if item.text == wanted.address), None)
        opened = len(self._opened)
        try:
            group = self._open_tcp(before, family, address)
        except OSError as error:
            for failed in self._opened[opened:]:
                failed.close()
            del self._opened[opened:]
            reason = explain(error, address.port, Transport.TCP)
            if wanted.required:
                raise ListenError(f"redirect_http: {wanted.address}: {reason}") from error
            log.warning("plain HTTP is not redirected", address=wanted.address, reason=reason)
            return
        self.redirects.append(Redirect(wanted.address, group, entry))

    def _steer_if_several(self) -> None:
        """One worker alone needs no program."""
        for item in self.listeners:
            if item.udp is not None and len(item.udp.sockets) > 1:
                self._steer(item.udp)

    def _steer(self, group: UdpGroup) -> None:
        try:
            group.steer(self.codec, self.bank, self._dead)
        except OSError as error:
            log.warning(
                "no steering by connection ID; workers forward datagrams",
                address=str(group.address),
                error=str(error),
            )

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


def _mailbox() -> tuple[socket.socket, socket.socket]:
    """A pair of datagram sockets, the inbox and its sending end, which any worker can write to."""
    inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for sock in (inbox, outbox):
        sock.setblocking(False)
    outbox.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UDP_SEND_BUFFER)
    return inbox, outbox


def _udp_estate(group: UdpGroup) -> UdpEstate:
    banks = {bank: list(numbers) for bank, numbers in group.banks.items()}
    return UdpEstate(fds=_fds(group.sockets), banks=banks)


def _fds(sockets: list[socket.socket]) -> list[int]:
    return [sock.fileno() for sock in sockets]


def _socket(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


def _granted(sockets: list[socket.socket], option: int) -> int:
    # Linux reports twice what it grants (socket(7)).
    return sockets[0].getsockopt(socket.SOL_SOCKET, option) // 2 if sockets else 0
