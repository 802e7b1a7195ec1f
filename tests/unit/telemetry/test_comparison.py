"""Protocols side by side: figures over recent connections, and how much they can be trusted."""

from __future__ import annotations

import msgspec
import pytest

from quicedge.config.limits import (
    COMPARISON_CONNECTIONS,
    COMPARISON_ENOUGH,
    COMPARISON_GOODPUT_BYTES,
    COMPARISON_GOODPUT_SECONDS,
)
from quicedge.telemetry.comparison import (
    ProtocolFigures,
    RecentConnections,
    Sample,
    Samples,
    compare,
    goodput,
)
from quicedge.telemetry.protocols import HttpProtocol

H3, H2 = HttpProtocol.HTTP_3, HttpProtocol.HTTP_2


def figures(*workers: Samples, protocol: HttpProtocol = H3) -> ProtocolFigures:
    return next(one for one in compare(workers).protocols if one.protocol is protocol)


def rtts(*values: float | None) -> list[Sample]:
    return [Sample(smoothed_rtt=value) for value in values]


def test_medians_and_percentiles_are_over_the_connections_of_all_workers() -> None:
    values = [n / 1000 for n in range(1, 101)]
    found = figures({H3: rtts(*values[:70])}, {H3: rtts(*values[70:]), H2: rtts(9.0)})
    assert found.connections == found.smoothed_rtt.connections == 100
    assert found.smoothed_rtt.median == 0.05
    assert found.smoothed_rtt.p95 == 0.095
    assert not found.smoothed_rtt.is_sparse


def test_every_protocol_is_listed_even_when_nobody_speaks_it() -> None:
    assert [one.protocol for one in compare([]).protocols] == list(HttpProtocol)
    nobody = figures()
    assert nobody.connections == 0
    assert nobody.smoothed_rtt.median is nobody.smoothed_rtt.p95 is None
    assert nobody.smoothed_rtt.is_sparse
    assert nobody.packets_lost_ratio is None


def test_few_connections_are_marked() -> None:
    assert figures({H3: rtts(*[0.1] * (COMPARISON_ENOUGH - 1))}).smoothed_rtt.is_sparse
    assert not figures({H3: rtts(*[0.1] * COMPARISON_ENOUGH)}).smoothed_rtt.is_sparse


def test_a_figure_is_over_the_connections_that_have_it() -> None:
    """Connections without a large response have no goodput; those of few packets no loss ratio."""
    samples = [
        Sample(handshake_seconds=0.1, packets_sent=4, packets_lost=1),
        Sample(handshake_seconds=0.3, goodput=8e6, packets_sent=996, packets_lost=99),
    ]
    found = figures({H3: samples})
    assert found.connections == found.handshake_seconds.connections == 2
    assert found.goodput.connections == found.loss_ratio.connections == 1
    assert found.goodput.median == 8e6
    assert found.packets_lost_ratio == 0.1, "of all packets, those of short connections too"


def test_a_rate_needs_bytes_and_time() -> None:
    enough = COMPARISON_GOODPUT_BYTES
    assert goodput(enough, 1.0) == enough * 8
    assert goodput(enough - 1, 1.0) is None
    assert goodput(enough, COMPARISON_GOODPUT_SECONDS / 2) is None
    assert goodput(None, 1.0) is goodput(enough, None) is None


def test_memory_is_bounded_and_the_latest_connections_count() -> None:
    recent = RecentConnections()
    for n in range(10 * COMPARISON_CONNECTIONS):
        recent.ended(H3, Sample(smoothed_rtt=float(n)))
    live = {H3: rtts(-1.0), H2: rtts(-2.0)}
    samples = recent.samples(live)
    assert len(samples[H3]) == COMPARISON_CONNECTIONS
    assert [one.smoothed_rtt for one in samples[H3][:2]] == [-1.0, 10 * COMPARISON_CONNECTIONS - 1]
    assert samples[H2] == live[H2]


def test_connections_of_one_protocol_do_not_displace_those_of_another() -> None:
    recent = RecentConnections()
    recent.ended(H2, Sample(smoothed_rtt=1.0))
    for _ in range(10 * COMPARISON_CONNECTIONS):
        recent.ended(H3, Sample())
    assert len(recent.samples({})[H2]) == 1


def test_retransmissions_of_retransmissions_are_no_loss_above_one() -> None:
    assert Sample(packets_sent=50, packets_lost=70).loss_ratio == 1.0


@pytest.mark.parametrize("codec", [msgspec.msgpack, msgspec.json])
def test_samples_pass_between_processes(codec: object) -> None:
    samples = RecentConnections().samples({H3: [Sample(0.1, 0.2, None, 1e6, 10, 1)]})
    data = codec.encode(samples)  # type: ignore[attr-defined]
    assert codec.decode(data, type=Samples) == samples  # type: ignore[attr-defined]
