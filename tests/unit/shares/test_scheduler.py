"""Which stream's turn it is (RFC 9218)."""

from __future__ import annotations

from quicedge.quic.connection.stream import SendHalf, Stream
from quicedge.shares.rank import rank_of
from quicedge.shares.scheduler import Scheduler


def stream(stream_id: int, urgency: int | None = None, *, incremental: bool = True) -> Stream:
    made = Stream(stream_id, None, SendHalf(1000))
    if urgency is not None:
        made.rank = rank_of(stream_id, urgency, incremental)
    return made


def order(scheduler: Scheduler[Stream]) -> list[int]:
    return [ready.id for ready in scheduler]


def test_urgency_first_and_control_streams_before_all() -> None:
    scheduler: Scheduler[Stream] = Scheduler()
    for ready in (stream(0, 5), stream(4, 0), stream(8), stream(3)):
        scheduler.add(ready)
    assert order(scheduler) == [3, 4, 8, 0]


def test_incremental_streams_of_one_urgency_take_turns() -> None:
    scheduler: Scheduler[Stream] = Scheduler()
    first, second, third = stream(0), stream(4), stream(8)
    for ready in (first, second, third):
        scheduler.add(ready)
    scheduler.rotate(first)
    assert order(scheduler) == [4, 8, 0]


def test_other_streams_are_served_one_after_the_other() -> None:
    scheduler: Scheduler[Stream] = Scheduler()
    first, second = stream(0, 3, incremental=False), stream(4, 3, incremental=False)
    scheduler.add(second)
    scheduler.add(first)
    scheduler.rotate(first)
    assert order(scheduler) == [0, 4]


def test_a_new_priority_moves_a_stream_that_waits_and_adds_no_other() -> None:
    scheduler: Scheduler[Stream] = Scheduler()
    waiting, idle = stream(4), stream(8)
    scheduler.add(stream(0))
    scheduler.add(waiting)
    scheduler.rerank(waiting, rank_of(4, 1, True))
    scheduler.rerank(idle, rank_of(8, 0, True))
    assert order(scheduler) == [4, 0]
    scheduler.add(idle)
    assert order(scheduler) == [8, 4, 0]


def test_a_stream_is_in_it_once_and_leaves_it() -> None:
    scheduler: Scheduler[Stream] = Scheduler()
    ready = stream(0)
    scheduler.add(ready)
    scheduler.add(ready)
    assert order(scheduler) == [0]
    scheduler.remove(ready)
    scheduler.remove(ready)
    assert not scheduler
    assert not ready.scheduled
