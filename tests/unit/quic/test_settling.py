"""What connections let go of after the handshake, and at their end."""

from __future__ import annotations

import gc
import weakref
from unittest.mock import patch

from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicProtocolVersion

from quicedge.config.limits import ACTIVE_CONNECTION_IDS
from quicedge.quic.frames import Epoch
from quicedge.quic.tls_server import ServerTls
from tests.support.quicpair import client_configuration
from tests.support.world import NOW, World, first_flight, is_connected


def connected(world: World, **options: object) -> QuicConnection:
    client = world.client(**options)
    world.talk(client)
    assert is_connected(client)
    return client


def test_a_confirmed_handshake_leaves_no_keys_and_no_tls_state() -> None:
    world = World()
    connected(world, alpn_protocols=["test"])
    (connection,) = world.endpoint.connections
    assert list(connection.spaces) == [Epoch.ONE_RTT]
    for epoch in (Epoch.INITIAL, Epoch.HANDSHAKE, Epoch.ZERO_RTT):
        assert connection.handshake.read_keys(epoch, connection.handshake.version) is None
    for epoch in (Epoch.INITIAL, Epoch.HANDSHAKE):
        assert connection.handshake.write_keys(epoch) is None
    assert connection.handshake.tls is None
    assert connection.handshake.alpn == "test"
    assert connection.handshake.server_name == "localhost"
    assert connection.handshake.certificate is world.endpoint.certificates.default
    assert not connection.handshake.resumed


def test_initial_packets_of_any_version_are_dropped_after_the_handshake() -> None:
    world = World()
    client = world.client()
    flight = first_flight(client)
    for data in world.receive(*flight):
        client.receive_datagram(data, ("server", 443), NOW)
    world.talk(client)
    (connection,) = world.endpoint.connections
    assert connection.handshake_confirmed
    handled = connection.counters.packets_received
    world.receive(*flight)
    assert connection.counters.packets_received == handled
    for version in (QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2):
        assert connection.handshake.read_keys(Epoch.INITIAL, version) is None


def test_a_handshake_that_fails_in_our_code_costs_that_connection_alone() -> None:
    world = World()

    def interrupt(*_: object) -> None:
        raise RuntimeError("a fault of ours, the messages half written")

    broken = world.client()
    with patch.object(ServerTls, "_certificate_verify", interrupt):
        world.receive(*first_flight(broken))
    assert world.endpoint.counters["internal_errors"] == 1
    connected(world)


def test_a_client_that_takes_version_2_is_upgraded() -> None:
    world = World()
    versions = [QuicProtocolVersion.VERSION_2, QuicProtocolVersion.VERSION_1]
    client = QuicConnection(
        configuration=client_configuration(
            supported_versions=versions, original_version=QuicProtocolVersion.VERSION_1
        )
    )
    client.connect(("server", 443), NOW)
    world.talk(client)
    assert is_connected(client)
    assert client._version in versions


def test_few_connection_ids_are_given_and_taken() -> None:
    world = World()
    client = connected(world)
    (connection,) = world.endpoint.connections
    assert len(connection.local_ids.active) == ACTIVE_CONNECTION_IDS
    assert client._remote_active_connection_id_limit == ACTIVE_CONNECTION_IDS
    assert len(connection.remote_ids.spare) == ACTIVE_CONNECTION_IDS - 1
    client.change_connection_id()
    world.talk(client)
    assert len(connection.local_ids.active) == ACTIVE_CONNECTION_IDS


def test_a_connection_that_is_over_is_freed_at_once() -> None:
    """Not when the garbage collector next looks for cycles, which it seldom does."""
    world = World()
    client = connected(world)
    (connection,) = world.endpoint.connections
    reference = weakref.ref(connection)
    del connection
    gc.collect()
    gc.disable()
    try:
        client.close()
        world.talk(client)
        world.endpoint.handle_timers(NOW + 60)
        world.endpoint.flush(NOW + 60)
        world.handlers.clear()
        assert reference() is None
    finally:
        gc.enable()
