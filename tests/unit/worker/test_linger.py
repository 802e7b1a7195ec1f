"""A drained worker stays while clients may have missed its CONNECTION_CLOSE, and no longer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from quicedge.config.limits import CLOSING_LINGER
from quicedge.worker.edge import Edge


def drained(connections: set[Any]) -> Edge:
    loop = asyncio.get_running_loop()
    return cast(
        Edge, SimpleNamespace(_loop=loop, endpoint=SimpleNamespace(connections=connections))
    )


async def test_it_stays_until_the_last_connection_has_closed() -> None:
    connections = {"closing"}
    lingering = asyncio.create_task(Edge.linger(drained(connections)))
    await asyncio.sleep(CLOSING_LINGER / 10)
    assert not lingering.done()
    connections.clear()
    await asyncio.wait_for(lingering, 10)


async def test_without_connections_it_leaves_at_once() -> None:
    await asyncio.wait_for(Edge.linger(drained(set())), CLOSING_LINGER / 2)


async def test_it_does_not_wait_for_ever() -> None:
    started = asyncio.get_running_loop().time()
    await asyncio.wait_for(Edge.linger(drained({"a peer far away"})), 10)
    assert asyncio.get_running_loop().time() - started >= CLOSING_LINGER
