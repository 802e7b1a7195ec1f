"""Counters and histograms by route, upstream and listener, exported by `/metrics`.

Each worker has its own and sends snapshots; nothing is kept per request or connection. The number
of series depends only on the configuration and the constants below.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping

from msgspec import Struct, field

from quicedge.config.limits import ROUTES_FROM_ZERO
from quicedge.telemetry.mirrors import MirrorMetrics
from quicedge.telemetry.outcomes import ORIGIN_FAILURES, Outcome
from quicedge.telemetry.protocols import HttpProtocol, TransportKind

DURATIONS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Bucket bounds of durations, in seconds."""
RTTS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 3.0)
"""Bucket bounds of round-trip times, in seconds."""
AGES = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
"""Bucket bounds of connection ages, in seconds."""
WINDOWS = tuple(float(4096 << 2 * power) for power in range(8))
"""Bucket bounds of congestion windows, in bytes: 4 KB to 64 MB."""
RATIOS = (0.0, 0.0001, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
"""Bucket bounds of loss ratios."""

USUAL_STATUSES = (
    "200", "204", "206", "301", "302", "304", "400", "401", "403", "404", "408", "413", "414",
    "421", "429", "431", "500", "501", "502", "503", "504", "none",
)  # fmt: skip
"""Status codes whose series exist from the start: the edge's own and the most common ones."""

CONNECTION_HISTOGRAMS = {
    "age_seconds": AGES,
    "handshake_seconds": DURATIONS,
    "smoothed_rtt_seconds": RTTS,
    "min_rtt_seconds": RTTS,
    "congestion_window_bytes": WINDOWS,
    "loss_ratio": RATIOS,
}
"""Observed when a connection ends."""


class Histogram(Struct):
    """Observations by upper bound; the last count is for those above all bounds."""

    counts: list[int]
    sum: float = 0.0

    @classmethod
    def over(cls, bounds: tuple[float, ...]) -> Histogram:
        return cls([0] * (len(bounds) + 1))

    def observe(self, value: float, bounds: tuple[float, ...]) -> None:
        self.counts[bisect_left(bounds, value)] += 1
        self.sum += value


STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "none")


class SideMetrics(Struct):
    """Exchanges of one route with one of the upstreams that share its traffic."""

    statuses: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUS_CLASSES, 0))
    """By class; `none` when the client left before there was one."""

    def count(self, status: int) -> None:
        """An exchange has ended; `status` is 0 when there was none."""
        known = 100 <= status <= 599
        self.statuses[STATUS_CLASSES[status // 100 - 1] if known else "none"] += 1


class RouteMetrics(Struct):
    """Exchanges of one route."""

    statuses: dict[str, int] = field(default_factory=lambda: dict.fromkeys(USUAL_STATUSES, 0))
    """By status code; `none` when the client left before there was one."""
    outcomes: dict[str, int] = field(
        default_factory=lambda: {outcome.value: 0 for outcome in Outcome}
    )
    bytes_received: int = 0
    bytes_sent: int = 0
    """Content that clients acknowledged."""
    duration: Histogram = field(default_factory=lambda: Histogram.over(DURATIONS))
    """From the request head until the last byte of the response was acknowledged; not of tunnels,
    which last as long as their peers like."""
    tunnels: int = 0
    """Tunnels that are open now, or requested."""
    tunnels_ended: int = 0
    sides: dict[str, SideMetrics] = field(default_factory=dict)
    """By upstream, if several share the traffic."""

    def side(self, upstream: str) -> SideMetrics:
        """The metrics of one of its upstreams, created on first use."""
        found = self.sides.get(upstream)
        if found is None:
            found = self.sides[upstream] = SideMetrics()
        return found

    def keep_sides(self, upstreams: Collection[str]) -> None:
        """Keep these only, created if new."""
        self.sides = {name: self.side(name) for name in upstreams}


class UpstreamMetrics(Struct):
    """Exchanges with one upstream."""

    requests: int = 0
    errors: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ORIGIN_FAILURES, 0))
    """By kind: `connect`, `timeout`, `reset` and so on."""
    first_byte: Histogram = field(default_factory=lambda: Histogram.over(DURATIONS))


