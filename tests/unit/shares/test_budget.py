"""Budgets by rate and by share of useful work."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quicedge.shares import Standing, WorkBudget


def test_a_burst_then_exhaustion_then_hostility() -> None:
    budget = WorkBudget(10, 1, now=0)
    standings = [budget.spend(1, now=0) for _ in range(21)]
    assert standings == [Standing.GOOD] * 10 + [Standing.EXHAUSTED] * 10 + [Standing.HOSTILE]


def test_time_pays_at_its_rate_up_to_the_burst() -> None:
    budget = WorkBudget(10, 2, now=0)
    budget.spend(10, now=0)
    assert budget.spend(2, now=1) is Standing.GOOD
    assert budget.spend(1, now=1) is Standing.EXHAUSTED
    assert budget.spend(10, now=1000) is Standing.GOOD
    assert budget.spend(1, now=1000) is Standing.EXHAUSTED


def test_work_pays_up_to_the_burst() -> None:
    budget = WorkBudget(10, 0, now=0)
    for _ in range(1000):
        budget.earn(3)
        assert budget.spend(3, now=0) is Standing.GOOD
    budget.earn(1000)
    assert budget.spend(11, now=0) is Standing.EXHAUSTED


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=50))
def test_whoever_stays_within_the_rate_never_runs_out(waits: list[float]) -> None:
    budget, now = WorkBudget(5, 100, now=0), 0.0
    for wait in waits * 20:
        now += wait
        assert budget.spend(min(wait * 99, 5), now) is Standing.GOOD
