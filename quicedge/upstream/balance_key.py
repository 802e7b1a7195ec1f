"""The key of a request by which it is given to one of several servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from quicedge.http.cookies import cookie
from quicedge.http.message import Request
from quicedge.shares import Client

BalanceKey: TypeAlias = Callable[[Request, Client | None], bytes]

_CLIENT_BYTES = 8
"""Of an IPv6 address: its network. The rest changes daily (RFC 8981)."""


def balance_key(text: str) -> BalanceKey:
    """`client`, `path`, `target` (with the query), `header:NAME` or `cookie:NAME`.

    Requests without the field or the cookie have the key of their client.
    """
    kind, _, name = text.partition(":")
    if kind == "client":
        return _client
    if kind == "path":
        return lambda request, client: request.path.partition(b"?")[0]
    if kind == "target":
        return lambda request, client: request.path
    wanted = name.encode()
    if kind == "header":
        wanted = wanted.lower()
        return lambda request, client: (
            next((v for n, v in request.fields if n == wanted), None) or _client(request, client)
        )
    assert kind == "cookie"
    return lambda request, client: cookie(request.fields, wanted) or _client(request, client)


def _client(request: Request, client: Client | None) -> bytes:
    return b"" if client is None else client.address[:_CLIENT_BYTES]
