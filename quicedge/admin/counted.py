"""What is counted over all workers, those that have ended among them."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from quicedge.admin.view import Status
from quicedge.telemetry.metrics import Metrics
from quicedge.telemetry.stats import WorkerStats
from quicedge.telemetry.sums import add_up
from quicedge.telemetry.totals import Totals, counters_of
from quicedge.udp.connection_id_codec import BANKS, MAX_WORKERS, bank_of, slot_number

_BY_REASON = (
    "fleet_messages", "datagrams_dropped", "tcp_refused", "tcp_failed", "redirects",
    "requests_refused", "early_data",
)  # fmt: skip
"""Counters of a worker that have labels of their own."""


def all_metrics(status: Status) -> list[Metrics]:
    """Metrics by route, upstream and so on, to be added up."""
    workers = [item.stats.metrics for item in status.workers if item.stats is not None]
    return [*workers, status.ended.metrics]


def counted_by_slot(running: Iterable[WorkerStats], ended: Totals) -> list[WorkerStats]:
    """The counters of every slot, without gauges and what has a name of its own.

    The slots of the workers that will replace these are among them, from zero on: a rate
    over a counter that appears with a value would miss that.
    """
    found: dict[int, WorkerStats] = {}
    for stats in (*map(counters_of, running), *ended.slots.values()):
        for bank in range(BANKS):
            slot = slot_number(bank, stats.slot % MAX_WORKERS)
            found.setdefault(slot, _from_zero(stats, slot))
        found[stats.slot] = add_up(found[stats.slot], stats)
    return [found[slot] for slot in sorted(found)]


def _from_zero(stats: WorkerStats, slot: int) -> WorkerStats:
    """The counters of a worker in another slot, before it has counted anything."""
    reasons = {name: dict.fromkeys(getattr(stats, name), 0) for name in _BY_REASON}
    return structs.replace(WorkerStats(slot=slot, pid=0, bank=bank_of(slot)), **reasons)
