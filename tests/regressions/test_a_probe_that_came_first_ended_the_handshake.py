"""The client's first Initial was lost and its probe, a PING, arrived first: PROTOCOL_VIOLATION, as
stock aioquic has it, where an ACK would have brought the hello. The interop runner found it with
qh3 as client (handshakeloss)."""

from __future__ import annotations

from tests.support.initials import initial
from tests.support.world import World, is_connected

PING = b"\x01"


def test_a_client_whose_probe_comes_before_its_hello_connects() -> None:
    world = World()
    client = world.client()
    probe = initial(PING, dcid=client._peer_cid.cid, scid=client.host_cid, number=7)
    answers = world.receive(probe)
    assert answers
    (connection,) = world.endpoint.half_open
    assert connection.is_alive
    assert sum(map(len, answers)) <= 3 * len(probe)
    world.talk(client)
    assert is_connected(client)
    assert connection.handshake_complete


def test_probes_alone_are_half_open_handshakes() -> None:
    world = World(max_half_open=5)
    for _ in range(20):
        world.receive(initial(PING))
    assert len(world.endpoint.half_open) == 5