class ListenerMetrics(Struct):
    """Connections to one listening address over one transport."""

    address: str
    transport: TransportKind
    handshakes: dict[str, int] = field(default_factory=lambda: {"completed": 0, "failed": 0})
    """By outcome: `completed`, `failed`."""
    ended: dict[str, Histogram] = field(
        default_factory=lambda: {
            name: Histogram.over(bounds) for name, bounds in CONNECTION_HISTOGRAMS.items()
        }
    )


class TlsMetrics(Struct):
    """What TLS handshakes over one transport negotiated."""

    groups: dict[str, int] = field(default_factory=dict)
    """Completed handshakes by key exchange group."""
    certificates: dict[str, int] = field(default_factory=dict)
    """Completed handshakes by the compression of our certificate: `none`, or the algorithm."""
    hello_retries: int = 0
    """HelloRetryRequests sent."""
    client_certificates: dict[str, int] = field(default_factory=dict)
    """Handshakes on hosts that ask clients for certificates, by verdict
    (`client_auth.verdict`)."""

    def client_certificate(self, verdict: str) -> None:
        """Record what became of a client that was asked for a certificate."""
        self.client_certificates[verdict] = self.client_certificates.get(verdict, 0) + 1

    def handshake(self, group: str | None, compression: str | None, *, retried: bool) -> None:
        """Record a completed handshake; None: it exchanged no key in a group, or sent no
        certificate, or there is no telling. `retried`: after a HelloRetryRequest."""
        self.hello_retries += retried
        if group is not None:
            self.groups[group] = self.groups.get(group, 0) + 1
        if compression is not None:
            self.certificates[compression] = self.certificates.get(compression, 0) + 1


PROTOCOL_HISTOGRAMS = {
    "smoothed_rtt_seconds": RTTS,
    "handshake_seconds": DURATIONS,
    "first_byte_seconds": DURATIONS,
    "loss_ratio": RATIOS,
}
"""Observed when a connection ends, the same for QUIC and TCP."""


class ProtocolMetrics(Struct):
    """Requests and ended connections of one HTTP version."""

    requests: int = 0
    connections: int = 0
    """Connections that ended after a complete handshake."""
    ended: dict[str, Histogram] = field(
        default_factory=lambda: {
            name: Histogram.over(bounds) for name, bounds in PROTOCOL_HISTOGRAMS.items()
        }
    )


class FilterMetrics(Struct):
    """Of a filter written in Python; `seconds` is the time for which it held the event loop."""

    calls: int = 0
    failures: int = 0
    seconds: float = 0.0
    waited_seconds: float = 0.0
    """In coroutines, waiting included."""


