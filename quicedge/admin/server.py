"""Serves the admin API on a TCP or unix socket, on the running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Iterator

import uvicorn

from quicedge.admin.app import make_app
from quicedge.admin.errors import AdminAddressError
from quicedge.admin.guard import TokenError, read_token
from quicedge.admin.protocol import AdminProtocol
from quicedge.admin.unix_socket import open_unix_socket
from quicedge.admin.view import EdgeView
from quicedge.config.host_port import HostPort
from quicedge.config.limits import ADMIN_KEEPALIVE_TIMEOUT, ADMIN_MAX_CONCURRENCY
from quicedge.config.schema import Admin

_BACKLOG = 64


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The supervisor handles signals.
        yield


class AdminServer:
    """The server of the admin API (`host:port`, `[v6]:port` or `unix:/path`).

    The constructor binds, unless it has `inherited` the socket of a previous server, and raises
    AdminAddressError; then call `start`, and `close` at the end.
    """

    def __init__(
        self, config: Admin, edge: EdgeView, inherited: socket.socket | None = None
    ) -> None:
        listen = self.listen = config.listen
        self.is_inherited = inherited is not None
        try:
            token = read_token(config.token_file) if config.token_file is not None else None
        except TokenError as error:
            if inherited is not None:
                inherited.close()
            raise AdminAddressError(str(error)) from error
        self._socket = inherited or open_admin_socket(listen, guarded=token is not None)
        is_unix = self._socket.family == socket.AF_UNIX
        self._unix_path = listen.removeprefix("unix:") if is_unix else None
        self.address = listen if is_unix else str(HostPort.of(self._socket.getsockname()))
        """The bound address, with the actual port in place of 0."""
        self._server = _Server(
            uvicorn.Config(
                make_app(
                    edge,
                    hosts=None if is_unix else {name.lower() for name in config.hosts},
                    token=token,
                ),
                http=AdminProtocol,
                lifespan="off",
                ws="none",
                log_config=None,
                log_level="error",  # untrusted input must not fill the log
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=ADMIN_MAX_CONCURRENCY,
                timeout_keep_alive=ADMIN_KEEPALIVE_TIMEOUT,
                timeout_graceful_shutdown=1,
            )
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start serving; requires a running loop."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    def duplicate(self) -> socket.socket:
        """Another descriptor of the listening socket, for the next server of this address."""
        return self._socket.dup()

    async def close(self, *, keep_path: bool = False) -> None:
        """Stop listening and end open requests within one second.

        `keep_path`: another server has the unix socket.
        """
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()
        if self._unix_path is not None and not keep_path:
            with contextlib.suppress(OSError):
                os.unlink(self._unix_path)


def open_admin_socket(listen: str, *, guarded: bool = False) -> socket.socket:
    """Open a listening TCP socket, or a unix socket that only its owner can use.

    Unless `guarded` by a token, TCP is restricted to loopback addresses.
    """
    if listen.startswith("unix:"):
        try:
            return open_unix_socket(listen.removeprefix("unix:"))
        except OSError as error:
            raise AdminAddressError(f"admin.listen: {listen}: {error}") from error
    try:
        host, port = HostPort.parse(listen)
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise AdminAddressError(
            f"admin.listen: {listen!r} is neither host:port nor unix:/path"
        ) from None
    if not address.is_loopback and not guarded:
        raise AdminAddressError(f"admin.listen: {listen} is not a loopback address: set token_file")
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(address), port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            reason = f"{reason}, possibly by another edge: see --admin and admin.listen"
        raise AdminAddressError(f"admin.listen: {listen}: {reason}") from error
    return sock
