"""How a worker that has lost its supervisor gets the next one.

It goes on serving and waits on a unix socket, whose path the supervisor chose. The next supervisor
connects there, learns what the worker knows, and the connection becomes the control channel.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable

import msgspec
import structlog

from quicedge.config.limits import ADOPTION_TIMEOUT
from quicedge.worker.estate import ESTATE_VERSION, Estate, send_message

log = structlog.get_logger(__name__)

_CREDENTIALS = struct.Struct("=iII")
"""struct ucred: pid, uid, gid."""


class AdoptionRequest(msgspec.Struct, frozen=True):
    """The first message of a supervisor, of fixed size."""

    version: int = ESTATE_VERSION


REQUEST = msgspec.msgpack.encode(AdoptionRequest())


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself; the descriptors of the estate follow, then the roster's."""

    slot: int
    is_active: bool
    """Its bank takes new connections."""
    is_draining: bool
    is_outdated: bool = False
    """Its supervisor ended on purpose: others should take its place."""
    secret: bytes
    place: bytes
    """`quic.fleet_identity.place_of`."""
    id_keys: dict[int, bytes] = {}
    """`quic.fleet_identity.marks_of`."""
    estate: Estate
    has_roster: bool


class Adoption:
    """Waits for the next supervisor, once `open` is called, until one has come.

    `describe` returns what to tell it, with the roster's descriptor or -1; `adopted` is given the
    connection.
    """

    def __init__(
        self,
        listening: socket.socket,
        owner: int,
        describe: Callable[[], tuple[Orphan, int]],
        adopted: Callable[[socket.socket], None],
    ) -> None:
        self._listening = listening
        self._owner = owner
        self._describe = describe
        self._adopted = adopted
        self._is_open = False
        self._handling: asyncio.Task[None] | None = None
        listening.setblocking(False)

    def open(self) -> None:
        """Wait from now on."""
        if not self._is_open:
            self._is_open = True
            asyncio.get_running_loop().add_reader(self._listening.fileno(), self._accept)

    def close(self) -> None:
        """Wait no more; a supervisor that comes finds the connection refused."""
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().remove_reader(self._listening.fileno())

    def _accept(self) -> None:
        try:
            sock, _ = self._listening.accept()
        except OSError:
            return
        sock.setblocking(False)
        if self._handling is not None or not self._is_permitted(sock):
            sock.close()
            return
        self._handling = asyncio.ensure_future(self._handle(sock))

    def _is_permitted(self, sock: socket.socket) -> bool:
        """Whether root or the user of the supervisor is at the other end."""
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(found)
        return uid in (0, self._owner, os.geteuid())

    async def _handle(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ADOPTION_TIMEOUT):
                request = await loop.sock_recv(sock, len(REQUEST))
            if request != REQUEST:
                raise OSError("another version of the program asks")
            orphan, roster = self._describe()
            fds = [*orphan.estate.fds, *([roster] if orphan.has_roster else [])]
            # Far less than the socket's buffer holds: it does not block.
            send_message(sock, orphan, fds)
        except (OSError, TimeoutError) as error:
            log.warning("not adopted", reason=str(error) or "no request")
            sock.close()
            return
        finally:
            self._handling = None
        self.close()
        self._adopted(sock)
