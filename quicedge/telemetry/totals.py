"""What workers that have ended had counted.

Added to what those count that run, counters go on when a worker crashes or is replaced. Without it
a sum would go down by the share of one worker, which whoever reads it takes for a restart of all:
what is left of the sum would count once more.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from msgspec import Struct, field, structs

from quicedge.telemetry.discovery import DiscoveryStats
from quicedge.telemetry.metrics import Metrics
from quicedge.telemetry.series import SeriesNames
from quicedge.telemetry.stats import WorkerStats
from quicedge.telemetry.sums import add_up
from quicedge.telemetry.upstreams import UpstreamState


class Totals(Struct, frozen=True, kw_only=True):
    """Counters only; what a worker has now, it had."""

    workers: int = 0
    """How many have ended."""
    slots: dict[int, WorkerStats] = field(default_factory=dict)
    """By slot, without what the other fields have of all."""
    metrics: Metrics = field(default_factory=Metrics)
    upstreams: dict[str, UpstreamState] = field(default_factory=dict)
    discoveries: dict[str, dict[str, DiscoveryStats]] = field(default_factory=dict)
    """By upstream and name."""

    def with_worker(self, stats: WorkerStats) -> Totals:
        """These and those of another worker."""
        return self.with_all(_totals_of(stats))

    def with_all(self, other: Totals) -> Totals:
        """These and those of other workers."""
        total: Totals = add_up(self, other)
        return total

    def of_series(self, names: SeriesNames) -> Totals:
        """Without those of routes, upstreams, filters and addresses that are configured no more."""
        metrics, upstreams = self.metrics, set(names.upstreams)
        routes = _only(metrics.routes, set(names.routes))
        return structs.replace(
            self,
            metrics=structs.replace(
                metrics,
                routes={
                    name: structs.replace(item, sides=_only(item.sides, upstreams))
                    for name, item in routes.items()
                },
                upstreams=_only(metrics.upstreams, upstreams),
                mirrors=_only(metrics.mirrors, upstreams),
                filters=_only(metrics.filters, names.filters),
                listeners={
                    key: item
                    for key, item in metrics.listeners.items()
                    if item.address in names.listeners
                },
            ),
            upstreams=_only(self.upstreams, upstreams),
            discoveries=_only(self.discoveries, upstreams),
        )


def _only(found: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: item for name, item in found.items() if name in names}


def counters_of(stats: WorkerStats) -> WorkerStats:
    """The counters of a worker as a whole: all but gauges and what has a name."""
    return structs.replace(
        stats,
        pid=0,
        draining=False,
        uptime_seconds=0.0,
        resident_bytes=0,
        connections=0,
        connections_by_protocol={},
        handshakes_open=0,
        requests_active=0,
        traces_running=0,
        metrics=Metrics(),
        servers={},
        discoveries={},
        upstreams={},
    )


def _totals_of(stats: WorkerStats) -> Totals:
    """What a worker has counted: all but its gauges."""
    metrics = stats.metrics
    routes = {name: structs.replace(item, tunnels=0) for name, item in metrics.routes.items()}
    return Totals(
        workers=1,
        slots={stats.slot: counters_of(stats)},
        metrics=structs.replace(metrics, routes=routes),
        upstreams={
            name: structs.replace(state, circuit=None) for name, state in stats.upstreams.items()
        },
        discoveries={
            upstream: {
                each.name: structs.replace(each, servers=0, age_seconds=None, problem="")
                for each in found
            }
            for upstream, found in stats.discoveries.items()
        },
    )
