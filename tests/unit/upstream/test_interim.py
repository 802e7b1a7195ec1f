"""Interim responses are limited by rate, not by number."""

from __future__ import annotations

from quicedge.config.limits import UPSTREAM_INTERIM_BURST, UPSTREAM_INTERIM_RATE
from quicedge.upstream.interim import InterimRate


def test_a_flood_is_cut_at_its_burst() -> None:
    rate = InterimRate()
    allowed = sum(rate.allow(100.0) for _ in range(10_000))
    assert allowed == UPSTREAM_INTERIM_BURST


def test_a_flood_gets_no_more_than_the_rate_afterwards() -> None:
    rate = InterimRate()
    allowed = sum(rate.allow(step / 1000) for step in range(60_000))
    assert allowed <= UPSTREAM_INTERIM_BURST + 60 * UPSTREAM_INTERIM_RATE


def test_a_job_of_a_day_may_report_every_second() -> None:
    rate = InterimRate()
    assert all(rate.allow(float(second)) for second in range(86_400))
