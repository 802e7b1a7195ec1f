"""Taking on workers that another supervisor has left, after its death or for an upgrade."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from quicedge.admin.unix_socket import open_unix_socket
from quicedge.config.limits import ADOPTION_TIMEOUT
from quicedge.worker.adoption import REQUEST, Orphan
from quicedge.worker.estate import (
    ESTATE_VERSION,
    Estate,
    EstateError,
    receive_descriptors,
    receive_message,
)

log = structlog.get_logger("quicedge.supervisor")

_CREDENTIALS = struct.Struct("=iII")
"""struct ucred: pid, uid, gid."""


class AdoptionSockets:
    """Where the workers of this supervisor will wait for the next one: beside the control socket.

    `control`: the path of that; None: there is none, and nobody waits.
    """

    def __init__(self, control: Path | None) -> None:
        self._control = control
        self._sockets: dict[int, socket.socket] = {}

    def open(self, slot: int) -> int:
        """A listening socket for a worker that is about to start, or -1."""
        if self._control is None or not hasattr(socket, "SO_PEERCRED"):
            return -1
        self.close(slot)
        path = adoption_path(self._control, slot)
        try:
            self._sockets[slot] = open_unix_socket(str(path))
        except OSError as error:
            log.warning("worker cannot be adopted later", path=str(path), reason=str(error))
            return -1
        return self._sockets[slot].fileno()

    def close(self, slot: int) -> None:
        """The worker has ended, whoever made the socket."""
        sock = self._sockets.pop(slot, None)
        if sock is not None:
            sock.close()
        if self._control is not None:
            with contextlib.suppress(OSError):
                adoption_path(self._control, slot).unlink()

    def leave(self) -> None:
        """Close our descriptors: the workers wait for the next supervisor."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()


def adoption_path(control: Path, slot: int) -> Path:
    """Where the worker in a slot waits."""
    return control.with_name(f"{control.name}.{slot}")


def orphan_paths(control: Path) -> Iterator[tuple[int, Path]]:
    """Slots and sockets beside a control socket, of workers that may live."""
    beginning = f"{control.name}."
    with contextlib.suppress(OSError):
        for path in sorted(control.parent.iterdir()):
            slot = path.name.removeprefix(beginning)
            if slot != path.name and slot.isascii() and slot.isdigit():
                yield int(slot), path


@dataclass
class Adopted:
    """A worker that obeys this supervisor from now on."""

    orphan: Orphan
    """With the estate as it is here."""
    control: socket.socket
    pid: int
    roster_fd: int


def adopt(path: Path, *, wait: float = ADOPTION_TIMEOUT) -> Adopted:
    """Take on the worker that waits at `path`; blocks, for `wait` seconds at most.

    Raises EstateError, or OSError when nobody waits there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(wait)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        sock.connect(str(path))
        sock.sendall(REQUEST)
        start, pid = _first_byte(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        try:
            orphan = msgspec.msgpack.decode(receive_message(sock, start), type=Orphan)
        except msgspec.MsgspecError as error:
            raise EstateError(f"the worker is of another program: {error}") from error
        if orphan.estate.version != ESTATE_VERSION:
            raise EstateError(f"the worker speaks version {orphan.estate.version} of the protocol")
        numbers = orphan.estate.fds
        fds = receive_descriptors(sock, len(numbers) + orphan.has_roster)
    except BaseException:
        sock.close()
        raise
    estate = orphan.estate.renumbered(dict(zip(numbers, fds, strict=False)))
    roster = fds[-1] if orphan.has_roster else -1
    return Adopted(msgspec.structs.replace(orphan, estate=estate), sock, pid, roster)


def _first_byte(sock: socket.socket) -> tuple[bytes, int]:
    """The first byte of the answer, and the process that the kernel says has sent it.

    SO_PEERCRED would be that of whoever made the listening socket: the previous supervisor.
    """
    data, messages, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
    if not data:
        raise EstateError("the worker closed the connection")
    for level, kind, content in messages:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return data, int(_CREDENTIALS.unpack(content)[0])
    raise EstateError("the worker's process is unknown")


class AdoptedProcess:
    """A process that is not our child (`spawning.Process`)."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError if it has ended."""
        self.pid = pid
        self._fd = os.pidfd_open(pid)
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._on_end)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._ended.set()

    def kill(self) -> None:
        if not self._ended.is_set():
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    async def wait(self) -> int:
        """How it ended is known only to its parent."""
        await self._ended.wait()
        return 0


def release(estate: Estate) -> None:
    """Close the descriptors of an estate that another worker has handed over already."""
    for fd in estate.fds:
        os.close(fd)
