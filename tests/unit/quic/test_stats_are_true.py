"""What a connection says of itself against what the link knows: delay, rate, losses."""

from __future__ import annotations

from typing import Any

import pytest
from aioquic.quic.recovery import K_GRANULARITY

from quicedge.qlog.blocked_time import Limit
from quicedge.quic.connection.drops import DropReason
from tests.support.quicpair import make_pair
from tests.support.simnet import Link, Pair

SIZE = 2_000_000


def download(
    *,
    delay: float,
    loss: float = 0.0,
    rate: float | None = None,
    jitter: float = 0.0,
    seed: int = 1,
) -> tuple[Pair, int, float]:
    """A download over a known link: the pair, datagrams lost on it, seconds it took.

    Losses begin once the handshake is over and end before the last acknowledgment, so that each
    can be known.
    """
    queue = 1_000_000 if rate is None else int(rate * 4 * delay)
    down = Link(delay=delay, rate=rate, queue=queue, jitter=jitter)
    options = {"max_data": 1 << 30, "max_stream_data": 1 << 30}
    pair = make_pair(Link(delay=delay), down, seed=seed, client_options=options)
    server, client = pair.server.connection, pair.client.connection
    pair.transmit()
    pair.run(lambda: bool(server.handshake_confirmed and client._handshake_confirmed))
    client.send_stream_data(0, b"?")
    pair.run(lambda: 0 in server.streams)
    received = 0

    def count(event: Any) -> None:
        nonlocal received
        received += len(getattr(event, "data", b""))

    pair.client.on_event = count
    down.loss = loss
    lost, start = pair.datagrams_lost, pair.now
    server.send_stream_data(0, bytes(SIZE))
    pair.run(lambda: received >= SIZE)
    down.loss = 0.0
    took = pair.now - start
    pair.run(lambda: not server.recovery.bytes_in_flight)
    return pair, pair.datagrams_lost - lost, took


@pytest.mark.parametrize("delay", [0.005, 0.025, 0.15])
def test_round_trip_times(delay: float) -> None:
    pair, _, _ = download(delay=delay)
    rtt = pair.server.connection.recovery.rtt
    assert rtt.min == pytest.approx(2 * delay, rel=0.01)
    assert rtt.smoothed == pytest.approx(2 * delay, rel=0.05)
    # RFC 9002 section 5.1: a sample holds what the client waited before its ACK (aioquic: 1 ms).
    assert 2 * delay <= rtt.latest <= (2 * delay + K_GRANULARITY) * 1.01


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("loss", [0.005, 0.03])
def test_losses_are_counted_exactly(loss: float, seed: int) -> None:
    pair, lost, _ = download(delay=0.025, loss=loss, seed=seed)
    recovery = pair.server.connection.recovery
    # Probes declare nothing lost, so a loss that one of them repaired may be missing.
    assert lost - recovery.pto_total <= recovery.packets_lost <= lost
    assert recovery.packets_spuriously_lost == 0
    if not recovery.pto_total:
        assert recovery.packets_lost == lost > 0


def test_losses_in_a_full_queue_are_counted_exactly() -> None:
    pair, lost, _ = download(delay=0.025, rate=2_500_000)
    recovery = pair.server.connection.recovery
    assert recovery.pto_total == 0
    assert recovery.packets_lost == lost > 0
    # What was lost was sent again, and nothing else.
    retransmitted = pair.server.connection.streams.bytes_resent
    assert retransmitted == pytest.approx(recovery.bytes_lost, rel=0.05)


@pytest.mark.parametrize(("rate", "delay"), [(2_500_000, 0.005), (2_500_000, 0.025), (1e6, 0.05)])
def test_the_delivery_rate_is_that_of_the_link(rate: float, delay: float) -> None:
    pair, _, took = download(delay=delay, rate=rate)
    server = pair.server.connection
    assert server.recovery.delivery_rate == pytest.approx(rate, rel=0.1)
    # And what limited it was the path, nearly all the time.
    sent = server.limits.sent(pair.now)
    congested = sent[Limit.CONGESTION] + sent.get(Limit.PACING, 0.0)
    assert congested == pytest.approx(took, rel=0.15)
    assert sent[Limit.CONGESTION] > 0.7 * congested


def test_reordering_is_reported_and_is_no_loss() -> None:
    """Jitter beyond the reordering threshold: losses are declared, and taken back."""
    pair, lost, _ = download(delay=0.02, jitter=0.02, rate=2_500_000)
    recovery = pair.server.connection.recovery
    assert recovery.packets_spuriously_lost > 0
    really = recovery.packets_lost - recovery.packets_spuriously_lost
    assert really == pytest.approx(lost, abs=0.1 * recovery.packets_lost + 5)


def test_what_is_dropped_and_when_something_came() -> None:
    pair, _, _ = download(delay=0.01)
    server, client = pair.server.connection, pair.client.connection
    assert server.paths.known[0].bytes_received == server.counters.bytes_received
    came = server.counters.received_at
    assert came is not None
    client.send_stream_data(4, b"x")
    (datagrams,) = ([data for data, _ in client.datagrams_to_send(pair.now)],)
    path = server.paths.address
    for data in datagrams:
        server.receive_datagram(data, path, pair.now + 1)
    assert server.counters.received_at == pair.now + 1
    before = dict(server.counters.packets_dropped)
    server.receive_datagram(datagrams[-1], path, pair.now + 2)
    damaged = datagrams[-1][:-1] + bytes((datagrams[-1][-1] ^ 1,))
    server.receive_datagram(damaged, path, pair.now + 2)
    late = bytes((0xE3,)) + b"\0\0\0\1" + bytes(40)
    server.receive_datagram(late, path, pair.now + 2)
    assert server.counters.received_at >= pair.now + 1
    dropped = {
        reason: count - before.get(reason, 0)
        for reason, count in server.counters.packets_dropped.items()
    }
    assert dropped == {
        DropReason.DUPLICATE: 1,
        DropReason.DECRYPTION_FAILURE: 1,
        DropReason.KEY_UNAVAILABLE: 1,
    }
