"""`/metrics`: the workers' counters in the Prometheus text format, one time series per worker.

Counters go on when a worker ends: its successor in the same slot counts on, and sums over workers
never go down. There are no series per connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from quicedge.acme.failure import Cause
from quicedge.acme.status import AcmeStatus
from quicedge.admin.counted import all_metrics, counted_by_slot
from quicedge.admin.families import families, servers_up
from quicedge.admin.upstreams import discovery_families, state_families
from quicedge.admin.view import AltSvcStatus, EdgeState, FleetStatus, Status
from quicedge.proxy.alt_svc import Advertising
from quicedge.telemetry.protocols import HttpProtocol
from quicedge.telemetry.spans import SpanCounts
from quicedge.telemetry.stats import WorkerStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS = {
    "connections_total": ("quicedge_connections", "Connections accepted."),
    "requests_total": ("quicedge_requests", "Requests received."),
    "retries_sent": ("quicedge_retries", "Retry packets sent."),
    "version_negotiations_sent": (
        "quicedge_version_negotiations", "Version Negotiation packets sent.",
    ),
    "stateless_resets_sent": ("quicedge_stateless_resets", "Stateless resets sent."),
    "datagrams_received": ("quicedge_datagrams_received", "UDP datagrams received."),
    "datagrams_sent": ("quicedge_datagrams_sent", "UDP datagrams sent."),
    "datagrams_forwarded": (
        "quicedge_datagrams_forwarded", "Datagrams forwarded to the worker they belong to.",
    ),
    "bytes_received": ("quicedge_received_bytes", "UDP payload received."),
    "bytes_sent": ("quicedge_sent_bytes", "UDP payload sent."),
    "trace_writes_dropped": (
        "quicedge_qlog_writes_dropped", "Writes of qlog events dropped because of a slow disk.",
    ),
    "live_writes_dropped": (
        "quicedge_qlog_live_writes_dropped",
        "Writes of qlog events that followers of live connections did not read in time.",
    ),
    "log_lines_dropped": ("quicedge_log_lines_dropped", "Log records lost to a slow disk."),
}  # fmt: skip

_GAUGES = {
    "connections": (
        "quicedge_connections_open",
        "Open connections, including handshakes.",
    ),
    "handshakes_open": ("quicedge_handshakes_open", "Handshakes in progress."),
    "requests_active": ("quicedge_requests_active", "Requests in progress."),
    "traces_running": ("quicedge_qlog_traces", "qlog traces being written."),
    "resident_bytes": ("quicedge_worker_resident_bytes", "Maximum resident memory."),
    "uptime_seconds": ("quicedge_worker_uptime_seconds", "Seconds since the worker started."),
}


class _Collector:
    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        ended = self._status.ended
        workers = [item.stats for item in self._status.workers if item.stats is not None]
        counted = counted_by_slot(workers, ended)
        for field, (name, text) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=["worker"])
            for stats in counted:
                counter.add_metric([str(stats.slot)], getattr(stats, field))
            yield counter
        for field, (name, text) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=["worker"])
            for stats in workers:
                gauge.add_metric([str(stats.slot)], getattr(stats, field))
            yield gauge
        yield _open_by_protocol(workers)
        yield from _alt_svc(self._status.alt_svc)
        yield _handshakes(counted)
        yield _by_reason(
            counted,
            "quicedge_datagrams_dropped",
            "Datagrams discarded, by reason.",
            lambda stats: stats.datagrams_dropped,
        )
        yield _by_reason(
            counted,
            "quicedge_tcp_connections_refused",
            "TCP connections refused before TLS, by reason.",
            lambda stats: stats.tcp_refused,
        )
        yield _by_reason(
            counted,
            "quicedge_tcp_handshakes_failed",
            "TCP connections that ended before a session began, by reason.",
            lambda stats: stats.tcp_failed,
        )
        yield from _fleet(self._status.fleet, counted)
        yield _redirects(counted)
        yield _by_reason(
            counted,
            "quicedge_requests_refused",
            "Requests refused and streams ended by a limit, by reason.",
            lambda stats: stats.requests_refused,
        )
        yield _by_reason(
            counted,
            "quicedge_early_data",
            "Connections with requests in 0-RTT data, by the verdict on their ticket.",
            lambda stats: stats.early_data,
        )
        yield from families(all_metrics(self._status))
        yield servers_up(workers)
        yield from discovery_families(workers, ended)
        yield from state_families(workers, ended)
        yield from _spans(self._status.spans, counted)
        yield self._restarts()
        yield from self._configuration()
        yield GaugeMetricFamily(
            "quicedge_up", "Whether the edge is running.", self._status.state is EdgeState.RUNNING
        )

    def _configuration(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "quicedge_reloads",
            "Successful reloads of the configuration.",
            self._status.reloads,
        )
        yield GaugeMetricFamily(
            "quicedge_last_reload_successful",
            "Whether the last reload succeeded; 1 before the first.",
            self._status.last_reload_error is None,
        )
        if self._status.acme is not None:
            yield from _acme(self._status.acme)
        expires = GaugeMetricFamily(
            "quicedge_certificate_expires_timestamp_seconds",
            "When a served certificate, or one of its chain, expires, in seconds since the epoch.",
            labels=["certificate"],
        )
        for certificate in self._status.certificates:
            expires.add_metric([certificate.file], certificate.not_after)
        yield expires

    def _restarts(self) -> Metric:
        restarts = CounterMetricFamily(
            "quicedge_worker_restarts", "Workers that died and were replaced.", labels=["worker"]
        )
        for worker in self._status.workers:
            restarts.add_metric([str(worker.slot)], worker.restarts)
        return restarts


def _handshakes(workers: list[WorkerStats]) -> Metric:
    family = CounterMetricFamily(
        "quicedge_handshakes", "Handshakes that ended, by outcome.", labels=["worker", "outcome"]
    )
    for stats in workers:
        family.add_metric([str(stats.slot), "completed"], stats.handshakes_completed)
        family.add_metric([str(stats.slot), "failed"], stats.handshakes_failed)
    return family


def _redirects(workers: list[WorkerStats]) -> Metric:
    family = CounterMetricFamily(
        "quicedge_redirects", "Responses of port 80, by status.", labels=["worker", "status"]
    )
    for stats in workers:
        for status, count in stats.redirects.items():
            family.add_metric([str(stats.slot), status], count)
    return family


def _open_by_protocol(workers: list[WorkerStats]) -> Metric:
    family = GaugeMetricFamily(
        "quicedge_protocol_connections_open", "Open connections.", labels=["protocol"]
    )
    for protocol in HttpProtocol:
        count = sum(stats.connections_by_protocol.get(protocol, 0) for stats in workers)
        family.add_metric([protocol.value], count)
    return family


def _alt_svc(listeners: list[AltSvcStatus]) -> Iterator[Metric]:
    """Whether HTTP/3 is advertised to clients on TCP, and whether they arrive."""
    advertised = GaugeMetricFamily(
        "quicedge_alt_svc_advertised",
        "Whether HTTP/3 is advertised to clients: 1, or 0 when it is withdrawn.",
        labels=["listener"],
    )
    clients = CounterMetricFamily(
        "quicedge_alt_svc_clients",
        "Clients that HTTP/3 was advertised to, and those that arrived or did not.",
        labels=["listener", "result"],
    )
    withdrawals = CounterMetricFamily(
        "quicedge_alt_svc_withdrawals", "Withdrawals of HTTP/3.", labels=["listener"]
    )
    for each in listeners:
        advertised.add_metric([each.listener], each.state is Advertising.ON)
        for result in ("advertised", "arrived", "missed"):
            clients.add_metric([each.listener, result], getattr(each, result))
        withdrawals.add_metric([each.listener], each.withdrawals)
    yield from (advertised, clients, withdrawals)


def _acme(status: AcmeStatus) -> Iterator[Metric]:
    """Certificates by ACME: what alerts are made of."""
    failing = GaugeMetricFamily(
        "quicedge_acme_failing_since_timestamp_seconds",
        "Since when no certificate could be ordered for a host, in seconds since the epoch; only "
        "hosts for which that is so.",
        labels=["host"],
    )
    renewal = GaugeMetricFamily(
        "quicedge_acme_renewal_timestamp_seconds",
        "When the certificate of a host is due for renewal, in seconds since the epoch.",
        labels=["host"],
    )
    for one in status.hosts:
        if one.failing_since is not None:
            failing.add_metric([one.host], one.failing_since)
        if one.renew_at is not None:
            renewal.add_metric([one.host], one.renew_at)
    orders = CounterMetricFamily(
        "quicedge_acme_orders", "Orders of certificates that ended, by result.", labels=["result"]
    )
    for result in ("issued", *(cause.value for cause in Cause)):
        orders.add_metric([result], status.orders.get(result, 0))
    yield from (failing, renewal, orders)


def _spans(counts: SpanCounts | None, workers: list[WorkerStats]) -> Iterator[Metric]:
    """Span counters of the whole edge: the parent exports the spans of all workers."""
    if counts is None:
        return
    yield CounterMetricFamily(
        "quicedge_spans_exported", "Spans accepted by the collector.", counts.exported
    )
    dropped = {**counts.dropped, "worker": sum(stats.spans_dropped for stats in workers)}
    family = CounterMetricFamily(
        "quicedge_spans_dropped", "Spans dropped, by reason.", labels=["reason"]
    )
    for reason, count in sorted(dropped.items()):
        family.add_metric([reason], count)
    yield family


def _by_reason(
    workers: list[WorkerStats],
    name: str,
    text: str,
    counts: Callable[[WorkerStats], dict[str, int]],
) -> Metric:
    family = CounterMetricFamily(name, text, labels=["worker", "reason"])
    for stats in workers:
        for reason, count in sorted(counts(stats).items()):
            family.add_metric([str(stats.slot), reason], count)
    return family


def _fleet(status: FleetStatus | None, workers: list[WorkerStats]) -> Iterator[Metric]:
    if status is None:
        return
    peers = GaugeMetricFamily(
        "quicedge_fleet_peers", "Other hosts of the fleet, by state.", labels=["state"]
    )
    others = [peer for peer in status.peers if not peer.this_host]
    up = sum(peer.up for peer in others)
    peers.add_metric(["up"], up)
    peers.add_metric(["down"], len(others) - up)
    yield peers
    messages = CounterMetricFamily(
        "quicedge_fleet_messages",
        "Messages between hosts of the fleet, by what became of them.",
        labels=["worker", "outcome"],
    )
    for stats in workers:
        for name, count in sorted(stats.fleet_messages.items()):
            messages.add_metric([str(stats.slot), name.removeprefix("fleet_")], count)
    yield messages


def render(status: Status) -> bytes:
    """Render one scrape."""
    registry = CollectorRegistry()
    registry.register(_Collector(status))
    return generate_latest(registry)
