"""The control socket: commands of the operator, who must be root or the supervisor's user."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
import structlog

from quicedge.admin.command_messages import Command, CommandReply, CommandRequest
from quicedge.admin.unix_socket import open_unix_socket
from quicedge.config.control_path import prepare_directory
from quicedge.config.limits import (
    COMMAND_LAST_REPLIES,
    COMMAND_MAX,
    COMMAND_REQUEST_TIMEOUT,
    COMMANDS_AT_ONCE,
)

log = structlog.get_logger(__name__)

Run = Callable[[list[str]], Awaitable[CommandReply]]
"""Carries out a command with its arguments; raises CommandFailure."""

_CREDENTIALS = struct.Struct("=iII")
"""struct ucred: pid, uid, gid."""


class CommandFailure(Exception):
    """The command cannot be carried out; the message says why."""


class CommandServer:
    """Serves the control socket on the running loop; the constructor raises OSError.

    `keep_open`: commands after whose reply the connection stays open until the edge has ended.
    """

    def __init__(
        self,
        path: Path,
        commands: Mapping[Command, Run],
        *,
        keep_open: frozenset[Command] = frozenset(),
        inherited: socket.socket | None = None,
    ) -> None:
        self.path = path
        self._commands = commands
        self._keep_open = keep_open
        self._handling: set[asyncio.Task[None]] = set()
        self._waiting: set[socket.socket] = set()
        if inherited is None:
            prepare_directory(path)
            inherited = open_unix_socket(str(path))
        self.socket = inherited
        self.socket.setblocking(False)
        self._serving = True
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self._accept)

    def pause(self) -> None:
        """Leave the socket to the next supervisor, which has it too."""
        if self._serving:
            self._serving = False
            asyncio.get_running_loop().remove_reader(self.socket.fileno())

    async def close(self) -> None:
        """Send the replies that are due, end the clients that wait for the end, and remove the
        socket unless it was left to another supervisor."""
        was_serving = self._serving
        self.pause()
        if self._handling:
            _, left = await asyncio.wait(self._handling, timeout=COMMAND_LAST_REPLIES)
            for task in left:
                task.cancel()
        for client in self._waiting:
            client.close()
        self.socket.close()
        if was_serving:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _accept(self) -> None:
        try:
            client, _ = self.socket.accept()
        except OSError:
            return
        client.setblocking(False)
        if len(self._handling) >= COMMANDS_AT_ONCE or not _is_permitted(client):
            client.close()
            return
        task = asyncio.create_task(self._handle(client))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)

    async def _handle(self, client: socket.socket) -> None:
        stays_open = False
        try:
            async with asyncio.timeout(COMMAND_REQUEST_TIMEOUT):
                line = await _read_line(client)
            command, reply = await self._reply(line)
            stays_open = reply.error is None and command in self._keep_open
            data = msgspec.json.encode(reply) + b"\n"
            async with asyncio.timeout(COMMAND_REQUEST_TIMEOUT):
                await asyncio.get_running_loop().sock_sendall(client, data)
        except (OSError, TimeoutError):
            stays_open = False  # the client has left, or does not read
        finally:
            if stays_open:
                self._waiting.add(client)
            else:
                client.close()

    async def _reply(self, line: bytes) -> tuple[Command | None, CommandReply]:
        try:
            request = msgspec.json.decode(line, type=CommandRequest)
        except msgspec.MsgspecError as error:
            return None, CommandReply(error=f"malformed request: {error}", pid=os.getpid())
        try:
            command = Command(request.command)
            run = self._commands[command]
        except (ValueError, KeyError):
            text = f"unknown command {request.command!r}; the running edge may be older"
            return None, CommandReply(error=text, pid=os.getpid())
        log.info("command received", command=command)
        try:
            reply = await run(request.arguments)
        except CommandFailure as error:
            reply = CommandReply(error=str(error))
        except Exception as error:
            log.exception("command failed", command=command)
            reply = CommandReply(error=f"{type(error).__name__}: {error}; see the log of the edge")
        return command, msgspec.structs.replace(reply, pid=os.getpid())


def _is_permitted(client: socket.socket) -> bool:
    """Whether root or our own user is at the other end.

    The mode of the socket file says so already, but not where files are mounted without modes.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    _, uid, _ = _CREDENTIALS.unpack(client.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    if uid in (0, os.geteuid()):
        return True
    log.warning("command refused", user=uid)
    return False


async def _read_line(client: socket.socket) -> bytes:
    """One line, without its end; raises OSError."""
    loop = asyncio.get_running_loop()
    data = b""
    while b"\n" not in data:
        piece = await loop.sock_recv(client, 4096)
        if not piece or len(data) + len(piece) > COMMAND_MAX:
            raise ConnectionError("no request")
        data += piece
    return data.partition(b"\n")[0]
