"""Sets of integers as ranges, against plain sets."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from quicedge.quic.ranges import Ranges

STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 8)), max_size=40)


@given(STEPS)
def test_ranges_are_sets(steps: list[tuple[bool, int, int]]) -> None:
    ranges, model = Ranges(), set()
    for adds, start, length in steps:
        numbers = set(range(start, start + length))
        if adds:
            ranges.add(start, start + length)
            model |= numbers
        else:
            ranges.subtract(start, start + length)
            model -= numbers
        found = list(ranges)
        assert {number for first, stop in found for number in range(first, stop)} == model
        assert all(first < stop for first, stop in found)
        # Ranges that touch are one.
        assert all(one[1] < other[0] for one, other in itertools.pairwise(found))
        assert all((number in ranges) == (number in model) for number in range(50))


def test_the_lowest_range_comes_first() -> None:
    ranges = Ranges()
    ranges.add(5, 7)
    ranges.add(1, 2)
    assert len(ranges) == 2
    assert ranges.pop_first() == (1, 2)
    assert ranges.pop_first() == (5, 7)
    assert not ranges
