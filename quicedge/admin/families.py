"""Metric families by route, upstream and listener, summed over all workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from quicedge.telemetry.metrics import (
    CONNECTION_HISTOGRAMS,
    DURATIONS,
    PROTOCOL_HISTOGRAMS,
    Histogram,
    Metrics,
)
from quicedge.telemetry.mirrors import MirrorMetrics
from quicedge.telemetry.stats import WorkerStats
from quicedge.telemetry.sums import exact

_ENDED = {
    "age_seconds": "Age of connections that ended.",
    "handshake_seconds": "Time to a complete handshake.",
    "smoothed_rtt_seconds": "Smoothed RTT of connections that ended.",
    "min_rtt_seconds": "Minimum RTT of connections that ended.",
    "congestion_window_bytes": "Congestion window of connections that ended.",
    "loss_ratio": "Share of packets lost on connections that ended.",
}


_BY_PROTOCOL = {
    "smoothed_rtt_seconds": "Smoothed RTT of connections that ended.",
    "handshake_seconds": "From the first packet to a complete handshake.",
    "first_byte_seconds": "From the first packet to the first response of an origin.",
    "loss_ratio": "Share of packets lost, or of segments retransmitted.",
}


def families(workers: Iterable[Metrics]) -> Iterator[Metric]:
    """One time series per route, upstream or listener, summed over the workers and those that have
    ended."""
    workers = list(workers)
    yield from _routes(workers)
    yield from _upstreams(workers)
    yield from _filters(workers)
    yield from _mirrors(workers)
    yield from _listeners(workers)
    yield from _protocols(workers)
    yield from _tls(workers)


def counter(name: str, text: str, labels: list[str], counts: Counter[tuple[str, ...]]) -> Metric:
    """A family of counters; `counts` by the values of their labels."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in sorted(counts.items()):
        family.add_metric(list(values), count)
    return family


def _histogram(
    name: str,
    text: str,
    labels: list[str],
    bounds: tuple[float, ...],
    found: Iterable[tuple[tuple[str, ...], Histogram]],
) -> Metric:
    sums: dict[tuple[str, ...], Histogram] = {}
    for values, histogram in found:
        total = sums.setdefault(values, Histogram.over(bounds))
        total.counts = [a + b for a, b in zip(total.counts, histogram.counts, strict=True)]
        total.sum += exact(histogram.sum)
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, total in sorted(sums.items(), key=lambda item: item[0]):
        buckets, running = [], 0
        for bound, count in zip((*map(str, bounds), "+Inf"), total.counts, strict=True):
            running += count
            buckets.append((bound, float(running)))
        family.add_metric(list(values), buckets, total.sum)
    return family


def _routes(workers: list[Metrics]) -> Iterator[Metric]:
    statuses: Counter[tuple[str, ...]] = Counter()
    outcomes: Counter[tuple[str, ...]] = Counter()
    received: Counter[tuple[str, ...]] = Counter()
    sent: Counter[tuple[str, ...]] = Counter()
    tunnels: Counter[str] = Counter()
    tunnels_ended: Counter[tuple[str, ...]] = Counter()
    sides: Counter[tuple[str, ...]] = Counter()
    routes = [item for worker in workers for item in worker.routes.items()]
    for name, route in routes:
        for status, count in route.statuses.items():
            statuses[name, status] += count
        for outcome, count in route.outcomes.items():
            outcomes[name, outcome] += count
        received[(name,)] += route.bytes_received
        sent[(name,)] += route.bytes_sent
        tunnels[name] += route.tunnels
        tunnels_ended[(name,)] += route.tunnels_ended
        for upstream, side in route.sides.items():
            for status, count in side.statuses.items():
                sides[name, upstream, status] += count
    yield counter(
        "quicedge_route_requests", "Requests answered, by status.", ["route", "status"], statuses
    )
    yield counter(
        "quicedge_route_outcomes", "Requests, by outcome.", ["route", "outcome"], outcomes
    )
    yield counter("quicedge_route_request_bytes", "Request content.", ["route"], received)
    yield counter(
        "quicedge_route_response_bytes", "Response content that clients acknowledged.",
        ["route"], sent,
    )  # fmt: skip
    yield _histogram(
        "quicedge_route_duration_seconds",
        "From the request head to the acknowledgment of the last byte of the response.",
        ["route"], DURATIONS, (((name,), route.duration) for name, route in routes),
    )  # fmt: skip
    open_tunnels = GaugeMetricFamily(
        "quicedge_route_tunnels", "Tunnels (WebSockets) now.", labels=["route"]
    )
    for name, count in tunnels.items():
        open_tunnels.add_metric([name], count)
    yield open_tunnels
    yield counter(
        "quicedge_route_tunnels_ended", "Tunnels that have ended.", ["route"], tunnels_ended
    )
    yield counter(
        "quicedge_split_requests",
        "Requests of routes with several upstreams, by class of the status.",
        ["route", "upstream", "status"],
        sides,
    )


