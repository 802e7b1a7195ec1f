"""Probe timeouts on whole connections: two packets, so the loss of one brings no second PTO."""

from __future__ import annotations

from statistics import mean

import pytest
from aioquic.quic.events import HandshakeCompleted, StreamDataReceived

from tests.support.quicpair import make_pair
from tests.support.simnet import Link, Pair


def settled_pair() -> Pair:
    """A pair of our connections with nothing left to send or to acknowledge."""
    pair = make_pair(own_client=True)
    client, server = pair.client.connection, pair.server.connection
    pair.run(lambda: client.handshake_confirmed and server.handshake_confirmed)
    client.send_stream_data(0, b"?")
    end = pair.now + 1
    while pair.step(end):
        pass
    return pair


@pytest.mark.parametrize("upward", [False, True], ids=["down", "up"])
@pytest.mark.parametrize(("packets", "lost_probe"), [(1, 0), (1, 1), (2, 0), (5, 0)])
def test_a_lost_tail_takes_one_probe_timeout_even_if_a_probe_is_lost(
    upward: bool, packets: int, lost_probe: int
) -> None:
    pair = settled_pair()
    peers = (pair.client, pair.server) if upward else (pair.server, pair.client)
    sender, receiver = peers
    received = 0

    def count(event: object) -> None:
        nonlocal received
        received += len(event.data) if isinstance(event, StreamDataReceived) else 0

    receiver.on_event = count
    size = 1100 * packets
    connection = sender.connection
    timeouts = connection.recovery.pto_total
    transmit = connection.poll_transmit

    def lose(now: float) -> object:
        """Lose all until the PTO, then one of its packets."""
        runs = transmit(now)
        if connection.recovery.pto_total == timeouts:
            return []
        assert len(runs) >= 2
        connection.poll_transmit = transmit
        return [run for place, run in enumerate(runs) if place != lost_probe]

    connection.poll_transmit = lose
    connection.send_stream_data(0, bytes(size))
    pair.run(lambda: received == size, limit=10)
    assert connection.recovery.pto_total == timeouts + 1


def test_a_probe_timeout_sends_two_packets_and_no_more() -> None:
    pair = settled_pair()
    server = pair.server.connection
    server.send_ping(1)
    server.poll_transmit(pair.now)
    for _ in range(3):
        now = server.poll_timeout()
        server.handle_timeout(now)
        assert sum(-(-len(run.data) // run.segment) for run in server.poll_transmit(now)) == 2
        assert not server.poll_transmit(now)


def test_a_path_mtu_probe_is_not_taken_for_lost_before_it_can_be_answered() -> None:
    pair = settled_pair()
    server = pair.server.connection
    timeouts = server.recovery.pto_total
    pair.now += 30  # nothing has been sent for long: the timer must run from the probe
    size = server.max_datagram_size
    server.paths.active.mtu.reset()
    pair.transmit()
    assert server.poll_timeout() > pair.now + server.recovery.rtt.smoothed
    end = pair.now + 1
    while pair.step(end):
        pass
    assert server.recovery.pto_total == timeouts
    assert server.max_datagram_size == server.paths.active.mtu.current == size


def seconds_to_a_response(seed: int, loss: float) -> float:
    """From nothing to a response of three packets, over a round trip of 30 ms."""
    link = {"delay": 0.015, "loss": loss}
    pair = make_pair(Link(**link), Link(**link), seed=seed, own_client=True)
    client, server = pair.client.connection, pair.server.connection
    start = pair.now
    answered = False

    def at_client(event: object) -> None:
        nonlocal answered
        if isinstance(event, HandshakeCompleted):
            client.send_stream_data(0, b"request", end_stream=True)
        answered |= isinstance(event, StreamDataReceived) and event.end_stream

    def at_server(event: object) -> None:
        if isinstance(event, StreamDataReceived) and event.end_stream:
            server.send_stream_data(event.stream_id, bytes(3000), end_stream=True)

    pair.client.on_event, pair.server.on_event = at_client, at_server
    pair.run(lambda: answered, limit=30)
    return pair.now - start


def test_a_request_over_a_path_that_loses_a_third_is_answered_soon() -> None:
    times = sorted(seconds_to_a_response(seed, 0.3) for seed in range(60))
    # With one probe per PTO: 0.54 s on average, 3.8 s for the slowest of a hundred.
    assert mean(times) < 0.52
    assert times[-1] < 6