class Metrics(Struct):
    """All metrics of a worker."""

    routes: dict[str, RouteMetrics] = field(default_factory=dict)
    upstreams: dict[str, UpstreamMetrics] = field(default_factory=dict)
    mirrors: dict[str, MirrorMetrics] = field(default_factory=dict)
    """By the upstream that gets copies."""
    filters: dict[str, FilterMetrics] = field(default_factory=dict)
    """Of filters written in Python, by class."""
    listeners: dict[str, ListenerMetrics] = field(default_factory=dict)
    """By `listener_key`."""
    protocols: dict[HttpProtocol, ProtocolMetrics] = field(
        default_factory=lambda: {protocol: ProtocolMetrics() for protocol in HttpProtocol}
    )
    tls: dict[TransportKind, TlsMetrics] = field(
        default_factory=lambda: {transport: TlsMetrics() for transport in TransportKind}
    )

    def route(self, name: str) -> RouteMetrics:
        """The metrics of a route, created on first use."""
        found = self.routes.get(name)
        if found is None:
            found = self.routes[name] = RouteMetrics()
        return found

    def upstream(self, name: str) -> UpstreamMetrics:
        """The metrics of an upstream, created on first use."""
        found = self.upstreams.get(name)
        if found is None:
            found = self.upstreams[name] = UpstreamMetrics()
        return found

    def mirror(self, upstream: str) -> MirrorMetrics:
        """The metrics of an upstream that gets copies of requests, created on first use."""
        found = self.mirrors.get(upstream)
        if found is None:
            found = self.mirrors[upstream] = MirrorMetrics()
        return found

    def filter(self, name: str) -> FilterMetrics:
        """The metrics of a filter, created on first use."""
        found = self.filters.get(name)
        if found is None:
            found = self.filters[name] = FilterMetrics()
        return found

    def listener(self, address: str, transport: TransportKind) -> ListenerMetrics:
        """The metrics of a listening address, created on first use."""
        key = listener_key(address, transport)
        found = self.listeners.get(key)
        if found is None:
            found = self.listeners[key] = ListenerMetrics(address, transport)
        return found

    def keep(
        self, routes: Collection[str], upstreams: Collection[str], filters: Collection[str]
    ) -> None:
        """Keep these routes, upstreams and filters only, created if new; repeated reloads with new
        names would otherwise add series without bound. Of more than ROUTES_FROM_ZERO routes, each
        is created with its first request."""
        self.filters = {name: self.filter(name) for name in filters}
        self.mirrors = {name: self.mirrors[name] for name in self.mirrors if name in upstreams}
        if len(routes) > ROUTES_FROM_ZERO:
            routes = [name for name in routes if name in self.routes]
        self.routes = {name: self.route(name) for name in routes}
        self.upstreams = {name: self.upstream(name) for name in upstreams}

    def exchange(
        self,
        *,
        route: str,
        upstream: str | None,
        protocol: HttpProtocol,
        status: int,
        outcome: Outcome,
        bytes_received: int,
        bytes_sent: int,
        seconds: float,
        first_byte_seconds: float | None,
        tunnel: bool = False,
    ) -> None:
        """Record an exchange that has ended; `status` is 0 when there was none."""
        self.protocols[protocol].requests += 1
        found = self.routes.get(route) or self.route(route)
        # Origins choose status codes; three digits bound the number of series.
        code = str(status) if 100 <= status <= 999 else "none"
        found.statuses[code] = found.statuses.get(code, 0) + 1
        found.outcomes[outcome] += 1
        found.bytes_received += bytes_received
        found.bytes_sent += bytes_sent
        if tunnel:
            found.tunnels_ended += 1
        else:
            found.duration.observe(seconds, DURATIONS)
        if upstream is None:
            return
        of_upstream = self.upstreams.get(upstream) or self.upstream(upstream)
        of_upstream.requests += 1
        if outcome is not Outcome.COMPLETE and (kind := outcome.origin_failure):
            of_upstream.errors[kind] += 1
        if first_byte_seconds is not None:
            of_upstream.first_byte.observe(first_byte_seconds, DURATIONS)

    def connection(
        self,
        listener: ListenerMetrics,
        *,
        protocol: HttpProtocol | None,
        observed: Mapping[str, float],
    ) -> None:
        """Record a connection that has ended; `observed` has the known `CONNECTION_HISTOGRAMS` and
        `PROTOCOL_HISTOGRAMS`. `protocol`: None when the handshake was never complete."""
        listener.handshakes["failed" if protocol is None else "completed"] += 1
        _observe_all(listener.ended, observed, CONNECTION_HISTOGRAMS)
        if protocol is not None:
            found = self.protocols[protocol]
            found.connections += 1
            _observe_all(found.ended, observed, PROTOCOL_HISTOGRAMS)


def _observe_all(
    histograms: Mapping[str, Histogram],
    observed: Mapping[str, float],
    bounds: Mapping[str, tuple[float, ...]],
) -> None:
    for name, value in observed.items():
        if name in bounds:
            histograms[name].observe(value, bounds[name])


def listener_key(address: str, transport: TransportKind) -> str:
    return f"{transport} {address}"
