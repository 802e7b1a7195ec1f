"""What a handshake costs: CPython's steps are most of it, and calls say how many there are."""

from __future__ import annotations

import sys

from quicedge.native import Core, core
from tests.support.world import NOW, World
from tests.support.world import Path as NetworkPath

MOST_CALLS = {Core.COMPILED: 900, Core.PURE: 1250}
"""Calls of Python functions, without built-in ones; 810 and 1092 when this was written."""


def test_a_handshake_takes_no_more_python_calls_than_it_did() -> None:
    world = World()
    _shake_hands(world, 1)  # what is done once, for all of them
    assert _shake_hands(world, 2) <= MOST_CALLS[core]


def _shake_hands(world: World, number: int) -> int:
    """Have a client connect; returns the calls that this costs the server."""
    calls = 0

    def note(frame: object, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call"

    client, path = world.client(), NetworkPath(("192.0.2.7", 40_000 + number))
    while datagrams := [data for data, _ in client.datagrams_to_send(NOW)]:
        sys.setprofile(note)
        try:
            for data in datagrams:
                world.endpoint.receive(data, path, NOW)
            world.endpoint.flush(NOW)
        finally:
            sys.setprofile(None)
        sent, world.network.sent = world.network.sent, []
        for data, _ in sent:
            client.receive_datagram(data, ("server", 443), NOW)
    assert all(connection.handshake_complete for connection in world.endpoint.connections)
    return calls
