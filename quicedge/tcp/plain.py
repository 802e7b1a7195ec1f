"""Connections without TLS: the same limits, counted with all others."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog

from quicedge.config.host_port import HostPort
from quicedge.shares.connections import AdmissionReason, Connections
from quicedge.shares.prefixes import packed
from quicedge.tcp.listener import Listener
from quicedge.tcp.sockets import reset

log = structlog.get_logger("quicedge.tcp")

MakeProtocol = Callable[[Callable[[], None]], asyncio.Protocol]
"""Makes what a connection speaks; it calls its argument when the connection is lost."""


def refusal(connections: Connections, address: bytes) -> AdmissionReason | None:
    """Why a client is not let in, apart from handshakes and rates; None if it is."""
    if connections.closed is not None:
        return connections.closed
    if not connections.permits(address):
        return AdmissionReason.DENIED
    return connections.crowded(address)


class PlainArrivals:
    """Gives accepted connections their protocol."""

    def __init__(
        self, connections: Connections, make: MakeProtocol, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.counters: Counter[str] = Counter()
        """`accepted`, `refused_*`."""
        self._connections = connections
        self._make = make
        self._loop = loop
        self._attaching: set[asyncio.Task[None]] = set()

    def accept(self, sock: socket.socket, sockaddr: tuple[Any, ...], _: Listener) -> None:
        """Take an accepted connection (`listener.Accepted`)."""
        address = packed(HostPort.of(sockaddr).host)
        reason = refusal(self._connections, address)
        if reason is not None:
            self.counters[f"refused_{reason}"] += 1
            reset(sock)
            return
        self.counters["accepted"] += 1
        self._connections.note_opened(address)
        self._connections.note_handshake_over(address)
        task = self._loop.create_task(self._attach(sock, address))
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)

    async def _attach(self, sock: socket.socket, address: bytes) -> None:
        def lost() -> None:
            self._connections.note_closed(address)

        try:
            await self._loop.connect_accepted_socket(lambda: self._make(lost), sock)
        except OSError as error:
            log.debug("cannot take over a connection", error=str(error))
            sock.close()
            lost()
