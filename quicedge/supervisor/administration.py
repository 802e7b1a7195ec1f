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

    @property
    def address(self) -> str | None:
        """Where it is bound; None when it is disabled."""
        return None if self._server is None else self._server.address

    def start(self, config: Admin) -> None:
        """Start serving if it is enabled; raises AdminAddressError."""
        server = self.open(config)
        if server is not None:
            self.use(server)

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

    async def close(self) -> None:
        await asyncio.gather(*self._closing)
        if self._server is not None:
            await self._server.close()


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