def _upstreams(workers: list[Metrics]) -> Iterator[Metric]:
    requests: Counter[tuple[str, ...]] = Counter()
    errors: Counter[tuple[str, ...]] = Counter()
    upstreams = [item for worker in workers for item in worker.upstreams.items()]
    for name, upstream in upstreams:
        requests[(name,)] += upstream.requests
        for kind, count in upstream.errors.items():
            errors[name, kind] += count
    yield counter("quicedge_upstream_requests", "Requests sent to it.", ["upstream"], requests)
    yield counter(
        "quicedge_upstream_errors",
        "Requests that failed there, by kind.",
        ["upstream", "kind"],
        errors,
    )
    yield _histogram(
        "quicedge_upstream_first_byte_seconds", "From the request head to the response head.",
        ["upstream"], DURATIONS,
        (((name,), upstream.first_byte) for name, upstream in upstreams),
    )  # fmt: skip


def _filters(workers: list[Metrics]) -> Iterator[Metric]:
    calls: Counter[tuple[str, ...]] = Counter()
    failures: Counter[tuple[str, ...]] = Counter()
    seconds: Counter[tuple[str, ...]] = Counter()
    waited: Counter[tuple[str, ...]] = Counter()
    for worker in workers:
        for name, item in worker.filters.items():
            calls[(name,)] += item.calls
            failures[(name,)] += item.failures
            seconds[(name,)] += exact(item.seconds)  # type: ignore[assignment]  # a float counter
            waited[(name,)] += exact(item.waited_seconds)  # type: ignore[assignment]
    yield counter("quicedge_filter_calls", "Calls of its phases.", ["filter"], calls)
    yield counter("quicedge_filter_failures", "Calls that failed.", ["filter"], failures)
    yield counter(
        "quicedge_filter_blocking_seconds",
        "Time for which it held the event loops of workers: its share of all that they do.",
        ["filter"],
        seconds,
    )
    yield counter(
        "quicedge_filter_waiting_seconds", "Time that its coroutines took.", ["filter"], waited
    )


def mirrors_of(workers: Iterable[Metrics]) -> dict[str, MirrorMetrics]:
    """What mirrored requests have shown, over all workers, by upstream."""
    total: dict[str, MirrorMetrics] = {}
    for worker in workers:
        for name, item in worker.mirrors.items():
            total.setdefault(name, MirrorMetrics()).add(item)
    return total


def _mirrors(workers: list[Metrics]) -> Iterator[Metric]:
    results: Counter[tuple[str, ...]] = Counter()
    seconds: Counter[tuple[str, ...]] = Counter()
    compared: Counter[tuple[str, ...]] = Counter()
    for name, item in mirrors_of(workers).items():
        for result, count in item.results.items():
            results[name, result] += count
        compared[(name,)] += item.compared
        seconds[name, "original"] += item.seconds  # type: ignore[assignment]  # a float counter
        seconds[name, "mirror"] += item.mirror_seconds  # type: ignore[assignment]
    yield counter(
        "quicedge_mirror_requests",
        "Requests to be copied, by what became of the copy.",
        ["upstream", "result"],
        results,
    )
    yield counter(
        "quicedge_mirror_compared", "Pairs of responses compared.", ["upstream"], compared
    )
    yield counter(
        "quicedge_mirror_first_byte_seconds",
        "Time until compared responses began, in total.",
        ["upstream", "side"],
        seconds,
    )


