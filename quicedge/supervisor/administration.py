"""The admin API as part of the supervisor: started where it is enabled, moved by a reload."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from quicedge.admin.errors import AdminAddressError
from quicedge.admin.view import EdgeView
from quicedge.config.schema import Admin
from quicedge.supervisor.reload import ReloadError

if TYPE_CHECKING:
    from quicedge.admin.server import AdminServer


class Administration:
    """The admin server that runs, if any. Call `start` once, `close` at the end."""

    def __init__(self, edge: EdgeView) -> None:
        self._edge = edge
        self._server: AdminServer | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._inherited: tuple[str, socket.socket] | None = None

    @property
    def address(self) -> str | None:
        """Where it is bound; None when it is disabled."""
        return None if self._server is None else self._server.address

    def inherit(self, listen: str, sock: socket.socket) -> None:
        """Use the socket of another supervisor for the same address."""
        self._inherited = listen, sock

    def bequest(self) -> tuple[str, socket.socket] | None:
        """Address and socket, for the next supervisor."""
        return None if self._server is None else (self._server.listen, self._server.duplicate())

    def open(self, config: Admin) -> AdminServer | None:
        """A server for a configuration, not started, on the socket in use if the address is the
        same; None if it is disabled. Raises AdminAddressError."""
        if not config.enabled:
            return None
        # Only where it is needed is it imported (12 MB).
        from quicedge.admin.server import AdminServer

        inherited: socket.socket | None = None
        if self._server is not None and self._server.listen == config.listen:
            inherited = self._server.duplicate()
        elif self._inherited is not None and self._inherited[0] == config.listen:
            inherited = self._inherited[1].dup()
        return AdminServer(config, self._edge, inherited)

    def use(self, server: AdminServer | None) -> None:
        """Serve with this server, and with the previous one no more."""
        previous, self._server = self._server, server
        if server is not None:
            server.start()
        if previous is not None:
            # A request may be what has caused this: it gets its response while we go on.
            keep = server is not None and server.listen == previous.listen
            closing = asyncio.create_task(previous.close(keep_path=keep))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self, *, keep_path: bool = False) -> None:
        """Stop serving; `keep_path`: the next supervisor has the unix socket."""
        await asyncio.gather(*self._closing)
        if self._server is not None:
            await self._server.close(keep_path=keep_path)
        if self._inherited is not None:
            self._inherited[1].close()


class ChangeOfAdmin:
    """The admin API moves, or has another token (`supervisor.change.Change`)."""

    def __init__(self, administration: Administration, config: Admin) -> None:
        self._administration = administration
        self._config = config
        self._server: AdminServer | None = None

    async def prepare(self) -> None:
        try:
            self._server = self._administration.open(self._config)
        except AdminAddressError as error:
            raise ReloadError(str(error)) from error

    async def abort(self) -> None:
        if self._server is not None:
            await self._server.close(keep_path=self._server.is_inherited)

    async def commit(self) -> None:
        self._administration.use(self._server)
