"""Connection IDs as a fleet issues them: longer, with a server ID and a slot."""

from __future__ import annotations

import pytest
from aioquic.quic.connection import QuicConnection

from quicedge.config.limits import ACTIVE_CONNECTION_IDS
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.events import StreamDataReceived
from quicedge.udp.connection_id_codec import ConnectionIdCodec
from quicedge.udp.connection_id_layout import QuicLbLayout
from quicedge.udp.quic_lb import QuicLb
from tests.support.quicpair import SECRET
from tests.support.world import CLIENT, NOW, Path, World, is_connected


def layouts() -> list[QuicLbLayout]:
    return [
        QuicLbLayout(QuicLb(0, 8, 10), b"eightoct", b"unlinked"),
        QuicLbLayout(QuicLb(1, 2, 8, b"k" * 16), b"\0\7", b"unlinked"),
        QuicLbLayout(QuicLb(2, 4, 12, b"k" * 16), b"\0\0\0\7", b"unlinked"),
    ]


def received(world: World, stream_id: int) -> int:
    return sum(
        len(event.data)
        for event in world.handlers[0].events
        if isinstance(event, StreamDataReceived) and event.stream_id == stream_id
    )


@pytest.mark.parametrize("layout", layouts(), ids=["plain", "four passes", "one pass"])
def test_a_connection_with_them_works_and_its_ids_lead_to_its_server_and_worker(
    layout: QuicLbLayout,
) -> None:
    world = World(layout=layout)
    client = world.client()
    world.talk(client)
    assert is_connected(client)
    (connection,) = world.endpoint.connections
    codec = ConnectionIdCodec(layout)
    assert len(connection.local_ids.active) > 1
    for cid in connection.local_ids.active:
        assert len(cid) == layout.length
        assert codec.slot_of(b"\x40" + cid + bytes(40)) == 3
    client.send_stream_data(0, b"x" * 50_000, end_stream=True)
    for turn in range(1, 11):  # the client paces itself
        world.talk(client, now=NOW + turn)
    assert received(world, 0) == 50_000
    # A migration: another ID of the same connection.
    client.change_connection_id()
    client.send_stream_data(4, b"y", end_stream=True)
    for turn in range(11, 14):
        world.talk(client, path=Path(("192.0.2.9", 999)), now=NOW + turn)
    assert received(world, 4) == 1


def test_a_lost_connection_is_reset_by_the_token_of_its_id() -> None:
    layout = layouts()[1]
    world = World(layout=layout)
    cid = ConnectionIdIssuer(slot=3, secret=SECRET, layout=layout).new()
    (reset,) = world.receive(b"\x40" + cid + bytes(40), path=CLIENT, now=NOW)
    assert reset[-16:] == ConnectionIdIssuer(secret=SECRET).reset_token(cid)


def connected() -> tuple[World, QuicLbLayout, QuicConnection]:
    layout = QuicLbLayout(QuicLb(0, 2, 8, b"k" * 16), b"\0\7", b"unlinked")
    world = World(layout=layout)
    client = world.client()
    world.talk(client)
    return world, layout, client


def test_a_new_key_replaces_the_ids_of_living_connections() -> None:
    world, layout, client = connected()
    (connection,) = world.endpoint.connections
    layout.use(QuicLb(1, 2, 8, b"K" * 16), b"\0\7")
    world.endpoint.renew_connection_ids()
    assert world.endpoint.is_renewing
    world.endpoint.renew_some()
    assert not world.endpoint.is_renewing
    world.talk(client, now=NOW + 1)
    assert {cid[0] >> 5 for cid in connection.local_ids.active} == {1}
    assert client._peer_cid.cid[0] >> 5 == 1
    # The connection goes on, also from elsewhere, and old IDs lead nowhere.
    client.change_connection_id()
    client.send_stream_data(0, b"y", end_stream=True)
    world.talk(client, path=Path(("192.0.2.9", 999)), now=NOW + 2)
    assert received(world, 0) == 1
    assert {cid[0] >> 5 for cid in world.endpoint._by_cid if len(cid) == layout.length} == {1}


def test_a_peer_that_retires_nothing_is_not_given_ever_more_ids() -> None:
    world, _, _ = connected()
    (connection,) = world.endpoint.connections
    for _ in range(10):
        connection.renew_connection_ids()
    assert len(connection.local_ids.active) <= 2 * ACTIVE_CONNECTION_IDS


def test_connections_are_renewed_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicedge.config.limits.RENEWALS_PER_TICK", 2)
    layout = layouts()[1]
    world = World(layout=layout)
    clients = [world.client() for _ in range(5)]
    for number, client in enumerate(clients):
        world.talk(client, path=Path(("192.0.2.7", 40000 + number)))
    before = {id(item): item.local_ids.latest_used for item in world.endpoint.connections}
    world.endpoint.renew_connection_ids()
    turns = 0
    while world.endpoint.is_renewing:
        world.endpoint.renew_some()
        turns += 1
    assert turns == 3
    for connection in world.endpoint.connections:
        assert connection.local_ids.active.keys() - {before[id(connection)]}
        assert len(connection.local_ids.active) == 2 * ACTIVE_CONNECTION_IDS
