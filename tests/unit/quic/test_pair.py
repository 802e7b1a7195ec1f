"""Whole connections on a virtual clock: a stock aioquic client against our server."""

from __future__ import annotations

import time
from typing import Any

import pytest
from aioquic.quic.events import HandshakeCompleted, StreamDataReceived

from quicedge.quic.frames import FRAME_TYPES, FrameSpec, FrameType, StreamDataBlocked
from tests.support.quicpair import make_pair
from tests.support.simnet import Link, Pair

MEGABYTE = 1_000_000


def shake_hands(pair: Pair) -> None:
    pair.run(lambda: pair.server.connection.handshake_complete)
    pair.run(lambda: any(isinstance(e, HandshakeCompleted) for e in pair.client.events))


def transfer_both_ways(pair: Pair, size: int) -> None:
    """Send `size` bytes up and echo as many down; asserts that both arrive unharmed."""
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    got = {"up": bytearray(), "down": bytearray()}
    done = {"up": False, "down": False}
    server, client = pair.server.connection, pair.client.connection

    def at_server(event: object) -> None:
        if isinstance(event, StreamDataReceived):
            got["up"] += event.data
            done["up"] |= event.end_stream
            server.consume(event.stream_id, len(event.data))

    def at_client(event: object) -> None:
        if isinstance(event, StreamDataReceived):
            got["down"] += event.data
            done["down"] |= event.end_stream

    pair.server.on_event, pair.client.on_event = at_server, at_client
    stream_id = client.get_next_available_stream_id()
    client.send_stream_data(stream_id, payload, end_stream=True)
    pair.run(lambda: bool(got["up"]))
    server.send_stream_data(stream_id, payload, end_stream=True)
    pair.run(lambda: all(done.values()))
    assert got["up"] == payload
    assert got["down"] == payload


@pytest.mark.parametrize(
    ("loss", "jitter"), [(0.0, 0.0), (0.05, 0.0), (0.05, 0.02)], ids=["clean", "loss", "reorder"]
)
def test_a_megabyte_crosses_both_ways_in_under_a_second(loss: float, jitter: float) -> None:
    started = time.process_time()
    pair = make_pair(Link(loss=loss, jitter=jitter), Link(loss=loss, jitter=jitter))
    shake_hands(pair)
    transfer_both_ways(pair, MEGABYTE)
    assert (pair.datagrams_lost > 0) == (loss > 0)
    # CPU time, because other tests share the machine. It makes a thousand such tests affordable.
    assert time.process_time() - started < 3


def test_lost_packets_are_counted() -> None:
    pair = make_pair(Link(), Link(loss=0.05))
    shake_hands(pair)
    transfer_both_ways(pair, MEGABYTE)
    assert pair.server.connection.recovery.packets_lost > 0


def test_the_connection_survives_a_nat_rebinding() -> None:
    pair = make_pair()
    shake_hands(pair)
    before = pair.server.connection.validated_path
    pair.client.address = ("192.0.2.77", 61000)
    transfer_both_ways(pair, MEGABYTE // 10)
    assert before == ("192.0.2.1", 50000)
    assert pair.server.connection.validated_path == ("192.0.2.77", 61000)
    assert pair.server.connection.paths.active.is_validated
    assert pair.server.connection.counters.migrations == 1


def test_an_address_that_never_answers_the_challenge_is_not_taken_for_the_client() -> None:
    pair = make_pair()
    shake_hands(pair)
    pair.client.connection.send_ping(1)
    for data, _ in pair.client.connection.datagrams_to_send(pair.now):
        pair.server.connection.receive_datagram(data, ("203.0.113.9", 4444), pair.now)
    assert pair.server.connection.paths.address == ("203.0.113.9", 4444)
    assert pair.server.connection.validated_path == ("192.0.2.1", 50000)


def test_the_keys_are_updated_by_either_side() -> None:
    pair = make_pair()
    shake_hands(pair)
    pair.client.connection.request_key_update()
    transfer_both_ways(pair, 10_000)
    assert pair.server.connection.handshake.phases.phase == 1
    pair.now += 1.0  # until the oldest keys are gone
    pair.server.connection.request_key_update()
    transfer_both_ways(pair, 10_000)
    assert pair.server.connection.handshake.phases.phase == 0


def test_a_slow_application_bounds_what_the_client_may_send() -> None:
    window = 64 * 1024
    pair = make_pair(server_options={"max_stream_data": window, "max_data": 4 * window})
    shake_hands(pair)
    received = bytearray()
    pair.server.on_event = lambda event: (
        received.extend(event.data) if isinstance(event, StreamDataReceived) else None
    )
    stream_id = pair.client.connection.get_next_available_stream_id()
    pair.client.connection.send_stream_data(stream_id, bytes(10 * window), end_stream=True)
    with pytest.raises(AssertionError, match="condition not met"):
        pair.run(lambda: len(received) > window, limit=5)
    assert len(received) == window

    pair.server.connection.consume(stream_id, window)
    pair.run(lambda: len(received) == 2 * window, limit=5)


def test_a_reset_stream_gives_its_window_back_to_the_connection() -> None:
    window = 64 * 1024
    pair = make_pair(server_options={"max_stream_data": window, "max_data": window})
    shake_hands(pair)
    client, server = pair.client.connection, pair.server.connection
    for _ in range(5):
        stream_id = client.get_next_available_stream_id()
        client.send_stream_data(stream_id, bytes(window // 2))
        arrived = server.streams.peer_bidi.opened
        pair.run(lambda arrived=arrived: server.streams.peer_bidi.opened > arrived, limit=5)
        client.reset_stream(stream_id, 7)
        pair.run(lambda s=stream_id: not server.streams.can_receive(s), limit=5)
        delivered = sum(
            len(event.data)
            for event in pair.server.events
            if isinstance(event, StreamDataReceived) and event.stream_id == stream_id
        )
        server.consume(stream_id, delivered)
    assert server.streams.receive_credit == window


def test_a_handshake_that_stalls_is_dropped_at_its_deadline() -> None:
    pair = make_pair(Link(), Link(loss=1.0))
    pair.transmit()
    pair.run(lambda: pair.server.connection.is_terminated, limit=30)
    assert pair.server.connection.close_event.reason_phrase == "Handshake timeout"
    assert pair.now - 1000.0 == pytest.approx(10, abs=1)


def test_a_sender_held_back_by_a_limit_sends_one_blocked_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent_frames = []
    for kind in (FrameType.DATA_BLOCKED, FrameType.STREAM_DATA_BLOCKED):
        spec = FRAME_TYPES[kind]

        def parse(data: bytes, at: int, kind: int, spec: FrameSpec = spec) -> tuple[Any, int]:
            frame, at = spec.parse(data, at, kind)
            sent_frames.append(frame)
            return frame, at

        monkeypatch.setitem(FRAME_TYPES, kind, spec._replace(parse=parse))
    pair = make_pair(own_client=True)
    client: Any = pair.client.connection
    server = pair.server.connection
    pair.run(lambda: client.handshake_confirmed and server.handshake_confirmed)
    stream_id = client.get_next_available_stream_id()
    client.send_stream_data(stream_id, bytes(64 << 20), end_stream=True)
    pair.run(lambda: client.streams.is_flow_blocked(stream_id), limit=60)
    end = pair.now + 1
    while pair.step(end):  # the server consumes nothing
        pass
    assert sent_frames == [StreamDataBlocked(stream_id, client.streams.get(stream_id).send.limit)]
