"""The servers of upstreams, over all workers: `GET /api/v1/upstreams`, and metrics of discovery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec import Struct, field
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from quicedge.telemetry.discovery import DiscoveryStats
from quicedge.telemetry.stats import WorkerStats


class ServerStatus(Struct):
    """One server; what workers count is added up. Files and applications have fewer counts."""

    workers: int = 0
    workers_up: int = 0
    """Those that send it requests."""
    counts: dict[str, int] = field(default_factory=dict)
    """Connections (`open`, `idle`), requests (`active`, `waiting`), and totals."""


class DiscoveryStatus(Struct):
    """A name whose servers are looked up in DNS."""

    name: str
    servers: int = 0
    """As the worker knows that knows the most."""
    age_seconds: float | None = None
    """Since DNS last named servers, in the worker where that is longest ago; None: it never has in
    any."""
    workers_failing: int = 0
    """Workers whose last look-up has led to no server, or to a part of them."""
    look_ups: int = 0
    failures: int = 0
    problems: list[str] = field(default_factory=list)


class UpstreamStatus(Struct):
    """One upstream."""

    servers: dict[str, ServerStatus] = field(default_factory=dict)
    discoveries: list[DiscoveryStatus] = field(default_factory=list)


def upstreams_of(workers: Iterable[WorkerStats]) -> dict[str, UpstreamStatus]:
    """All upstreams, by name."""
    found: dict[str, UpstreamStatus] = {}
    for worker in workers:
        for name, servers in worker.servers.items():
            status = found.setdefault(name, UpstreamStatus())
            for server, values in servers.items():
                _add_server(status.servers.setdefault(server, ServerStatus()), values)
        for name, discoveries in worker.discoveries.items():
            status = found.setdefault(name, UpstreamStatus())
            known = {each.name: each for each in status.discoveries}
            for each in discoveries:
                if each.name not in known:
                    known[each.name] = DiscoveryStatus(each.name)
                    status.discoveries.append(known[each.name])
                _add_discovery(known[each.name], each)
    return found


def _add_server(status: ServerStatus, values: dict[str, int]) -> None:
    status.workers += 1
    status.workers_up += values.get("up", 1)  # files and applications always are
    for key, value in values.items():
        if key != "up":
            status.counts[key] = status.counts.get(key, 0) + value


def _add_discovery(status: DiscoveryStatus, found: DiscoveryStats) -> None:
    status.servers = max(status.servers, found.servers)
    if found.age_seconds is not None:
        status.age_seconds = max(status.age_seconds or 0.0, found.age_seconds)
    status.look_ups += found.look_ups
    status.failures += found.failures
    if found.problem:
        status.workers_failing += 1
        if found.problem not in status.problems:
            status.problems.append(found.problem)


def discovery_families(workers: Iterable[WorkerStats]) -> Iterator[Metric]:
    """Whether the servers that workers know are current."""
    labels = ["upstream", "name", "worker"]
    servers = GaugeMetricFamily(
        "quicedge_upstream_discovered_servers", "Servers that a name stands for.", labels=labels
    )
    age = GaugeMetricFamily(
        "quicedge_upstream_discovery_age_seconds", "Time since DNS last named servers.",
        labels=labels,
    )  # fmt: skip
    look_ups: Counter[tuple[str, str, str]] = Counter()
    for worker in workers:
        for upstream, discoveries in worker.discoveries.items():
            for each in discoveries:
                values = [upstream, each.name, str(worker.slot)]
                servers.add_metric(values, each.servers)
                if each.age_seconds is not None:
                    age.add_metric(values, each.age_seconds)
                look_ups[upstream, each.name, "ok"] += each.look_ups - each.failures
                look_ups[upstream, each.name, "failed"] += each.failures
    total = CounterMetricFamily(
        "quicedge_upstream_look_ups", "Look-ups of servers in DNS, by result.",
        labels=["upstream", "name", "result"],
    )  # fmt: skip
    for key, count in look_ups.items():
        total.add_metric(key, count)
    yield from (servers, age, total)
