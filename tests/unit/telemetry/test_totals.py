"""Counters go on where a worker ends."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from quicedge.admin.metrics import render
from quicedge.admin.upstreams import upstreams_of
from quicedge.admin.view import EdgeState, Status, WorkerState, WorkerStatus
from quicedge.config.schema import Config, Route, Upstream
from quicedge.native import Core
from quicedge.supervisor.tally import Tally
from quicedge.telemetry.discovery import DiscoveryStats
from quicedge.telemetry.metrics import Metrics
from quicedge.telemetry.outcomes import Outcome
from quicedge.telemetry.protocols import HttpProtocol, TransportKind
from quicedge.telemetry.series import series_names
from quicedge.telemetry.spans import SpanCounts
from quicedge.telemetry.stats import WorkerStats
from quicedge.telemetry.totals import Totals
from quicedge.telemetry.upstreams import Circuit, UpstreamState

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def worked(slot: int, times: int = 1) -> WorkerStats:
    """A worker that has counted everything that there is to count, and is at it."""
    metrics = Metrics()
    listener = metrics.listener("127.0.0.1:443", TransportKind.QUIC)
    for _ in range(times):
        metrics.exchange(
            route="*/", upstream="app", protocol=HttpProtocol.HTTP_3, status=502,
            outcome=Outcome.ORIGIN_CONNECT, bytes_received=10, bytes_sent=1000, seconds=0.02,
            first_byte_seconds=0.01,
        )  # fmt: skip
        metrics.connection(
            listener, protocol=HttpProtocol.HTTP_3, observed={"age_seconds": 3.0, "loss_ratio": 0.0}
        )
        metrics.mirror("app").timed(0.1, 0.2)
        metrics.filter("app:Filter").seconds += 0.5
        metrics.filter("app:Filter").calls += 1
        metrics.tls[TransportKind.QUIC].handshake("x25519", "zlib", retried=True)
        metrics.route("*/").side("app").count(200)
    metrics.route("*/").tunnels = 2
    return WorkerStats(
        slot=slot,
        pid=slot + 100,
        uptime_seconds=50.0,
        resident_bytes=1000,
        connections=7,
        connections_by_protocol={HttpProtocol.HTTP_3: 7},
        requests_active=3,
        connections_total=20 * times,
        requests_total=30 * times,
        handshakes_completed=19 * times,
        bytes_sent=1000 * times,
        datagrams_dropped={"dropped_garbage": times},
        redirects={"308": times},
        spans_dropped=times,
        metrics=metrics,
        upstreams={
            "app": UpstreamState(Circuit.OPEN, circuit_opened=times, hedges={"won": 2 * times})
        },
        discoveries={"app": [DiscoveryStats("app.test", 3, 5.0, 4 * times, times, "none")]},
    )


def status(*workers: WorkerStats, ended: Totals | None = None) -> Status:
    return Status(
        version="1", state=EdgeState.RUNNING, pid=1, uptime_seconds=1.0, config_path=None,
        core=Core.PURE, reloads=0, last_reload_error=None, connections=0, listeners=[],
        workers=[
            WorkerStatus(slot=stats.slot, state=WorkerState.READY, pid=1, restarts=0,
                         uptime_seconds=1.0, stats=stats)
            for stats in workers
        ],
        ended=ended or Totals(), spans=SpanCounts(0, {}),
    )  # fmt: skip


def scraped(of: Status) -> tuple[Series, Series]:
    """Counters, and gauges."""
    counters: Series = {}
    gauges: Series = {}
    for family in text_string_to_metric_families(render(of).decode()):
        kind = gauges if family.type == "gauge" else counters
        for sample in family.samples:
            kind[sample.name, frozenset(sample.labels.items())] = sample.value
    return counters, gauges


OWN = ("quicedge_reloads_total", "quicedge_worker_restarts_total", "quicedge_spans_exported_total")
"""Not counted by workers."""


def test_every_counter_is_the_same_before_and_after_the_end_of_a_worker() -> None:
    stays, ends = worked(0), worked(1)
    before, _ = scraped(status(stays, ends))
    after, gauges = scraped(status(stays, ended=Totals().with_worker(ends)))
    assert {key: value for key, value in before.items() if key[0] not in OWN} == {
        key: value for key, value in after.items() if key[0] not in OWN
    }
    without, _ = scraped(status(stays))
    lower = {name for (name, labels), value in without.items() if value < before[name, labels]}
    assert {
        "quicedge_route_requests_total", "quicedge_route_duration_seconds_bucket",
        "quicedge_upstream_errors_total", "quicedge_upstream_look_ups_total",
        "quicedge_upstream_hedges_total", "quicedge_upstream_circuit_opened_total",
        "quicedge_listener_handshakes_total", "quicedge_tls_key_exchanges_total",
        "quicedge_filter_calls_total", "quicedge_spans_dropped_total",
        "quicedge_mirror_compared_total", "quicedge_split_requests_total",
    } <= lower, "what would have gone down"  # fmt: skip
    assert gauges == scraped(status(stays))[1], "what a worker has now ends with it"


def test_a_slot_counts_on_with_its_next_worker_and_reasons_of_both() -> None:
    ended = Totals().with_worker(worked(1, times=2))
    after = msgspec.structs.replace(worked(1), datagrams_dropped={"dropped_other": 5})
    counters, gauges = scraped(status(after, ended=ended))
    one = frozenset({("worker", "1")})
    assert counters["quicedge_requests_total", one] == 90
    assert gauges["quicedge_requests_active", one] == 3
    dropped = {
        dict(labels)["reason"]: value
        for (name, labels), value in counters.items()
        if name == "quicedge_datagrams_dropped_total" and ("worker", "1") in labels
    }
    assert dropped == {"dropped_garbage": 2, "dropped_other": 5}


def test_series_of_the_workers_to_come_exist_at_zero() -> None:
    counters, gauges = scraped(status(worked(0), worked(65)))
    requests = {
        dict(labels)["worker"]: value
        for (name, labels), value in counters.items()
        if name == "quicedge_requests_total"
    }
    assert requests == {"0": 30, "64": 0, "1": 0, "65": 30}
    assert counters[
        "quicedge_datagrams_dropped_total",
        frozenset({("worker", "64"), ("reason", "dropped_garbage")}),
    ] == 0  # fmt: skip
    assert ("quicedge_connections_open", frozenset({("worker", "64")})) not in gauges


def test_the_admin_api_counts_upstreams_over_workers_that_have_ended() -> None:
    ended = Totals().with_worker(worked(1))
    found = upstreams_of([worked(0)], ended)["app"]
    assert (found.requests, found.errors) == (2, {"connect": 2})
    assert (found.circuits, found.circuit_opened, found.hedges) == ({"open": 1}, 2, {"won": 4})
    (discovery,) = found.discoveries
    assert (discovery.look_ups, discovery.failures, discovery.workers_failing) == (8, 2, 1)


def test_what_is_configured_no_more_is_forgotten() -> None:
    config = Config(
        upstreams={"new": Upstream(servers=["http://a"])},
        routes=[Route(upstream="new", path="/new")],
    )
    totals = Totals().with_worker(worked(0)).of_series(series_names(config, ["[::1]:443"]))
    assert not totals.metrics.listeners
    assert (totals.metrics.routes, totals.metrics.upstreams, totals.metrics.mirrors) == ({}, {}, {})
    assert (totals.metrics.filters, totals.upstreams, totals.discoveries) == ({}, {}, {})
    assert totals.slots[0].requests_total == 30
    config = Config(
        upstreams={"app": Upstream(servers=["http://a"])}, routes=[Route(upstream="app")]
    )
    kept = Totals().with_worker(worked(0)).of_series(series_names(config, ["127.0.0.1:443"]))
    assert list(kept.metrics.listeners) == ["quic 127.0.0.1:443"]
    assert list(kept.metrics.routes) == ["*/"]
    assert list(kept.upstreams) == ["app"]


@dataclass
class Workers:
    """Keep the copies that they are given."""

    copies: list[bytes] = field(default_factory=list)

    async def keep(self, copy: bytes) -> None:
        self.copies.append(copy)


async def test_workers_get_one_copy_when_several_end_together() -> None:
    workers = Workers()
    tally = Tally(workers.keep)
    tally.worker_ended(worked(0))
    tally.worker_ended(worked(1))
    await tally.settle()
    await tally.settle()
    (copy,) = workers.copies
    assert msgspec.msgpack.decode(copy, type=Totals) == tally.totals
    assert tally.totals.workers == 2
    tally.close()


async def test_a_supervisor_goes_on_from_the_latest_copy() -> None:
    workers = Workers()
    first = Tally(workers.keep)
    for slot in (0, 1):
        first.worker_ended(worked(slot))
        await first.settle()
    second = Tally(workers.keep)
    second.worker_ended(worked(2))
    second.inherit([workers.copies[1], b"", workers.copies[0]])
    assert second.totals.workers == 3
    assert second.totals.metrics.routes["*/"].statuses["502"] == 3
    await second.settle()
    assert len(workers.copies) == 3, "its own workers get what it has inherited"
    first.close()
    second.close()


@pytest.mark.parametrize(
    "copy",
    [
        b"\xc1",
        msgspec.msgpack.encode({"slots": "none"}),
        msgspec.msgpack.encode(
            json.loads(msgspec.json.encode(Totals().with_worker(worked(0))).replace(
                b'"counts":[', b'"counts":[1,'
            ))
        ),
    ],
    ids=["no message", "of another shape", "with other buckets"],
)  # fmt: skip
async def test_a_copy_of_another_program_begins_at_zero(copy: bytes) -> None:
    tally = Tally(Workers().keep)
    tally.worker_ended(worked(1))
    tally.inherit([copy])
    assert tally.totals == Totals().with_worker(worked(1))
    tally.close()


@settings(max_examples=20)
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=6), st.randoms())
def test_sums_of_seconds_are_the_same_in_whatever_order_workers_end(
    seconds: list[float], random: Random
) -> None:
    workers = []
    for slot, each in enumerate(seconds):
        workers.append(worked(slot))
        workers[-1].metrics.routes["*/"].duration.sum = each
        workers[-1].metrics.filters["app:Filter"].seconds = each

    def shown(ended: Totals, running: list[WorkerStats]) -> list[float]:
        counters, _ = scraped(status(*running, ended=ended))
        return [
            counters["quicedge_route_duration_seconds_sum", frozenset({("route", "*/")})],
            counters["quicedge_filter_blocking_seconds_total",
                     frozenset({("filter", "app:Filter")})],
        ]  # fmt: skip

    before, ended = shown(Totals(), workers), Totals()
    random.shuffle(workers)
    while workers:
        ended = ended.with_worker(workers.pop())
        assert shown(ended, workers) == before
