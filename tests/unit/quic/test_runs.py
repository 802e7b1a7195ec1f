"""Datagrams that come in together are handled as a run: what is delivered is as one by one."""

from __future__ import annotations

import random
from typing import Any
from unittest.mock import patch

from aioquic.quic.events import StreamDataReceived
from hypothesis import given, settings
from hypothesis import strategies as st

from quicedge.quic.connection.drops import DropReason
from quicedge.quic.connection.recovery import Recovery
from tests.support.quicpair import make_pair
from tests.support.simnet import Pair, datagrams


def connected() -> Pair:
    pair = make_pair()
    server = pair.server.connection
    pair.run(lambda: server.handshake_confirmed and server.handshake.alpn)
    pair.run(lambda: not pair._wire)
    return pair


def received(pair: Pair, stream_id: int) -> bytes:
    return b"".join(
        event.data
        for event in pair.server.events
        if isinstance(event, StreamDataReceived) and event.stream_id == stream_id
    )


def flight(pair: Pair) -> list[bytes]:
    """What the client sends within its window, paced."""
    run = []
    for _ in range(50):
        run += [data for data, _ in pair.client.connection.datagrams_to_send(pair.now)]
        pair.now += 0.002
    return run


def deliver(pair: Pair, run: list[bytes]) -> None:
    server: Any = pair.server.connection
    at = 0
    while at < len(run):
        at += server.receive_run(run, at, pair.client.address, pair.now)
    pair.server.drain()


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_loss_reordering_and_duplicates_in_runs_lose_nothing(seed: int, cuts: list[int]) -> None:
    rng = random.Random(seed)
    pair = connected()
    client = pair.client.connection
    bodies = {0: rng.randbytes(60_000), 4: rng.randbytes(30_000)}
    for stream_id, body in bodies.items():
        client.send_stream_data(stream_id, body, end_stream=True)
    for _ in range(400):
        run = [data for data, _ in client.datagrams_to_send(pair.now)]
        run = [data for data in run if rng.random() > 0.1]
        run += [data for data in run if rng.random() < 0.1]
        for index in range(len(run) - 1):
            if rng.random() < 0.2:
                run[index], run[index + 1] = run[index + 1], run[index]
        at = 0
        while at < len(run):
            size = cuts[at % len(cuts)]
            deliver(pair, run[at : at + size])
            at += size
        for stream_id in bodies:
            pair.server.connection.consume(stream_id, 0)
        pair.now += 0.03
        pair.server.connection.handle_timeout(pair.now)
        for data in datagrams(pair.server.connection, pair.now):
            client.receive_datagram(data, pair.server.address, pair.now)
        timer = client.get_timer()
        if timer is not None and timer <= pair.now:
            client.handle_timer(pair.now)
        if all(received(pair, key) == body for key, body in bodies.items()):
            break
    assert {key: received(pair, key) for key in bodies} == bodies


def test_a_key_update_within_a_run_is_followed() -> None:
    pair = connected()
    client = pair.client.connection
    client.send_stream_data(0, b"a" * 5000)
    run = flight(pair)
    client.request_key_update()
    client.send_stream_data(0, b"b" * 5000)
    run += flight(pair)
    deliver(pair, run)
    assert received(pair, 0) == b"a" * 5000 + b"b" * 5000
    assert pair.server.connection.handshake.phases.phase == 1


def test_a_damaged_packet_costs_no_other_of_its_run() -> None:
    pair = connected()
    client = pair.client.connection
    client.send_stream_data(0, bytes(8000))
    run = flight(pair)
    assert len(run) > 4
    run.insert(2, run[2][:-1] + bytes((run[2][-1] ^ 1,)))
    deliver(pair, run)
    assert len(received(pair, 0)) == 8000
    assert pair.server.connection.counters.packets_dropped == {DropReason.DECRYPTION_FAILURE: 1}


def test_acks_of_one_run_are_settled_once_and_all() -> None:
    pair = connected()
    server, client = pair.server.connection, pair.client.connection
    client.send_stream_data(0, b"?")
    pair.run(lambda: received(pair, 0) == b"?")
    server.send_stream_data(0, bytes(10_000), end_stream=True)
    settled = 0
    settle = Recovery.on_ack

    def count(*args: Any, **kwargs: Any) -> None:
        nonlocal settled
        settled += 1
        settle(*args, **kwargs)

    sent = []
    for _ in range(20):
        sent += datagrams(server, pair.now)
        pair.now += 0.002
    acks = []
    for data in sent:
        client.receive_datagram(data, pair.server.address, pair.now)
        pair.now += 0.002
        client.handle_timer(pair.now)
        acks += [ack for ack, _ in client.datagrams_to_send(pair.now)]
    assert len(acks) > 4
    before = server.recovery.bytes_in_flight
    with patch.object(Recovery, "on_ack", count):
        deliver(pair, acks)
    assert before > 0
    assert server.recovery.bytes_in_flight == 0
    assert 0 < settled < len(acks)
