"""A turn of a connection looks at no stream that nothing happened to, however many are open."""

from __future__ import annotations

from typing import Any

import pytest
from aioquic.quic.events import StreamDataReceived

from quicedge.quic.connection.stream import Stream
from tests.support.quicpair import make_pair
from tests.support.simnet import Pair

IDLE = 50


class Untouchable(Stream):
    """A stream that nobody may look at."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"looked at {name} of an idle stream")


def with_idle_streams(*, complete: bool) -> tuple[Pair, list[Stream]]:
    """A pair with IDLE requests that wait for their responses."""
    pair = make_pair(mtu_ceiling=1452)
    client, server = pair.client.connection, pair.server.connection
    pair.run(lambda: client._handshake_confirmed and server.handshake_confirmed)
    idle = []
    for _ in range(IDLE):
        stream_id = client.get_next_available_stream_id()
        idle.append(stream_id)
        client.send_stream_data(stream_id, b"request", end_stream=complete)
    end = pair.now + 1
    while pair.step(end):
        pass
    assert server.streams.peer_bidi_open == IDLE
    return pair, [server.streams.get(stream_id) for stream_id in idle]


def answer_requests(pair: Pair, requests: int, size: int) -> None:
    client, server = pair.client.connection, pair.server.connection
    answered = 0

    def respond(event: object) -> None:
        if isinstance(event, StreamDataReceived) and event.end_stream:
            server.consume(event.stream_id, len(event.data))
            server.send_stream_data(event.stream_id, bytes(size), end_stream=True)

    def count(event: object) -> None:
        nonlocal answered
        answered += isinstance(event, StreamDataReceived) and event.end_stream

    pair.server.on_event, pair.client.on_event = respond, count
    for number in range(requests):
        stream_id = client.get_next_available_stream_id()
        client.send_stream_data(stream_id, b"request", end_stream=True)
        pair.run(lambda wanted=number + 1: answered == wanted)


@pytest.mark.parametrize("complete", [True, False], ids=["requests", "uploads"])
@pytest.mark.parametrize("size", [100, 100_000], ids=["small", "large"])
def test_requests_beside_idle_streams_cost_no_look_at_them(complete: bool, size: int) -> None:
    pair, idle = with_idle_streams(complete=complete)
    for stream in idle:
        object.__setattr__(stream, "__class__", Untouchable)
    answer_requests(pair, 20, size)
    for stream in idle:
        object.__setattr__(stream, "__class__", Stream)
    # They are still served when their turn comes.
    server = pair.server.connection
    received: set[int] = set()

    def note(event: object) -> None:
        if isinstance(event, StreamDataReceived) and event.end_stream:
            received.add(event.stream_id)

    pair.client.on_event = note
    for stream in idle:
        server.send_stream_data(stream.id, b"response", end_stream=True)
    pair.run(lambda: len(received) == IDLE)


def test_finished_streams_are_let_go_of_whatever_else_is_sent() -> None:
    pair = make_pair(own_client=True)
    client, server = pair.client.connection, pair.server.connection
    pair.run(lambda: client.handshake_confirmed and server.handshake_confirmed)
    for pings in (False, True):
        stream_id = client.get_next_available_stream_id()
        client.send_stream_data(stream_id, b"request", end_stream=True)
        pair.run(lambda s=stream_id: s in server.streams)
        server.prioritize(stream_id, 1, False)
        server.send_stream_data(stream_id, b"response", end_stream=True)
        pair.run(lambda: bool(server.recovery.bytes_in_flight))
        pair.run(lambda: not server.recovery.bytes_in_flight)
        if pings:
            server.send_ping(1)
        pair.transmit()
        assert stream_id not in server.streams
        assert not server.streams.is_prioritized(stream_id)


def test_a_blocked_stream_goes_on_when_its_limit_is_raised() -> None:
    pair = make_pair(client_options={"max_stream_data": 5000, "max_data": 5000})
    client, server = pair.client.connection, pair.server.connection
    pair.run(lambda: client._handshake_confirmed and server.handshake_confirmed)
    client.send_stream_data(0, b"request", end_stream=True)
    pair.run(lambda: 0 in server.streams)
    received = 0

    def count(event: object) -> None:
        nonlocal received
        received += len(event.data) if isinstance(event, StreamDataReceived) else 0

    pair.client.on_event = count
    server.send_stream_data(0, bytes(50_000), end_stream=True)
    pair.run(lambda: received == 50_000, limit=10)
