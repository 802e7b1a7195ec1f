"""An Initial with not one authentic packet was forgotten by the endpoint but not by the worker:
each left a session behind, for ever. `bench/floods.py garbage` found it."""

from __future__ import annotations

import os

from aioquic.quic.events import ConnectionTerminated

from tests.support.world import World


def test_whoever_was_told_of_a_connection_is_told_of_its_end() -> None:
    world = World(max_half_open=5)
    for _ in range(20):
        head = b"\xc0\0\0\0\x01\x08" + os.urandom(8) + b"\x08" + os.urandom(8) + b"\0\x44\x9e"
        world.receive(head + os.urandom(1182))
    assert len(world.handlers) == world.endpoint.counters["dropped_undecryptable"] == 20
    assert not world.endpoint.connections
    for handler in world.handlers:
        assert [type(event) for event in handler.events] == [ConnectionTerminated]
