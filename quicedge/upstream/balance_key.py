"""The key of a request by which it is given to one of several servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from quicedge.http.cookies import cookie
from quicedge.http.message import Request

BalanceKey: TypeAlias = Callable[[Request], bytes]


def balance_key(text: str) -> BalanceKey:
    """`client`, `path`, `target` (with the query), `header:NAME` or `cookie:NAME`.

    Requests without the field or the cookie have the key of their client.
    """
    kind, _, name = text.partition(":")
    if kind == "client":
        return _client
    if kind == "path":
        return lambda request: request.path.partition(b"?")[0]
    if kind == "target":
        return lambda request: request.path
    wanted = name.encode()
    if kind == "header":
        wanted = wanted.lower()
        return lambda request: (
            next((v for n, v in request.fields if n == wanted), None) or _client(request)
        )
    assert kind == "cookie"
    return lambda request: cookie(request.fields, wanted) or _client(request)


def _client(request: Request) -> bytes:
    # There is exactly one x-forwarded-for, written by the edge.
    return next((v for name, v in request.fields if name == b"x-forwarded-for"), b"")
