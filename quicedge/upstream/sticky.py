"""Clients that stay with their server by a cookie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from quicedge.http.cookies import cookies
from quicedge.http.message import Field, Request
from quicedge.upstream.server import Server


class StickyCookie:
    """A session cookie whose value stands for a server, without naming it to clients."""

    def __init__(self, name: str, servers: Iterable[Server]) -> None:
        self._name = name.encode()
        self._values = {server: _value(server) for server in servers}
        self._servers = {value: server for server, value in self._values.items()}

    def server_of(self, request: Request) -> Server | None:
        """The server of the first of the request's cookies that stands for one."""
        found = (v.strip(b'"') for name, v in cookies(request.fields) if name == self._name)
        return next((self._servers[value] for value in found if value in self._servers), None)

    def field_for(self, request: Request, server: Server) -> Field | None:
        """The field that gives the client its cookie; None: it has it, or the server has left."""
        value = self._values.get(server)
        if value is None or self.server_of(request) is server:
            return None
        return b"set-cookie", b"%b=%b; Path=/; Secure; HttpOnly; SameSite=Lax" % (self._name, value)


def _value(server: Server) -> bytes:
    return hashlib.blake2b(server.address.text.encode(), digest_size=8).hexdigest().encode()
