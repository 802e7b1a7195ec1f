"""Pacing follows the window and the round trip, however slowly they change."""

from __future__ import annotations

import pytest

from quicedge.config.limits import BASE_DATAGRAM_SIZE, MAX_DATAGRAM_SIZE, PACE_STEPS
from quicedge.quic.pacer import Pacer


@pytest.mark.parametrize("growth", [1.001, 0.999])
@pytest.mark.parametrize("of", ["window", "round trip"])
def test_a_change_too_small_to_follow_is_followed_once_many_have_added_up(
    of: str, growth: float
) -> None:
    pacer = Pacer(BASE_DATAGRAM_SIZE)
    window, rtt = 1_000_000.0, 0.05
    rates = set()
    for _ in range(2000):
        pacer.set_rate(int(window), rtt, slow_start=False)
        assert pacer.rate is not None
        rates.add(pacer.rate)
        exact = 1.25 * int(window) / rtt
        assert abs(exact - pacer.rate) * PACE_STEPS <= pacer.rate
        if of == "window":
            window *= growth
        else:
            rtt *= growth
    # The rate has changed sevenfold, in steps.
    assert PACE_STEPS < len(rates) < 100


def test_larger_datagrams_are_sent_though_nothing_else_has_changed() -> None:
    pacer = Pacer(BASE_DATAGRAM_SIZE)
    pacer.set_rate(2 * BASE_DATAGRAM_SIZE, 0.1, slow_start=False)
    pacer.datagram_size = MAX_DATAGRAM_SIZE
    pacer.set_rate(2 * BASE_DATAGRAM_SIZE, 0.1, slow_start=False)
    now = 1.0
    pacer.on_sent(int(pacer.budget(now)))
    at = pacer.next_send_time(now)
    assert at is not None
    assert pacer.budget(at + 1e-6) >= MAX_DATAGRAM_SIZE
