"""Upstreams and their servers, over all workers: `GET /api/v1/upstreams`, and their metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec import Struct, field
from prometheus_client.core import GaugeMetricFamily, Metric

from quicedge.admin.families import counter
from quicedge.telemetry.discovery import DiscoveryStats
from quicedge.telemetry.stats import WorkerStats
from quicedge.telemetry.totals import Totals
from quicedge.telemetry.upstreams import Circuit, UpstreamState


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
    """One upstream; what workers count is added up."""

    requests: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    """Requests that failed there, by kind; only what has occurred."""
    circuits: dict[str, int] = field(default_factory=dict)
    """Workers by the state of its circuit breaker; empty without one."""
    circuit_opened: int = 0
    circuit_refused: int = 0
    hedges: dict[str, int] = field(default_factory=dict)
    """Requests that took longer than hedging waits, by what became of their second attempt."""
    servers: dict[str, ServerStatus] = field(default_factory=dict)
    discoveries: list[DiscoveryStatus] = field(default_factory=list)


def upstreams_of(workers: Iterable[WorkerStats], ended: Totals) -> dict[str, UpstreamStatus]:
    """All upstreams, by name."""
    found: dict[str, UpstreamStatus] = {}
    workers = list(workers)
    counted: list[WorkerStats | Totals] = [*workers, ended]
    for one in counted:
        for name, metrics in one.metrics.upstreams.items():
            status = found.setdefault(name, UpstreamStatus())
            status.requests += metrics.requests
            _add(status.errors, {kind: count for kind, count in metrics.errors.items() if count})
        for name, state in one.upstreams.items():
            _add_state(found.setdefault(name, UpstreamStatus()), state)
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
    for name, looked_up in ended.discoveries.items():
        for of_name in found[name].discoveries if name in found else ():
            if of_name.name in looked_up:
                of_name.look_ups += looked_up[of_name.name].look_ups
                of_name.failures += looked_up[of_name.name].failures
    return found


def _add(total: dict[str, int], counts: dict[str, int]) -> None:
    for name, count in counts.items():
        total[name] = total.get(name, 0) + count


def _add_state(status: UpstreamStatus, state: UpstreamState) -> None:
    if state.circuit is not None:
        _add(status.circuits, {state.circuit.value: 1})
    status.circuit_opened += state.circuit_opened
    status.circuit_refused += state.circuit_refused
    _add(status.hedges, state.hedges)


def _add_server(status: ServerStatus, values: dict[str, int]) -> None:
    status.workers += 1
    status.workers_up += values.get("up", 1)  # files and applications always are
    _add(status.counts, {key: value for key, value in values.items() if key != "up"})


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


def discovery_families(workers: Iterable[WorkerStats], ended: Totals) -> Iterator[Metric]:
    """Whether the servers that workers know are current."""
    labels = ["upstream", "name", "worker"]
    servers = GaugeMetricFamily(
        "quicedge_upstream_discovered_servers", "Servers that a name stands for.", labels=labels
    )
    age = GaugeMetricFamily(
        "quicedge_upstream_discovery_age_seconds", "Time since DNS last named servers.",
        labels=labels,
    )  # fmt: skip
    look_ups: Counter[tuple[str, ...]] = Counter()

    def count(upstream: str, each: DiscoveryStats) -> None:
        look_ups[upstream, each.name, "ok"] += each.look_ups - each.failures
        look_ups[upstream, each.name, "failed"] += each.failures

    for upstream, names in ended.discoveries.items():
        for each in names.values():
            count(upstream, each)
    for worker in workers:
        for upstream, discoveries in worker.discoveries.items():
            for each in discoveries:
                values = [upstream, each.name, str(worker.slot)]
                servers.add_metric(values, each.servers)
                if each.age_seconds is not None:
                    age.add_metric(values, each.age_seconds)
                count(upstream, each)
    total = counter(
        "quicedge_upstream_look_ups", "Look-ups of servers in DNS, by result.",
        ["upstream", "name", "result"], look_ups,
    )  # fmt: skip
    yield from (servers, age, total)


def state_families(workers: Iterable[WorkerStats], ended: Totals) -> Iterator[Metric]:
    """Circuit breakers and hedging, by upstream."""
    circuits = GaugeMetricFamily(
        "quicedge_upstream_circuit", "1 for the state that its circuit breaker is in.",
        labels=["upstream", "worker", "state"],
    )  # fmt: skip
    opened: Counter[tuple[str, ...]] = Counter()
    refused: Counter[tuple[str, ...]] = Counter()
    hedges: Counter[tuple[str, ...]] = Counter()

    def count(name: str, state: UpstreamState) -> None:
        for result, number in state.hedges.items():
            hedges[name, result] += number
        if state.circuit is not None or state.circuit_opened:
            opened[(name,)] += state.circuit_opened
            refused[(name,)] += state.circuit_refused

    for name, state in ended.upstreams.items():
        count(name, state)
    for stats in workers:
        for name, state in stats.upstreams.items():
            count(name, state)
            for circuit in Circuit if state.circuit is not None else ():
                labels = [name, str(stats.slot), circuit.value]
                circuits.add_metric(labels, float(circuit is state.circuit))
    yield circuits
    yield counter(
        "quicedge_upstream_circuit_opened",
        "How often its circuit breaker opened.",
        ["upstream"],
        opened,
    )
    yield counter(
        "quicedge_upstream_circuit_refused",
        "Requests that it refused while open.",
        ["upstream"],
        refused,
    )
    yield counter(
        "quicedge_upstream_hedges",
        "Requests that took longer than hedging waits, by what became of their second attempt.",
        ["upstream", "result"],
        hedges,
    )
