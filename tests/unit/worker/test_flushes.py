"""A worker flushes at the end of the event loop iteration what there is to do after a read."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

from quicedge.worker.edge import Edge


class Flushes:
    """An edge of which only the scheduling is real, and what it schedules."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.endpoint = SimpleNamespace(has_work=False)
        self.flush = lambda: None
        self.edge = cast(
            Edge,
            SimpleNamespace(
                _loop=SimpleNamespace(call_soon=self.soon.append), _flush=self.flush,
                _flush_scheduled=False, endpoint=self.endpoint,
            ),
        )  # fmt: skip

    def read(self, *, has_work: bool) -> None:
        self.endpoint.has_work = has_work
        Edge._flush_later(self.edge)


def test_a_read_that_leaves_nothing_to_do_schedules_no_flush() -> None:
    flushes = Flushes()
    flushes.read(has_work=False)
    assert flushes.soon == []


def test_one_flush_serves_all_reads_of_an_iteration() -> None:
    flushes = Flushes()
    for has_work in (False, True, False, True):
        flushes.read(has_work=has_work)
    assert flushes.soon == [flushes.flush]
