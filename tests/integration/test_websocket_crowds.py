"""A thousand WebSockets of an application at once, over every HTTP version."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.proxies import Proxy
from tests.support.edge import REPOSITORY, edge
from tests.support.websocket_crowd import Chat, websocket_crowd

CLIENTS = 1000
MESSAGES = 3
MEMORY = {"http/1.1": 90_000, "h2": 45_000, "h3": 45_000}
"""Bytes of the edge per client: over HTTP/1.1 each has a connection, with TLS; twice what was
measured."""


@pytest.mark.parametrize("version", MEMORY)
async def test_a_thousand_websockets_are_echoed(
    version: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """One address opens all of them: the limit of tunnels is shared fairly, not cut off."""
    application = 'asgi = "tests.support.applications.starlette_app:app"\n'
    application += f'app_directory = "{REPOSITORY}"'
    with edge(tmp_path, "", upstream_extra=application) as running:
        tls = ssl.create_default_context(cafile=str(running.certificate.ca))
        memory = Proxy("edge", running.port, running.process).resident_bytes
        async with asyncio.timeout(110):
            async with websocket_crowd(version, running.port, "/ws?token=1", 1, tls) as first:
                assert await first[0].leave() == 1000
            before = memory()
            async with websocket_crowd(version, running.port, "/ws?token=1", CLIENTS, tls) as chats:

                async def talk(number: int, chat: Chat) -> None:
                    for turn in range(MESSAGES):
                        await chat.say(f"message {number}.{turn}")
                        assert await chat.hear() == f"MESSAGE {number}.{turn}"

                await asyncio.gather(*(talk(*numbered) for numbered in enumerate(chats)))
                each = (memory() - before) / CLIENTS
                codes = await asyncio.gather(*(chat.leave() for chat in chats))
                assert set(codes) == {1000}
            while 'quicedge_route_tunnels{route="*/"} 0' not in running.metrics():
                await asyncio.sleep(0.05)
        record_property("bytes_per_client", round(each))
        assert each < MEMORY[version]
