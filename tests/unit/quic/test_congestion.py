"""Controllers over a bottleneck of 20 Mbit/s on the virtual clock; bench/congestion.py has more."""

from __future__ import annotations

from statistics import mean

import pytest

from bench.congestion import shared, single


@pytest.mark.parametrize("controller", ["cubic", "reno", "bbr"])
def test_a_clean_path_is_filled(controller: str) -> None:
    outcome = single(controller, 0.0, 0.02)
    assert outcome.utilization > 0.9
    assert outcome.queue <= 1.1


@pytest.mark.parametrize("rtt", [0.02, 0.1])
def test_random_loss_does_not_stop_bbr(rtt: float) -> None:
    assert single("bbr", 0.03, rtt).utilization > 0.5


def test_cubic_under_loss_is_no_slower_than_reno_of_stock_aioquic() -> None:
    # Which packet numbers are skipped is chance, and with it which packets are lost.
    ours = mean(single("cubic", 0.03, 0.02).utilization for _ in range(4))
    assert ours > 0.9 * single("reno", 0.03, 0.02, stock=True).utilization
    # What a window of 1.22 / sqrt(p) packets a round trip makes of 3 % loss, with some room.
    assert ours > 0.1


def test_two_flows_share_a_bottleneck_and_fill_it() -> None:
    first, second = shared("cubic", "cubic")
    assert first + second > 0.9
    # The older flow gets 0.22 to 0.27 of the link in this window: less than half, never nothing.
    assert min(first, second) > 0.15
