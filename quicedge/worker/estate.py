"""What a supervisor leaves behind: the sockets of all workers, described for the next supervisor.

Every worker holds the descriptors too. The numbers of UDP sockets in their groups, by which the
kernel steers, therefore stay the same when the supervisor dies, and any worker can hand over all.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping

import msgspec

from quicedge.config.limits import HANDOVER_DESCRIPTORS, HANDOVER_MAX

ESTATE_VERSION = 2
"""Raised when this format, or what old and new workers say to each other (`udp.forwarding`),
changes so that a program with the former number cannot go on."""

_LENGTH = struct.Struct("!I")


class EstateError(Exception):
    """What was handed over cannot be used; the message says why."""


class UdpEstate(msgspec.Struct, frozen=True):
    """The UDP sockets of one address, in the order of their numbers."""

    fds: list[int]
    banks: dict[int, list[int]]
    """Numbers of the sockets of each bank's workers."""


class ListenerEstate(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `listen`."""

    text: str
    """As configured."""
    address: str
    """Where it is bound."""
    protocols: list[str]
    entry: int
    udp: UdpEstate | None
    tcp: list[int] | None


class RedirectEstate(msgspec.Struct, frozen=True, kw_only=True):
    """One address for plain HTTP."""

    text: str
    entry: int
    tcp: list[int]


class Estate(msgspec.Struct, frozen=True, kw_only=True):
    """Descriptors are numbers in the process that has them."""

    version: int = ESTATE_VERSION
    bank: int
    workers: int
    listeners: list[ListenerEstate]
    redirects: list[RedirectEstate]
    outboxes: dict[int, int]
    """Sending ends of the workers' inboxes, by slot."""

    @property
    def fds(self) -> list[int]:
        """All descriptors, each once."""
        found: list[int] = []
        for listener in self.listeners:
            found += listener.udp.fds if listener.udp is not None else []
            found += listener.tcp or []
        for redirect in self.redirects:
            found += redirect.tcp
        return list(dict.fromkeys([*found, *self.outboxes.values()]))

    def renumbered(self, numbers: Mapping[int, int]) -> Estate:
        """The same in a process where the descriptors have other numbers."""
        replace = msgspec.structs.replace
        listeners = [
            replace(
                item,
                udp=item.udp and replace(item.udp, fds=[numbers[fd] for fd in item.udp.fds]),
                tcp=item.tcp and [numbers[fd] for fd in item.tcp],
            )
            for item in self.listeners
        ]
        redirects = [replace(item, tcp=[numbers[fd] for fd in item.tcp]) for item in self.redirects]
        outboxes = {slot: numbers[fd] for slot, fd in self.outboxes.items()}
        return replace(self, listeners=listeners, redirects=redirects, outboxes=outboxes)


def send_message(sock: socket.socket, message: msgspec.Struct, fds: list[int]) -> None:
    """Send a message and descriptors on a stream socket; raises OSError."""
    body = msgspec.msgpack.encode(message)
    sock.sendall(_LENGTH.pack(len(body)) + body)
    for start in range(0, len(fds), HANDOVER_DESCRIPTORS):
        socket.send_fds(sock, [b"d"], fds[start : start + HANDOVER_DESCRIPTORS])


def receive_message(sock: socket.socket, start: bytes = b"") -> bytes:
    """The body of a message, without its descriptors; raises EstateError, OSError.

    `start`: what was read of it already.
    """
    (length,) = _LENGTH.unpack(start + _exactly(sock, _LENGTH.size - len(start)))
    if length > HANDOVER_MAX:
        raise EstateError(f"a message of {length} bytes is longer than {HANDOVER_MAX}")
    return _exactly(sock, length)


def receive_descriptors(sock: socket.socket, count: int) -> list[int]:
    """The descriptors that follow a message; raises EstateError, OSError."""
    found: list[int] = []
    try:
        while len(found) < count:
            data, fds, _, _ = socket.recv_fds(sock, 1, HANDOVER_DESCRIPTORS)
            found += fds
            if not data:
                raise EstateError("it ended before all descriptors had come")
    except BaseException:
        for fd in found:
            os.close(fd)
        raise
    return found


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EstateError("the other end closed the connection")
        data += piece
    return data
