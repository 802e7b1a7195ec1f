"""The key of a request by which it is given to one of several servers or upstreams."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from quicedge.http.cookies import cookie
from quicedge.http.message import Request

C = TypeVar("C")

_CLIENT_BYTES = 8
"""Of an IPv6 address: its network. The rest changes daily (RFC 8981)."""


def request_key(text: str, address_of: Callable[[C], bytes]) -> Callable[[Request, C], bytes]:
    """`client`, `path`, `target` (with the query), `header:NAME` or `cookie:NAME`.

    Requests without the field or the cookie have the key of their client, of which `address_of`
    tells the address, packed.
    """
    kind, _, name = text.partition(":")
    if kind == "path":
        return lambda request, client: request.path.partition(b"?")[0]
    if kind == "target":
        return lambda request, client: request.path

    def of_client(request: Request, client: C) -> bytes:
        return address_of(client)[:_CLIENT_BYTES]

    if kind == "client":
        return of_client
    wanted = name.encode()
    if kind == "header":
        wanted = wanted.lower()
        return lambda request, client: (
            next((v for n, v in request.fields if n == wanted), None) or of_client(request, client)
        )
    assert kind == "cookie"
    return lambda request, client: cookie(request.fields, wanted) or of_client(request, client)
