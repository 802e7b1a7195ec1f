"""The key of a request by which it is given to one of several servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from quicedge.http.message import Request
from quicedge.http.request_key import request_key
from quicedge.shares import Client

BalanceKey: TypeAlias = Callable[[Request, Client | None], bytes]


def balance_key(text: str) -> BalanceKey:
    """The key that a configuration names (`request_key`)."""
    return request_key(text, _address)


def _address(client: Client | None) -> bytes:
    return b"" if client is None else client.address
