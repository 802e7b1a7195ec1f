"""Unsolicited stateless resets for the clients of a dead worker."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import structlog

from quicedge.config.limits import (
    RESET_BURST,
    RESET_REPEAT_AFTER,
    RESETS_TIMEOUT,
    ROSTER_ROWS,
    UNSOLICITED_RESET_SIZE,
)
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.stateless_reset import stateless_reset
from quicedge.udp import kernel
from quicedge.udp.socket import UdpSocket
from quicedge.worker.roster import Client, read_roster, roster_size

log = structlog.get_logger(__name__)


class Rosters:
    """Shared memory of each slot, in which its worker lists its clients (`worker.roster`)."""

    def __init__(self, workers: int, inherited: Mapping[int, int] = MappingProxyType({})) -> None:
        """`inherited`: descriptors of rosters that adopted workers have, by number."""
        self._fds: list[int] = []
        if kernel.IS_LINUX:  # memfd_create is Linux only
            for worker in range(workers):
                fd = inherited.get(worker, -1)
                self._fds.append(fd if fd >= 0 else _shared_memory(roster_size(ROSTER_ROWS)))

    def of_slot(self, slot: int) -> int:
        """The descriptor for the worker in `slot`, or -1."""
        return self._fds[slot] if self._fds else -1

    def take(self, slot: int) -> list[Client]:
        """The clients of the dead worker in `slot`; its successor starts with an empty roster."""
        if not self._fds:
            return []
        fd = self._fds[slot]
        # Read instead of mapped: unused pages stay unallocated.
        clients = list(read_roster(os.pread(fd, roster_size(ROSTER_ROWS), 0)))
        os.pwrite(fd, bytes(4), 0)
        return clients

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []


def _shared_memory(size: int) -> int:
    fd = os.memfd_create("quicedge clients", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    # Shrinking it would crash every process that has it mapped.
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


class UnsolicitedResets:
    """Sends stateless resets to the clients of dead workers."""

    def __init__(self, secret: bytes) -> None:
        self._connection_ids = ConnectionIdIssuer(secret=secret)
        self._sending: set[asyncio.Task[None]] = set()

    def send(self, slot: int, clients: list[Client], sockets: Sequence[socket.socket]) -> None:
        """Start sending to each client of the worker that was in `slot`, from its sockets."""
        if not clients:
            return
        log.info("resetting clients of dead worker", slot=slot, count=len(clients))
        task = asyncio.create_task(self._send_all(clients, sockets))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def close(self) -> None:
        """Wait until all are sent, for `RESETS_TIMEOUT` at most; the sockets may be closed then."""
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=RESETS_TIMEOUT)
            for task in late:
                task.cancel()

    async def _send_all(self, clients: list[Client], listening: Sequence[socket.socket]) -> None:
        """Send to each client twice: the first datagram may be lost."""
        sockets = [UdpSocket(sock) for sock in listening]
        for delay in (0.0, RESET_REPEAT_AFTER):
            await asyncio.sleep(delay)
            for start in range(0, len(clients), RESET_BURST):
                for client in clients[start : start + RESET_BURST]:
                    self._send(client, sockets)
                await _flush(sockets)

    def _send(self, client: Client, sockets: list[UdpSocket]) -> None:
        sock = sockets[client.listener] if client.listener < len(sockets) else None
        if sock is None or client.family != sock.family:
            return  # corrupt row
        token = self._connection_ids.reset_token(client.connection_id)
        reset = stateless_reset(UNSOLICITED_RESET_SIZE, token)
        assert reset is not None
        sock.send([reset], sock.path(client.remote, client.local))


async def _flush(sockets: list[UdpSocket]) -> None:
    """Yield to the loop, and retry until the kernel has accepted all datagrams."""
    await asyncio.sleep(0)
    while not all(sock.flush() for sock in sockets):
        await asyncio.sleep(0.001)
