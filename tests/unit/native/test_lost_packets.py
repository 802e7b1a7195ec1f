"""The compiled record of lost packets and its twin in Python find the same spurious losses."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quicedge.quic.losses  # noqa: F401  it declares the twin
from quicedge.config.limits import MAX_LOST_REMEMBERED
from tests.support.ranges import runs
from tests.support.twins import both

PURE, COMPILED = both("LostPackets")


@settings(max_examples=300)
@given(seed=st.integers(0, 1 << 32), most=st.integers(1, 3 * MAX_LOST_REMEMBERED))
def test_late_acks_find_the_same_losses(seed: int, most: int) -> None:
    rng = Random(seed)
    twins = PURE(), COMPILED()
    number = 0
    for _ in range(rng.randrange(most + 1)):
        if rng.random() < 0.6:
            number += rng.choice((0, 1, 3))
            stop = number + rng.randrange(1, 6)
            for twin in twins:
                twin.add(number, stop)
            number = stop
        elif number:
            acked = {rng.randrange(number + 3) for _ in range(rng.randrange(12))}
            acked.add(number + 3)  # a packet is lost only once a later one is acknowledged
            found = {twin.acknowledged(runs(acked)) for twin in twins}
            assert len(found) == 1
        assert bool(twins[0]) == bool(twins[1])
    # What each still remembers.
    for first in range(number):
        assert len({twin.acknowledged([(first, first + 1)]) for twin in twins}) == 1
    assert not any(twins)


@pytest.mark.parametrize("twin", [PURE, COMPILED], ids=["pure", "compiled"])
def test_an_older_ack_that_arrives_late_hides_no_spurious_loss(twin: Any) -> None:
    lost = twin()
    lost.add(5, 6)  # by an ACK of packets 6 to 10, which overtook this one:
    assert lost.acknowledged([(0, 5)]) == 0
    assert lost.acknowledged([(0, 12)]) == 1
    assert not lost
