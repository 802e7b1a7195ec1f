"""A worker's clients in shared memory: as its endpoint has them, and read without trust."""

from __future__ import annotations

import os
from mmap import mmap
from typing import Any, cast

import pytest
from aioquic.quic.connection import QuicConnection
from hypothesis import given
from hypothesis import strategies as st

from quicedge.supervisor.resets import Rosters
from quicedge.udp import kernel
from quicedge.udp.socket import FourTuple, UdpSocket
from quicedge.worker.roster import Client, Roster, read_roster, roster_size
from tests.support.world import NOW, World, is_connected

LOCAL_V4 = b"\0\0\0\0" + bytes((198, 51, 100, 1)) + b"\0\0\0\0"
LOCAL_V6 = bytes.fromhex("fe80") + bytes(13) + b"\1" + b"\2\0\0\0"
SOCKETS = [cast(UdpSocket, object()), cast(UdpSocket, object())]
HOME = FourTuple(("192.0.2.7", 40000), LOCAL_V4, SOCKETS[0])


class Place:
    """An endpoint whose clients stand in a roster of so many rows."""

    def __init__(self, rows: int = 8) -> None:
        self.memory = mmap(-1, roster_size(rows))
        self.world = World()
        self.world.endpoint._roster = Roster(self.memory, SOCKETS)

    def clients(self) -> list[Client]:
        return list(read_roster(self.memory[:]))

    def connect(self, path: FourTuple) -> QuicConnection:
        client = self.world.client()
        self.talk(client, path)
        assert is_connected(client)
        return client

    def talk(self, client: QuicConnection, path: FourTuple, now: float = NOW) -> None:
        self.world.talk(client, path=cast(Any, path), now=now)


@pytest.mark.parametrize(
    "path",
    [
        HOME,
        FourTuple(("2001:db8::7", 40000, 0, 0), LOCAL_V6, SOCKETS[1]),
        FourTuple(("fe80::7%2", 40000, 0, 2), LOCAL_V6, SOCKETS[1]),
        FourTuple(("192.0.2.7", 40000), b"", SOCKETS[0]),
    ],
    ids=["IPv4", "IPv6", "link-local", "local address unknown"],
)
def test_a_client_stands_in_it_with_the_connection_id_that_it_uses(path: FourTuple) -> None:
    place = Place()
    client = place.connect(path)
    (row,) = place.clients()
    host, *rest = path.remote
    assert row.remote == (host.partition("%")[0], *rest)
    assert row.local == path.local
    assert SOCKETS[row.listener] is path.socket
    assert row.connection_id == client._peer_cid.cid


def test_a_handshake_that_is_not_complete_does_not() -> None:
    place = Place()
    place.world.receive(*[data for data, _ in place.world.client().datagrams_to_send(NOW)])
    assert place.clients() == []


def test_a_client_that_migrates_is_found_at_its_new_address_with_its_new_connection_id() -> None:
    place = Place()
    client = place.connect(HOME)
    (before,) = place.clients()
    client.change_connection_id()
    client.send_ping(1)
    moved = HOME._replace(remote=("203.0.113.9", 5000), socket=SOCKETS[1])
    place.talk(client, moved, now=NOW + 1)
    (row,) = place.clients()
    assert (row.remote, row.listener) == (("203.0.113.9", 5000), 1)
    assert row.connection_id == client._peer_cid.cid != before.connection_id


def test_a_connection_that_is_over_leaves_its_row_to_the_next() -> None:
    place = Place(rows=2)
    clients = [place.connect(HOME._replace(remote=("192.0.2.7", port))) for port in (1, 2, 3)]
    assert {row.remote[1] for row in place.clients()} == {1, 2}, "a third row there is not"
    clients[0].close()
    place.talk(clients[0], HOME._replace(remote=("192.0.2.7", 1)), now=NOW + 1)
    assert {row.remote[1] for row in place.clients()} == {2}
    clients[2].send_ping(1)
    place.talk(clients[2], HOME._replace(remote=("192.0.2.7", 3)), now=NOW + 1)
    assert {row.remote[1] for row in place.clients()} == {2, 3}


def test_one_that_we_close_leaves_it_at_once() -> None:
    place = Place()
    place.connect(HOME)
    (connection,) = place.world.endpoint.connections
    connection.close()
    place.world.endpoint.wake(connection)
    place.world.endpoint.flush(NOW)
    assert connection in place.world.endpoint.connections
    assert place.clients() == []


@given(st.binary(min_size=roster_size(0), max_size=500))
def test_reading_never_raises(memory: bytes) -> None:
    for client in read_roster(memory):
        assert len(client.local) <= 20


@pytest.mark.skipif(not kernel.IS_LINUX, reason="memfd is Linux's")
def test_the_memory_of_a_slot_survives_its_worker_and_cannot_be_cut_short() -> None:
    rosters = Rosters(2)
    try:
        memory = mmap(rosters.of_slot(1), 0)
        world = World()
        world.endpoint._roster = Roster(memory, SOCKETS)
        world.talk(world.client(), path=cast(Any, HOME))
        memory.close()
        with pytest.raises(PermissionError):
            os.ftruncate(rosters.of_slot(1), 0)
        assert rosters.take(0) == []
        assert [client.remote for client in rosters.take(1)] == [HOME.remote]
        assert rosters.take(1) == [], "the next worker of the slot begins with none"
    finally:
        rosters.close()