def servers_up(workers: list[WorkerStats]) -> Metric:
    """Which origin servers each worker considers available."""
    family = GaugeMetricFamily(
        "quicedge_upstream_server_up", "Whether the server receives requests.",
        labels=["upstream", "server", "worker"],
    )  # fmt: skip
    for stats in workers:
        for upstream, servers in stats.servers.items():
            for server, values in servers.items():
                if "up" in values:  # static files have none
                    family.add_metric([upstream, server, str(stats.slot)], values["up"])
    return family


def _listeners(workers: list[Metrics]) -> Iterator[Metric]:
    handshakes: Counter[tuple[str, ...]] = Counter()
    listeners = [each for worker in workers for each in worker.listeners.values()]
    for listener in listeners:
        for outcome, count in listener.handshakes.items():
            handshakes[listener.address, listener.transport.value, outcome] += count
    yield counter(
        "quicedge_listener_handshakes", "Handshakes of connections that ended, by outcome.",
        ["listener", "transport", "outcome"], handshakes,
    )  # fmt: skip
    for key, text in _ENDED.items():
        yield _histogram(
            f"quicedge_connection_{key}", text, ["listener", "transport"],
            CONNECTION_HISTOGRAMS[key],
            (((each.address, each.transport.value), each.ended[key]) for each in listeners),
        )  # fmt: skip


def _protocols(workers: list[Metrics]) -> Iterator[Metric]:
    requests: Counter[tuple[str, ...]] = Counter()
    connections: Counter[tuple[str, ...]] = Counter()
    protocols = [item for worker in workers for item in worker.protocols.items()]
    for protocol, found in protocols:
        requests[(protocol.value,)] += found.requests
        connections[(protocol.value,)] += found.connections
    yield counter("quicedge_protocol_requests", "Requests answered.", ["protocol"], requests)
    yield counter(
        "quicedge_protocol_connections", "Connections that ended after a complete handshake.",
        ["protocol"], connections,
    )  # fmt: skip
    for key, text in _BY_PROTOCOL.items():
        yield _histogram(
            f"quicedge_protocol_{key}", text, ["protocol"], PROTOCOL_HISTOGRAMS[key],
            (((protocol.value,), found.ended[key]) for protocol, found in protocols),
        )  # fmt: skip


def _tls(workers: list[Metrics]) -> Iterator[Metric]:
    groups: Counter[tuple[str, ...]] = Counter()
    certificates: Counter[tuple[str, ...]] = Counter()
    verdicts: Counter[tuple[str, ...]] = Counter()
    retries: Counter[tuple[str, ...]] = Counter()
    for worker in workers:
        for transport, found in worker.tls.items():
            for group, count in found.groups.items():
                groups[transport.value, group] += count
            for verdict, count in found.client_certificates.items():
                verdicts[transport.value, verdict] += count
            for compression, count in found.certificates.items():
                certificates[transport.value, compression] += count
            retries[(transport.value,)] += found.hello_retries
    yield counter(
        "quicedge_tls_key_exchanges", "Completed handshakes, by key exchange group.",
        ["transport", "group"], groups,
    )  # fmt: skip
    yield counter(
        "quicedge_tls_client_certificates",
        "Handshakes that asked the client for a certificate, by verdict.",
        ["transport", "verdict"], verdicts,
    )  # fmt: skip
    yield counter(
        "quicedge_tls_certificates_sent", "Certificates sent, by compression.",
        ["transport", "compression"], certificates,
    )  # fmt: skip
    yield counter(
        "quicedge_tls_hello_retry_requests", "HelloRetryRequests sent.", ["transport"], retries
    )
