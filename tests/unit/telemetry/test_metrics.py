"""Counts and distributions, and their exposition added up over workers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from quicedge.admin.metrics import render
from quicedge.admin.view import (
    AltSvcReason,
    AltSvcStatus,
    EdgeState,
    FleetStatus,
    PeerStatus,
    Status,
    WorkerState,
    WorkerStatus,
)
from quicedge.config.accessfields import ACCESS_FIELDS
from quicedge.config.limits import ROUTES_FROM_ZERO
from quicedge.config.schema import Config, Route, Upstream
from quicedge.http.errors import OriginFailure
from quicedge.native import Core
from quicedge.proxy.accounting import use_series
from quicedge.proxy.alt_svc import Advertising
from quicedge.proxy.policy import Policy
from quicedge.shares.connections import AdmissionReason
from quicedge.telemetry.access import AccessRecord
from quicedge.telemetry.metrics import (
    CONNECTION_HISTOGRAMS,
    DURATIONS,
    USUAL_STATUSES,
    Histogram,
    Metrics,
)
from quicedge.telemetry.outcomes import (
    DATAGRAM_DROPS,
    ORIGIN_FAILURES,
    Outcome,
    Refusal,
    from_zero,
)
from quicedge.telemetry.protocols import HttpProtocol, TransportKind
from quicedge.telemetry.stats import WorkerStats
from quicedge.telemetry.upstreams import Circuit, UpstreamState
from quicedge.udp.socket import SendFailure

ROOT = Path(__file__).resolve().parents[3]
DASHBOARD = ROOT / "deploy" / "grafana" / "quicedge.json"


def exchange(metrics: Metrics, **options: Any) -> None:
    metrics.exchange(
        **{
            "route": "*/", "upstream": "app", "protocol": HttpProtocol.HTTP_3,
            "status": 200, "outcome": Outcome.COMPLETE,
            "bytes_received": 10, "bytes_sent": 1000, "seconds": 0.02, "first_byte_seconds": 0.01,
            **options,
        }
    )  # fmt: skip


def exposition(
    *workers: Metrics,
    alt_svc: Sequence[AltSvcStatus] = (),
    open_connections: Mapping[HttpProtocol, int] = MappingProxyType({}),
    fleet: FleetStatus | None = None,
    upstreams: Mapping[str, UpstreamState] = MappingProxyType({}),
) -> dict[str, dict[tuple[str, ...], float]]:
    statuses = [
        WorkerStatus(slot=slot, state=WorkerState.READY, pid=1, restarts=0, uptime_seconds=1.0,
                     stats=WorkerStats(slot=slot, pid=1, metrics=metrics,
                                       connections_by_protocol=dict(open_connections),
                                       upstreams=dict(upstreams),
                                       fleet_messages={"fleet_forwarded": 3} if fleet else {}))
        for slot, metrics in enumerate(workers)
    ]  # fmt: skip
    text = render(
        Status(version="1", state=EdgeState.RUNNING, pid=1, uptime_seconds=1.0, config_path=None,
               core=Core.PURE, reloads=0, last_reload_error=None, connections=0, listeners=[],
               workers=statuses, alt_svc=list(alt_svc), fleet=fleet)
    ).decode()  # fmt: skip
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[
                tuple(value for _, value in sorted(sample.labels.items()))
            ] = sample.value
    return found


def seen(series: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """Those that have counted something."""
    return {labels: value for labels, value in series.items() if value}


def test_series_of_a_configuration_exist_at_zero_before_the_first_request() -> None:
    metrics = Metrics()
    config = Config(
        upstreams={"app": Upstream(servers=["http://a"])},
        routes=[Route(upstream="app", host="a.test", path="/x")],
    )
    use_series(metrics, config)
    metrics.listener("[::]:443", TransportKind.QUIC)
    shown = exposition(metrics)
    outcomes = shown["quicedge_route_outcomes_total"]
    assert outcomes == {(o.value, r): 0 for o in Outcome for r in ("a.test/x", "none")}
    errors = shown["quicedge_upstream_errors_total"]
    assert errors == {(kind, "app"): 0 for kind in ORIGIN_FAILURES}
    requests = shown["quicedge_route_requests_total"]
    assert requests == {(r, code): 0 for code in USUAL_STATUSES for r in ("a.test/x", "none")}
    assert shown["quicedge_upstream_requests_total"] == {("app",): 0}
    assert shown["quicedge_listener_handshakes_total"] == {
        ("[::]:443", "completed", "quic"): 0, ("[::]:443", "failed", "quic"): 0,
    }  # fmt: skip


async def test_refusals_are_counted_from_zero() -> None:
    policy = Policy(Config(), clock=lambda: 0.0)
    assert policy.counters == {reason.value: 0 for reason in Refusal}
    policy.close()


def test_every_reason_for_a_dropped_datagram_is_counted_from_zero() -> None:
    """The lists are those of the source."""
    source = "".join(path.read_text() for room in ("quic", "udp", "worker")
                     for path in (ROOT / "quicedge" / room).glob("*.py"))  # fmt: skip
    named = set(re.findall(r'"((?:\w+_)?dropped_\w+|forward_dropped)"', source))
    named |= {f"send_dropped_{reason}" for reason in SendFailure}
    others = {AdmissionReason.FLOOD, AdmissionReason.UNTRUSTED_PROXY}  # no datagrams of clients
    named |= {f"dropped_{reason}" for reason in set(AdmissionReason) - others}
    assert len(named) > 12
    assert named <= set(DATAGRAM_DROPS)
    assert from_zero(("a", "b"), {"b": 2, "c": 1}) == {"a": 0, "b": 2, "c": 1}


@pytest.mark.parametrize("kind", OriginFailure)
def test_every_failure_of_an_origin_has_an_outcome_and_a_status(kind: OriginFailure) -> None:
    outcome = Outcome.of_origin(kind)
    # Whom the client held up has not failed.
    assert outcome.origin_failure == (None if outcome is Outcome.STALLED else kind.value)
    # A stalled client's place was given away: that one is the client's doing.
    expected = (408,) if kind is OriginFailure.STALLED else (502, 503, 504)
    if kind is OriginFailure.NO_TUNNEL:
        expected = (501,)
    elif kind is OriginFailure.APPLICATION:
        expected = (500,)
    assert kind.status in expected


def test_exchanges_are_added_up_over_workers() -> None:
    first, second = Metrics(), Metrics()
    exchange(first)
    exchange(second, status=503, outcome=Outcome.ORIGIN_CONNECT, first_byte_seconds=None)
    exchange(second, upstream=None, route="none", status=404, outcome=Outcome.NO_ROUTE)
    shown = exposition(first, second)
    assert seen(shown["quicedge_route_requests_total"]) == {
        ("*/", "200"): 1, ("*/", "503"): 1, ("none", "404"): 1,
    }  # fmt: skip
    assert shown["quicedge_route_response_bytes_total"][("*/",)] == 2000
    assert seen(shown["quicedge_upstream_errors_total"]) == {("connect", "app"): 1}
    assert shown["quicedge_route_duration_seconds_count"][("*/",)] == 2
    assert shown["quicedge_route_duration_seconds_bucket"][("0.01", "*/")] == 0
    assert shown["quicedge_route_duration_seconds_bucket"][("0.025", "*/")] == 2
    assert shown["quicedge_upstream_first_byte_seconds_count"][("app",)] == 1


def test_origins_cannot_make_series_without_end() -> None:
    metrics = Metrics()
    for status in range(0, 5000):
        exchange(metrics, status=status)
    assert len(metrics.routes["*/"].statuses) == 901


def test_connections_are_observed_when_they_end() -> None:
    metrics = Metrics()
    quic = metrics.listener("[::]:443", TransportKind.QUIC)
    tcp = metrics.listener("[::]:443", TransportKind.TCP)
    observed = {"min_rtt_seconds": 0.02}
    metrics.connection(quic, protocol=HttpProtocol.HTTP_3, observed=observed)
    metrics.connection(quic, protocol=None, observed={})
    metrics.connection(tcp, protocol=HttpProtocol.HTTP_2, observed={})
    shown = exposition(metrics)
    assert shown["quicedge_listener_handshakes_total"] == {
        ("[::]:443", "completed", "quic"): 1, ("[::]:443", "failed", "quic"): 1,
        ("[::]:443", "completed", "tcp"): 1, ("[::]:443", "failed", "tcp"): 0,
    }  # fmt: skip
    name = "quicedge_connection_min_rtt_seconds"
    assert shown[f"{name}_bucket"][("0.02", "[::]:443", "quic")] == 1
    assert shown[f"{name}_count"] == {("[::]:443", "quic"): 1, ("[::]:443", "tcp"): 0}


def test_protocols_are_counted_and_observed_side_by_side() -> None:
    metrics = Metrics()
    exchange(metrics)
    exchange(metrics, protocol=HttpProtocol.HTTP_2)
    exchange(metrics, protocol=HttpProtocol.HTTP_2)
    quic = metrics.listener("[::]:443", TransportKind.QUIC)
    observed = {"smoothed_rtt_seconds": 0.04, "first_byte_seconds": 0.2, "age_seconds": 9.0}
    metrics.connection(quic, protocol=HttpProtocol.HTTP_3, observed=observed)
    metrics.connection(quic, protocol=None, observed={"smoothed_rtt_seconds": 0.04})
    shown = exposition(metrics, Metrics())
    assert shown["quicedge_protocol_requests_total"] == {("h3",): 1, ("h2",): 2, ("http/1.1",): 0}
    assert shown["quicedge_protocol_connections_total"][("h3",)] == 1
    assert shown["quicedge_protocol_smoothed_rtt_seconds_count"] == {
        ("h3",): 1, ("h2",): 0, ("http/1.1",): 0,
    }  # fmt: skip
    assert shown["quicedge_protocol_first_byte_seconds_sum"][("h3",)] == pytest.approx(
        0.2, abs=1e-6
    )


def test_the_state_of_alt_svc_is_exposed_by_listener() -> None:
    withdrawn = AltSvcStatus(
        listener="0.0.0.0:443", state=Advertising.TRIAL, withdrawn_seconds=5.0,
        reason=AltSvcReason.NO_DATAGRAMS, advertised=30, arrived=1, missed=25, waiting=4,
        networks_missing=25, networks_needed=20, withdrawals=2,
    )  # fmt: skip
    shown = exposition(alt_svc=[withdrawn])
    assert shown["quicedge_alt_svc_advertised"] == {("0.0.0.0:443",): 0}
    assert shown["quicedge_alt_svc_clients_total"] == {
        ("0.0.0.0:443", "advertised"): 30,
        ("0.0.0.0:443", "arrived"): 1,
        ("0.0.0.0:443", "missed"): 25,
    }
    assert shown["quicedge_alt_svc_withdrawals_total"] == {("0.0.0.0:443",): 2}


def test_handshakes_are_exposed_by_what_they_negotiated() -> None:
    first, second = Metrics(), Metrics()
    for metrics in (first, second):
        metrics.tls[TransportKind.QUIC].handshake("X25519MLKEM768", "brotli", retried=False)
    first.tls[TransportKind.QUIC].handshake("secp384r1", "none", retried=True)
    second.tls[TransportKind.QUIC].handshake("x25519", None, retried=False)  # resumed
    second.tls[TransportKind.TCP].handshake(None, None, retried=False)
    shown = exposition(first, second)
    assert shown["quicedge_tls_key_exchanges_total"] == {
        ("X25519MLKEM768", "quic"): 2, ("secp384r1", "quic"): 1, ("x25519", "quic"): 1,
    }  # fmt: skip
    assert shown["quicedge_tls_certificates_sent_total"] == {
        ("brotli", "quic"): 2, ("none", "quic"): 1,
    }  # fmt: skip
    assert shown["quicedge_tls_hello_retry_requests_total"] == {("quic",): 1, ("tcp",): 0}


def test_open_connections_are_exposed_by_protocol() -> None:
    counts = {HttpProtocol.HTTP_3: 3, HttpProtocol.HTTP_2: 1}
    shown = exposition(Metrics(), Metrics(), open_connections=counts)
    assert shown["quicedge_protocol_connections_open"] == {
        ("h3",): 6, ("h2",): 2, ("http/1.1",): 0,
    }  # fmt: skip


@given(st.lists(st.floats(0, 1e6)))
def test_a_value_is_counted_below_its_bound(values: list[float]) -> None:
    histogram = Histogram.over(DURATIONS)
    for value in values:
        histogram.observe(value, DURATIONS)
    running = 0
    for bound, count in zip(DURATIONS, histogram.counts, strict=False):
        running += count
        assert running == sum(value <= bound for value in values)
    assert sum(histogram.counts) == len(values)


def test_shares_of_traffic_are_counted_by_upstream_and_class_from_zero() -> None:
    metrics = Metrics()
    route = metrics.route("a.test/")
    route.keep_sides(["stable", "canary"])
    for status in (200, 204, 503, 0, 999):
        route.side("canary").count(status)
    samples = exposition(metrics)["quicedge_split_requests_total"]
    assert samples["a.test/", "2xx", "canary"] == 2
    assert samples["a.test/", "5xx", "canary"] == 1
    assert samples["a.test/", "none", "canary"] == 2
    assert samples["a.test/", "2xx", "stable"] == 0
    route.keep_sides(["stable"])
    assert {key[2] for key in exposition(metrics)["quicedge_split_requests_total"]} == {"stable"}


def peer(server_id: str, *, up: bool, this_host: bool = False) -> PeerStatus:
    return PeerStatus(address="192.0.2.1:443", server_id=server_id, up=up, this_host=this_host,
                      answered_seconds=1.0, round_trip_seconds=0.001)  # fmt: skip


FLEET = FleetStatus(
    server_id="01",
    peers=[peer("01", up=True, this_host=True), peer("02", up=True), peer("03", up=False)],
)


def test_the_other_hosts_of_a_fleet_are_counted_and_none_without_one() -> None:
    samples = exposition(Metrics(), fleet=FLEET)
    assert samples["quicedge_fleet_peers"] == {("up",): 1, ("down",): 1}
    assert seen(samples["quicedge_fleet_messages_total"]) == {("forwarded", "0"): 3}
    assert not any(name.startswith("quicedge_fleet") for name in exposition(Metrics()))


def test_the_grafana_dashboard_asks_for_what_there_is() -> None:
    metrics = Metrics()
    exchange(metrics, outcome=Outcome.ORIGIN_CONNECT)
    listener = metrics.listener("a", TransportKind.QUIC)
    observed = dict.fromkeys(CONNECTION_HISTOGRAMS, 0.1)
    metrics.connection(listener, protocol=HttpProtocol.HTTP_3, observed=observed)
    metrics.tls[TransportKind.QUIC].handshake("X25519MLKEM768", "brotli", retried=True)
    metrics.route("a.test/").side("app").count(200)
    hedged = UpstreamState(Circuit.CLOSED, hedges={"won": 1})
    known = set(exposition(metrics, fleet=FLEET, upstreams={"app": hedged}))
    dashboard = json.loads(DASHBOARD.read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"quicedge_\w+", target["expr"])
    }
    # Series with a label for a reason appear with the first reason.
    known |= {
        "quicedge_datagrams_dropped_total", "quicedge_requests_refused_total",
        "quicedge_tcp_connections_refused_total", "quicedge_tcp_handshakes_failed_total",
        "quicedge_redirects_total", "quicedge_alt_svc_clients_total", "quicedge_alt_svc_advertised",
    }  # fmt: skip
    assert len(asked) > 15
    assert asked <= known, asked - known


def test_the_exposition_is_well_formed_without_workers() -> None:
    assert exposition()["quicedge_up"] == {(): 1.0}
    assert generate_latest(CollectorRegistry()) == b""


def test_the_names_of_access_fields_are_those_of_a_record() -> None:
    assert set(ACCESS_FIELDS) == set(AccessRecord.__struct_fields__)


def test_routes_and_upstreams_that_a_reload_removes_leave_no_series() -> None:
    metrics = Metrics()
    for generation in range(100):
        metrics.keep([f"a.test/{generation}", "kept"], [f"origin{generation}", "kept"], ())
        metrics.route("kept").bytes_sent += 1
        metrics.upstream("kept").requests += 1
    assert set(metrics.routes) == {"a.test/99", "kept"}
    assert set(metrics.upstreams) == {"origin99", "kept"}
    assert metrics.routes["kept"].bytes_sent == metrics.upstreams["kept"].requests == 100


def test_a_great_many_routes_have_series_only_once_they_are_used() -> None:
    routes = [Route(upstream="app", path=f"/{number}") for number in range(ROUTES_FROM_ZERO + 1)]
    many = Config(upstreams={"app": Upstream()}, routes=routes)
    few = Config(upstreams={"app": Upstream()}, routes=routes[: ROUTES_FROM_ZERO - 1])
    metrics = Metrics()
    use_series(metrics, few)
    assert len(metrics.routes) == ROUTES_FROM_ZERO, "and those without a route"
    metrics = Metrics()
    use_series(metrics, many)
    assert not metrics.routes
    metrics.route("*/7").bytes_sent += 1
    use_series(metrics, many)
    assert metrics.routes["*/7"].bytes_sent == 1
