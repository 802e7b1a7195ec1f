"""Controllers over a bottleneck of 20 Mbit/s on the virtual clock; bench/congestion.py has more."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from bench.congestion import cubic_law, download, shared, single
from quicedge.quic.congestion import make_controller


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


def test_a_download_over_a_lossy_path_takes_what_the_law_of_cubic_asks() -> None:
    rtt, nbytes = 0.08, 1_000_000
    runs = [download("cubic", rtt, seed, nbytes) for seed in range(8)]
    rng = random.Random(1)
    law = mean(cubic_law(rtt, rng, nbytes) for _ in range(200))
    # 1.01 times the law over 40 seeds; the mean of eight is within a tenth of that or so.
    assert mean(seconds for seconds, _ in runs) < 1.3 * law
    for name, most in (("spuriously lost", 0), ("probe timeouts", 4)):
        assert sum(counts[name] for _, counts in runs) <= most, name


def test_in_the_reno_friendly_region_the_window_is_the_estimate_from_the_first_round_on() -> None:
    size = 1200
    cubic = make_controller("cubic", size)
    cubic.congestion_window = 20 * size
    cubic.on_congestion(sent_time=0.0, now=1.0)
    assert cubic.congestion_window == 14 * size
    windows = []
    for number in range(20):
        now = 1.1 + number * 0.02
        sent = cubic.congestion_window
        for _ in range(sent // size):
            cubic.on_acked(size, sent_time=now, now=now, smoothed_rtt=0.02, limited=True)
        windows.append(cubic.congestion_window / size)
    # RFC 9438 section 4.3: 9/17 of a packet per round until the window before the loss, then one.
    assert windows[0] == pytest.approx(14 + 9 / 17, abs=0.05)
    assert windows[9] - windows[0] == pytest.approx(9 * 9 / 17, rel=0.05)
    assert windows[19] - windows[14] == pytest.approx(5, rel=0.07)
