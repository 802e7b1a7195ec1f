"""The timer heap: who is due, and that the dead are let go of."""

from __future__ import annotations

import gc
import weakref
from math import inf
from typing import cast

from quicedge.config.limits import STALE_DEADLINES, TIMER_SLACK
from quicedge.quic.connection import Connection
from quicedge.quic.timers import Deadlines


class Anything:
    """Stands for a connection: the heap only holds it."""


def connection() -> Connection:
    return cast(Connection, Anything())


def test_the_nearest_deadline_of_a_connection_counts_until_it_fires() -> None:
    deadlines = Deadlines()
    one, other = connection(), connection()
    deadlines.arm(one, 10.0)
    deadlines.arm(other, 5.0)
    deadlines.arm(one, 3.0)
    assert deadlines.next() == 3.0
    assert deadlines.due(4.0) == [one]
    assert deadlines.due(100.0) == [other]
    assert deadlines.next() == inf


def test_a_connection_without_a_deadline_is_never_due() -> None:
    deadlines = Deadlines()
    one = connection()
    deadlines.arm(one, 1.0)
    deadlines.arm(one, None)
    assert deadlines.next() == inf
    assert deadlines.due(100.0) == []


def test_a_dead_connection_is_freed_before_its_deadline() -> None:
    deadlines = Deadlines()
    one = connection()
    gone = weakref.ref(one)
    deadlines.arm(one, 60.0)
    deadlines.discard(one)
    del one
    gc.collect()
    assert gone() is None


def test_stale_entries_do_not_pile_up_under_churn() -> None:
    deadlines = Deadlines()
    living = connection()
    deadlines.arm(living, 1000.0)
    for number in range(10_000):
        one = connection()
        deadlines.arm(one, 60.0 + number)
        deadlines.discard(one)
        deadlines.arm(living, 1000.0 - number / 100)
    assert len(deadlines._heap) <= 2 * len(deadlines) + STALE_DEADLINES
    assert deadlines.due(900.1) == [living]


def test_a_deadline_that_moves_far_later_does_not_fire_in_vain() -> None:
    deadlines = Deadlines()
    one = connection()
    deadlines.arm(one, 1.0)
    deadlines.arm(one, 1.0 + 2 * TIMER_SLACK)
    assert deadlines.next() == 1.0 + 2 * TIMER_SLACK
    assert deadlines.due(1.0 + TIMER_SLACK) == []


def test_a_deadline_that_moves_step_by_step_keeps_its_entry() -> None:
    deadlines = Deadlines()
    one = connection()
    deadlines.arm(one, 1.0)
    for step in range(1, 4):
        deadlines.arm(one, 1.0 + step * TIMER_SLACK / 4)
    assert len(deadlines._heap) == 1
    assert deadlines.next() == 1.0
