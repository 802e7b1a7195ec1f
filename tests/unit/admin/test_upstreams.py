"""Upstreams and their servers over all workers."""

from __future__ import annotations

import msgspec

from quicedge.admin.upstreams import discovery_families, state_families, upstreams_of
from quicedge.telemetry.discovery import DiscoveryStats
from quicedge.telemetry.metrics import Metrics
from quicedge.telemetry.stats import WorkerStats
from quicedge.telemetry.totals import Totals
from quicedge.telemetry.upstreams import Circuit, UpstreamState


def worker(slot: int, up: int, age: float | None, problem: str = "") -> WorkerStats:
    counts = {"up": up, "open": 2, "requests": 10}
    found = DiscoveryStats("app.test", 1 + slot, age, look_ups=5, failures=2, problem=problem)
    return WorkerStats(
        slot=slot,
        pid=1,
        servers={"app": {"192.0.2.1:80": counts}, "www": {"/srv": {"active": 1, "requests": 3}}},
        discoveries={"app": [found]},
    )


WORKERS = [worker(0, 1, 3.0), worker(1, 0, 7.0, "no answer"), worker(2, 1, None, "no answer")]


def test_what_workers_know_of_servers_is_added_up() -> None:
    found = msgspec.to_builtins(upstreams_of(WORKERS, Totals()))
    assert found["app"]["servers"] == {
        "192.0.2.1:80": {"workers": 3, "workers_up": 2, "counts": {"open": 6, "requests": 30}}
    }
    assert found["www"]["servers"]["/srv"]["workers_up"] == 3
    (discovery,) = found["app"]["discoveries"]
    assert discovery == {
        "name": "app.test",
        "servers": 3,
        "age_seconds": 7.0,
        "workers_failing": 2,
        "look_ups": 15,
        "failures": 6,
        "problems": ["no answer"],
    }
    assert found["www"]["discoveries"] == []


def test_the_age_of_what_workers_know_is_a_metric() -> None:
    families = {family.name: family for family in discovery_families(WORKERS, Totals())}
    ages = families["quicedge_upstream_discovery_age_seconds"].samples
    assert {sample.labels["worker"]: sample.value for sample in ages} == {"0": 3.0, "1": 7.0}
    look_ups = families["quicedge_upstream_look_ups"].samples
    assert {sample.labels["result"]: sample.value for sample in look_ups} == {"ok": 9, "failed": 6}
    servers = families["quicedge_upstream_discovered_servers"].samples
    assert [sample.value for sample in servers] == [1, 2, 3]


def judging(slot: int, state: UpstreamState) -> WorkerStats:
    """What a worker knows of an upstream as a whole."""
    metrics = Metrics()
    metrics.upstream("app").requests = 10
    metrics.upstream("app").errors["reset"] = slot
    return WorkerStats(slot=slot, pid=1, metrics=metrics, upstreams={"app": state})


JUDGING = [
    judging(0, UpstreamState(Circuit.HALF_OPEN, 2, 7, {"won": 3, "lost": 0, "refused": 1})),
    judging(1, UpstreamState(Circuit.CLOSED, 0, 0, {"won": 1, "lost": 0, "refused": 0})),
]


def test_circuits_hedges_and_errors_are_added_up() -> None:
    app = upstreams_of(JUDGING, Totals())["app"]
    assert (app.requests, app.errors) == (20, {"reset": 1})
    assert app.circuits == {"half_open": 1, "closed": 1}
    assert (app.circuit_opened, app.circuit_refused) == (2, 7)
    assert app.hedges == {"won": 4, "lost": 0, "refused": 1}


def test_metrics_have_the_circuit_of_each_worker_and_counters_of_all() -> None:
    samples = {
        (sample.name.removeprefix("quicedge_upstream_"), *sample.labels.values()): sample.value
        for family in state_families(JUDGING, Totals())
        for sample in family.samples
    }
    circuit = {key[2:]: value for key, value in samples.items() if key[0] == "circuit"}
    assert {key for key, value in circuit.items() if value} == {("0", "half_open"), ("1", "closed")}
    assert len(circuit) == 6
    assert samples["circuit_opened_total", "app"] == 2
    assert samples["circuit_refused_total", "app"] == 7
    assert samples["hedges_total", "app", "won"] == 4
    assert samples["hedges_total", "app", "lost"] == 0
