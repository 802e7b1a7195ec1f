"""Downsampled series, and distributions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quicedge.qlog.series import Quantiles, Series, Sums

_POINTS = st.lists(st.tuples(st.floats(0, 1e7), st.floats(0, 1e9)), min_size=1, max_size=200)


@given(points=_POINTS)
def test_a_series_keeps_extremes_and_its_last_value(points: list[tuple[float, float]]) -> None:
    points.sort(key=lambda point: point[0])
    series = Series(limit=16)
    for time, value in points:
        series.add(time, value)
    found = series.points()
    assert 1 <= len(found) <= 16
    assert min(point[1] for point in found) == min(value for _, value in points)
    assert max(point[2] for point in found) == max(value for _, value in points)
    assert found[-1][3] == points[-1][1]
    assert [point[0] for point in found] == sorted(point[0] for point in found)


@given(spans=st.lists(st.floats(0, 1e6), min_size=1, max_size=40))
def test_spread_time_is_neither_lost_nor_doubled(spans: list[float]) -> None:
    sums = Sums(limit=32)
    at = 0.0
    for index, span in enumerate(spans):
        sums.spread(at, at + span, "ab"[index % 2])
        at += span
    spread = [(time, kinds) for time, kinds in sums]
    assert len(spread) <= 32
    for kind, total in sums.totals.items():
        assert abs(sum(kinds.get(kind, 0) for _, kinds in spread) - total) <= 1e-6 * max(1, total)
    for _, kinds in spread:
        assert sum(kinds.values()) <= sums.width * 1.000001


@given(values=st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300))
def test_quantiles_are_within_two_percent(values: list[float]) -> None:
    quantiles = Quantiles()
    for value in values:
        quantiles.add(value)
    values.sort()
    for share in (0.01, 0.5, 0.95, 1.0):
        exact = values[max(0, -int(-share * len(values) // 1) - 1)]
        found = quantiles.quantile(share)
        assert found is not None
        assert exact * 0.98 <= found <= exact * 1.02


def test_no_values_have_no_quantile() -> None:
    assert Quantiles().quantile(0.5) is None
