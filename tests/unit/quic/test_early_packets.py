"""Packets that come before their keys wait for them (RFC 9001 section 5.7), in both roles."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamDataReceived

from quicedge.config.limits import EARLY_PACKETS_HELD
from quicedge.quic.connection import Connection
from quicedge.quic.tls import CertificateStore
from quicedge.telemetry.trace import Trace
from tests.support.certs import make_certificate
from tests.support.quicpair import client_configuration
from tests.support.simnet import datagrams
from tests.support.world import NOW, World
from tests.unit.quic.test_tracing import File, named

SERVER = ("server", 443)


def stream_data(events: list[Any]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, StreamDataReceived))


def flight(client: QuicConnection | Connection, now: float = NOW) -> list[bytes]:
    return datagrams(client, now)


def answered(world: World, client: QuicConnection) -> list[bytes]:
    """What a client that has the server's flight finishes the handshake with, not delivered."""
    for data in world.receive(*flight(client)):
        client.receive_datagram(data, SERVER, NOW)
    assert client._handshake_complete
    return flight(client)


def test_a_request_that_overtakes_the_finished_of_its_client_is_answered_at_once() -> None:
    world = World()
    client = world.client()
    finish = answered(world, client)
    client.send_stream_data(0, b"a request", end_stream=True)
    request = flight(client, NOW + 1)
    assert request
    assert not any(data[0] & 0x80 for data in request)
    world.receive(*request)
    (handler,) = world.handlers
    assert stream_data(handler.events) == b""
    world.receive(*finish)
    assert stream_data(handler.events) == b"a request"
    (connection,) = world.endpoint.connections
    assert connection.counters.datagrams_deferred == len(request)
    assert not connection.counters.packets_dropped
    assert not connection.deferred.held


def test_what_waits_for_keys_is_bounded_and_harms_no_handshake() -> None:
    world = World()
    client = world.client()
    finish = answered(world, client)
    (connection,) = world.endpoint.connections
    for _ in range(100):
        world.receive(b"\x40" + connection.local_ids.latest_used + os.urandom(1200))
        held = sum(len(item.packet) for item in connection.deferred.held)
        assert held <= EARLY_PACKETS_HELD
    assert held > EARLY_PACKETS_HELD / 2
    assert connection.counters.packets_dropped
    world.receive(*finish)
    assert connection.handshake_complete
    assert not connection.deferred.held


def test_packets_held_count_once_towards_what_an_unproven_address_may_be_sent() -> None:
    world = World()
    client = world.client()
    sent = flight(client)
    answers = world.receive(*sent)
    (connection,) = world.endpoint.connections
    early = b"\x40" + connection.local_ids.latest_used + bytes(100)
    world.receive(early)
    (path,) = connection.paths.known
    assert path.bytes_received == sum(map(len, sent)) + len(early)
    # The Finished brings the keys: what is kept is tried again, and not counted again.
    for data in answers:
        client.receive_datagram(data, SERVER, NOW)
    finish = flight(client)
    world.receive(*finish)
    assert not connection.deferred.held
    total = sum(map(len, (*sent, early, *finish)))
    assert connection.paths.known[0].bytes_received == total


def test_early_data_before_the_rest_of_a_long_hello_waits() -> None:
    world = World(early_data=b"terms")
    first = world.client()
    world.talk(first)
    client = world.client(
        session_ticket=first.last_ticket,  # type: ignore[attr-defined]
        quantum_readiness_test=True,
    )
    client.send_stream_data(0, b"early", end_stream=True)
    start, *rest = flight(client)
    assert rest, "the early data comes behind the rest of the hello"
    world.receive(*rest)
    (connection,) = world.endpoint.half_open
    assert connection.counters.datagrams_deferred == len(rest)
    world.receive(start)
    assert stream_data(world.handlers[-1].events) == b"early"


def test_our_client_takes_a_servers_flight_in_any_order() -> None:
    world = World(certificates=CertificateStore([make_certificate("localhost", kind="rsa")]))
    client = Connection(configuration=client_configuration(), now=NOW)
    client.connect(SERVER, NOW)
    answers = world.receive(*flight(client))
    assert len(answers) > 1
    for data in reversed(answers):
        client.receive_datagram(data, SERVER, NOW)
    assert client.handshake_complete
    assert client.counters.datagrams_deferred == len(answers) - 1
    assert not client.counters.packets_dropped


def test_a_trace_says_buffered_of_what_waits_and_dropped_of_what_does_not(tmp_path: Path) -> None:
    path = tmp_path / "trace.sqlog"
    world = World()
    accept = world.endpoint._accept

    def traced(connection: Connection) -> Any:
        connection.start_trace(
            Trace(File(path), level="extra", group_id="aa", started=NOW, wall_clock=1.7e9)
        )
        return accept(connection)

    world.endpoint._accept = traced
    client = world.client()
    finish = answered(world, client)
    (connection,) = world.endpoint.connections
    junk = b"\x40" + connection.local_ids.latest_used + bytes(EARLY_PACKETS_HELD)
    client.send_stream_data(0, b"a request", end_stream=True)
    world.receive(*flight(client, NOW + 1), junk, *finish)
    connection.stop_trace()
    assert stream_data(world.handlers[0].events) == b"a request"
    assert [data["trigger"] for data in named(path, "quic:packet_buffered")] == ["keys_unavailable"]
    dropped = [data for data in named(path, "quic:packet_dropped") if data["trigger"] != "invalid"]
    assert [data["trigger"] for data in dropped] == ["key_unavailable"]
    assert dropped[0]["raw"]["length"] == len(junk)
