"""What connections share, what they let go of after the handshake, and that neither shows."""

from __future__ import annotations

import gc
import weakref
from unittest.mock import patch

from aioquic import tls
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicProtocolVersion

from quicedge.config.limits import ACTIVE_CONNECTION_IDS
from quicedge.quic.adapter import lean
from quicedge.quic.adapter.flight import FlightTls
from tests.support.quicpair import client_configuration
from tests.support.world import NOW, World, first_flight, is_connected


def connected(world: World, **options: object) -> QuicConnection:
    client = world.client(**options)
    world.talk(client)
    assert is_connected(client)
    return client


def test_a_confirmed_handshake_leaves_no_keys_and_no_buffers() -> None:
    world = World()
    connected(world, alpn_protocols=["test"])
    (connection,) = world.endpoint.connections
    assert list(connection._crypto_streams) == [tls.Epoch.ONE_RTT]
    assert connection._crypto_buffers == {}
    for epoch in (tls.Epoch.INITIAL, tls.Epoch.HANDSHAKE, tls.Epoch.ZERO_RTT):
        assert not connection._cryptos[epoch].recv.is_valid()
        assert not connection._cryptos[epoch].send.is_valid()
    assert "certificate_private_key" not in vars(connection.tls)
    assert connection.alpn == "test"
    assert connection.server_name == "localhost"
    assert connection.certificate is world.endpoint.certificates.default
    assert not connection.resumed


def test_initial_packets_of_any_version_are_dropped_after_the_handshake() -> None:
    world = World()
    client = world.client()
    flight = first_flight(client)
    for data in world.receive(*flight):
        client.receive_datagram(data, ("server", 443), NOW)
    world.talk(client)
    (connection,) = world.endpoint.connections
    assert connection._handshake_confirmed
    handled = connection.packets_received
    world.receive(*flight)
    assert connection.packets_received == handled
    for version in (QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2):
        assert not connection._cryptos_initial[version].recv.is_valid()


def test_initial_keys_are_derived_for_the_versions_that_come() -> None:
    world = World()
    client = world.client()
    world.receive(*first_flight(client))
    (connection,) = world.endpoint.connections
    assert list(connection._cryptos_initial) == [client._version]


def test_a_handshake_that_fails_leaves_nothing_for_the_next() -> None:
    world = World()
    failing = world.client(alpn_protocols=["unknown"])
    world.receive(*first_flight(failing))
    assert all(buf.tell() == 0 for buf in lean._CRYPTO_BUFFERS.values())

    def interrupt(*_: object) -> None:
        raise RuntimeError("a fault of ours, the messages half written")

    broken = world.client()
    with patch.object(FlightTls, "_certificate_verify", interrupt):
        world.receive(*first_flight(broken))
    assert world.endpoint.counters["internal_errors"] == 1
    assert all(buf.tell() == 0 for buf in lean._CRYPTO_BUFFERS.values())
    connected(world)


def test_connections_share_the_sets_of_epochs() -> None:
    from aioquic.quic import connection as aioquic_connection

    assert aioquic_connection.EPOCHS("01") is aioquic_connection.EPOCHS("01")
    assert aioquic_connection.EPOCHS("01") == {tls.Epoch.ZERO_RTT, tls.Epoch.ONE_RTT}


def test_frame_handlers_are_those_of_each_connection() -> None:
    world = World()
    for _ in range(2):
        connected(world)
    for connection in world.endpoint.connections:
        handler, epochs = connection._QuicConnection__frame_handlers[0x1B]
        assert handler == connection._handle_path_response_frame
        assert epochs == {tls.Epoch.ZERO_RTT, tls.Epoch.ONE_RTT}


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
    assert len(connection.host_cids) == ACTIVE_CONNECTION_IDS
    assert client._remote_active_connection_id_limit == ACTIVE_CONNECTION_IDS
    assert len(connection._peer_cid_available) == ACTIVE_CONNECTION_IDS - 1
    client.change_connection_id()
    world.talk(client)
    assert len(connection.host_cids) == ACTIVE_CONNECTION_IDS


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
