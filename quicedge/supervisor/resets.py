"""What the clients of a dead worker are told, without being asked: a stateless reset each."""

from __future__ import annotations

import asyncio
import fcntl
import os

import structlog

from quicedge.config.limits import (
    RESET_BURST,
    RESET_REPEAT_AFTER,
    RESETS_TIMEOUT,
    ROSTER_ROWS,
    UNASKED_RESET_SIZE,
)
from quicedge.quic.cids import ConnectionIds
from quicedge.quic.packet import stateless_reset
from quicedge.supervisor.sockets import Listeners
from quicedge.udp import kernel
from quicedge.udp.socket import UdpSocket
from quicedge.worker.roster import Client, read_roster, roster_size

log = structlog.get_logger(__name__)


class Rosters:
    """The memory that each slot's worker writes its clients into (`worker.roster`)."""

    def __init__(self, workers: int) -> None:
        self._fds: list[int] = []
        if kernel.IS_LINUX:  # memory that a process can hand on without a name
            for _ in range(workers):
                self._fds.append(_shared_memory(roster_size(ROSTER_ROWS)))

    def of_slot(self, slot: int) -> int:
        """The descriptor for the worker in `slot`, or -1."""
        return self._fds[slot] if self._fds else -1

    def take(self, slot: int) -> list[Client]:
        """The clients of the worker that has died in `slot`; its successor begins with none."""
        if not self._fds:
            return []
        fd = self._fds[slot]
        # Read, not mapped: pages that no row was ever written to cost nothing.
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
    # A worker that makes it smaller would end whoever else has it mapped.
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


class UnaskedResets:
    """Sends stateless resets to clients that wait for a worker that is dead."""

    def __init__(self, listeners: Listeners, secret: bytes) -> None:
        self._listeners = listeners
        self._connection_ids = ConnectionIds(secret=secret)
        self._sending: set[asyncio.Task[None]] = set()

    def send(self, slot: int, clients: list[Client]) -> None:
        """Tell each client of the worker that was in `slot`."""
        if not clients:
            return
        log.info("clients of a dead worker reset", slot=slot, count=len(clients))
        task = asyncio.create_task(self._send_all(slot, clients))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def close(self) -> None:
        """Wait until all are told; the sockets may go then."""
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=RESETS_TIMEOUT)
            for task in late:
                task.cancel()

    async def _send_all(self, slot: int, clients: list[Client]) -> None:
        """Each client twice: the first datagram may be lost."""
        sockets = [UdpSocket(sock) for sock in self._listeners.sockets_of_slot(slot)]
        for delay in (0.0, RESET_REPEAT_AFTER):
            await asyncio.sleep(delay)
            for start in range(0, len(clients), RESET_BURST):
                for client in clients[start : start + RESET_BURST]:
                    self._send(client, sockets)
                await _flush(sockets)

    def _send(self, client: Client, sockets: list[UdpSocket]) -> None:
        sock = sockets[client.listener] if client.listener < len(sockets) else None
        if sock is None or client.family != sock.family:
            return  # not what a worker of ours writes
        token = self._connection_ids.reset_token(client.connection_id)
        reset = stateless_reset(UNASKED_RESET_SIZE, token)
        assert reset is not None
        sock.send([reset], sock.path(client.remote, client.local))


async def _flush(sockets: list[UdpSocket]) -> None:
    """Let others have their turn, and the kernel take what it had no room for."""
    await asyncio.sleep(0)
    while not all(sock.flush() for sock in sockets):
        await asyncio.sleep(0.001)
