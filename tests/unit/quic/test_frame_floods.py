"""Frames that are legal one by one and meant to be too many."""

from __future__ import annotations

import tracemalloc
from unittest.mock import patch

from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode
from hypothesis import given, settings
from hypothesis import strategies as st

from quicedge.config.limits import (
    BYTES_PER_GAP,
    MAX_CRYPTO_GAPS,
    MAX_RETIRED_CONNECTION_IDS,
    STREAM_WINDOW,
)
from quicedge.quic.connection import Connection
from quicedge.quic.frames import Epoch, encode_varint
from tests.support.hostile import Hostile
from tests.support.initials import crypto_frame, initial
from tests.support.world import CLIENT, NOW, Path, World, first_flight


def connected() -> tuple[World, QuicConnection, Connection]:
    world = World()
    client = world.client()
    world.talk(client)
    (connection,) = world.endpoint.connections
    assert connection.handshake_complete
    return world, client, connection


def stream_frame(stream_id: int, offset: int, data: bytes) -> bytes:
    return b"\x0e" + b"".join(map(encode_varint, (stream_id, offset, len(data)))) + data


def islands(start: int, stop: int) -> bytes:
    """Every other byte of a stream."""
    return b"".join(stream_frame(0, 2 * number + 1, b"x") for number in range(start, stop))


MAX_STREAM_GAPS = STREAM_WINDOW // BYTES_PER_GAP


def test_a_stream_in_too_many_pieces_closes_the_connection() -> None:
    hostile = Hostile().connect()
    for start in range(0, 2 * MAX_STREAM_GAPS, 100):
        hostile.send(islands(start, start + 100))
        stream = hostile.server.streams.get(0)
        assert stream is not None
        assert stream.receive is not None
        assert stream.receive.assembler.gaps <= MAX_STREAM_GAPS + 1
    assert hostile.verdict == QuicErrorCode.PROTOCOL_VIOLATION


def test_a_hello_in_too_many_pieces_closes_the_connection() -> None:
    world = World()
    for number, start in enumerate(range(0, 1000, 100)):
        frames = b"".join(crypto_frame(offset, b"x") for offset in range(start + 1, start + 100, 2))
        world.receive(initial(frames, dcid=b"flooding", number=number))
    (connection,) = world.endpoint.connections
    assert connection.close_event is not None
    assert connection.close_event.reason_phrase == "Too many gaps in CRYPTO data"
    assert connection.spaces[Epoch.INITIAL].crypto_in.gaps <= MAX_CRYPTO_GAPS + 1


def test_connection_ids_that_retire_each_other_are_bounded() -> None:
    """CVE-2024-22189: each NEW_CONNECTION_ID makes us queue a RETIRE_CONNECTION_ID."""
    hostile = Hostile().connect()
    for number in range(10, 1000):
        frame = b"\x18" + encode_varint(number) + encode_varint(number) + b"\x08"
        frame += number.to_bytes(8, "big") + number.to_bytes(16, "big")
        # What is sent in answer is never acknowledged.
        hostile.world.endpoint.receive(hostile.packet(frame), CLIENT, NOW)
        assert hostile.server.remote_ids.waiting <= MAX_RETIRED_CONNECTION_IDS + 1
    assert hostile.verdict == QuicErrorCode.CONNECTION_ID_LIMIT_ERROR


def test_paths_are_bounded_and_get_no_more_than_three_times_what_they_brought() -> None:
    world, client, connection = connected()
    received: dict[Path, int] = {}
    now = NOW
    for number in range(100):
        now += 0.01
        path = Path((f"203.0.113.{number}", 7))
        client.send_ping(number)
        for data, _ in client.datagrams_to_send(now):
            received[path] = received.get(path, 0) + len(data)
            world.endpoint.receive(data, path, now)
        world.endpoint.flush(now)
    sent: dict[Path, int] = {}
    for data, path in world.network.sent:
        sent[path] = sent.get(path, 0) + len(data)
    assert len(received) == 100
    assert len(connection.paths.known) <= 8
    assert connection.validated_path == CLIENT
    assert all(sent.get(path, 0) <= 3 * size for path, size in received.items())


def test_packets_whose_keys_are_not_there_yet_are_not_kept() -> None:
    """CVE-2025-59530 was in a queue of such packets; there is none."""
    world = World()
    client = world.client()
    world.receive(*first_flight(client))
    (connection,) = world.endpoint.connections
    cid = connection.local_ids.initial
    early = b"\x40" + cid + bytes(1100)
    world.receive(early)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(500):
            world.receive(early)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < 50_000
    assert connection in world.endpoint.connections


def shake_hands(parameters: bytes) -> World:
    world = World()
    with patch.object(QuicConnection, "_serialize_transport_parameters", lambda _: parameters):
        client = world.client()
    world.talk(client, rounds=2)
    return world


@settings(max_examples=40, deadline=None)
@given(parameters=st.binary(max_size=60))
def test_transport_parameters_of_any_bytes_cost_a_handshake_and_nothing_else(
    parameters: bytes,
) -> None:
    world = shake_hands(parameters)
    assert world.endpoint.counters["internal_errors"] == 0
    assert not any(connection.handshake_complete for connection in world.endpoint.connections)
