"""OpenTelemetry spans: from a client's traceparent through the edge to an origin, as a collector
sees them."""

from __future__ import annotations

import re
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.edge import RunningEdge, edge
from tests.support.peers import free_port, nginx, wait_until

pytest.importorskip("opentelemetry.proto")
from tests.support.collector import Collector, attributes, collector

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TOLD = 'location /told { default_type text/plain; return 200 "$http_traceparent"; }'
SERVER, CLIENT = 2, 3
"""SpanKind in trace.proto."""
ERROR = 2
"""Status code in trace.proto."""


def otel(url: str, extra: str = "") -> str:
    return f'[otel]\nenabled = true\nendpoint = "{url}"\n{extra}\n'


def spans(got: Collector, count: int) -> dict[int, Any]:
    """All spans by kind, once there are so many."""
    wait_until(lambda: len(got.spans) >= count, f"{count} spans")
    assert len(got.spans) == count, got.spans
    return {span.kind: span for span in got.spans}


def metric(running: RunningEdge, name: str) -> float:
    url = f"http://127.0.0.1:{running.admin_port}/metrics"
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else -1.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")


def test_client_edge_and_origin_are_one_chain(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    extra = "[forwarding]\ntrace_context = true\n"
    with (
        collector() as got,
        nginx(tmp_path, tmp_path / "www", TOLD) as origin,
        edge(tmp_path, origin, extra=otel(got.url, 'service_name = "front"\n') + extra) as running,
    ):
        before = time.time()
        done = running.get(
            "/told?a=1&sig=secret", "-H", f"traceparent: {PARENT}", "-H", "tracestate: v=1",
            "-H", "user-agent: us",
        )  # fmt: skip
        found = spans(got, 2)
        server, client = found[SERVER], found[CLIENT]
        after = time.time()

        assert server.trace_id.hex() == client.trace_id.hex() == PARENT[3:35]
        assert server.parent_span_id.hex() == PARENT[36:52]
        assert client.parent_span_id == server.span_id
        assert done.stdout.decode() == f"00-{PARENT[3:35]}-{client.span_id.hex()}-01"
        assert server.trace_state == "v=1"

        assert server.name == "GET /"
        told = attributes(server)
        port = int(origin.rpartition(":")[2])
        expected = {
            "http.request.method": "GET", "http.response.status_code": 200, "http.route": "/",
            "url.scheme": "https", "url.path": "/told", "url.query": "a=1&sig=REDACTED",
            "server.address": "localhost", "server.port": running.port,
            "network.protocol.name": "http", "network.protocol.version": "3",
            "network.transport": "quic", "user_agent.original": "us",
            "http.response.body.size": 55, "quic.version": "v1", "quic.stream_id": 0,
            "quic.early_data": False, "quicedge.outcome": "complete", "quicedge.upstream": "app",
        }  # fmt: skip
        assert told == {**told, **expected}
        assert told["client.address"] in ("127.0.0.1", "::1")
        assert 0 < told["quic.min_rtt"] <= told["quic.smoothed_rtt"] < 1
        assert re.fullmatch("[0-9a-f]{16,}", told["quic.connection_id"])
        assert before - 1 < server.start_time_unix_nano / 1e9 < after
        assert server.start_time_unix_nano <= client.start_time_unix_nano
        assert client.end_time_unix_nano <= server.end_time_unix_nano

        told = attributes(client)
        expected = {
            "http.request.method": "GET", "http.response.status_code": 200,
            "url.full": f"{origin}/told?a=1&sig=REDACTED", "server.address": "127.0.0.1",
            "server.port": port, "network.protocol.version": "1.1",
        }  # fmt: skip
        assert told == {**told, **expected}
        assert told["quicedge.first_byte_seconds"] > 0

        resource = got.resources[0]
        assert resource["service.name"] == "front"
        assert resource["service.version"]
        wait_until(lambda: metric(running, "quicedge_spans_exported_total") == 2, "the counter")
        wait_until(lambda: bool(running.access()), "the access log")
        assert running.access()[0]["trace_id"] == PARENT[3:35]


def test_a_client_that_is_not_trusted_begins_no_trace(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    with (
        collector() as got,
        nginx(tmp_path, tmp_path / "www", TOLD) as origin,
        edge(tmp_path, origin, extra=otel(got.url)) as running,
    ):
        done = running.get("/told", "-H", f"traceparent: {PARENT}", "-H", "tracestate: v=1")
        found = spans(got, 2)
        assert not found[SERVER].parent_span_id
        assert found[SERVER].trace_id.hex() != PARENT[3:35]
        assert done.stdout.decode().split("-")[1:3] == [
            found[SERVER].trace_id.hex(),
            found[CLIENT].span_id.hex(),
        ]


def test_what_is_not_recorded_is_said_to_the_origin(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    extra = "[forwarding]\ntrace_context = true\n"
    with (
        collector() as got,
        nginx(tmp_path, tmp_path / "www", TOLD) as origin,
        edge(tmp_path, origin, extra=otel(got.url, "sample_ratio = 0.0") + extra) as running,
    ):
        assert running.get("/told").stdout.endswith(b"-00")
        recorded = running.get("/told", "-H", f"traceparent: {PARENT}")
        assert recorded.stdout.endswith(b"-01"), "a trusted client's own decision stands"
        assert spans(got, 2)[SERVER].trace_id.hex() == PARENT[3:35]


def test_an_origin_that_fails_is_reported(tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with collector() as got, edge(tmp_path, dead, extra=otel(got.url)) as running:
        running.get("/", "-X", "BREW")
        found = spans(got, 2)
        server, client = attributes(found[SERVER]), attributes(found[CLIENT])
        assert found[SERVER].name == "HTTP /", "clients do not choose names"
        assert server["http.request.method"] == client["http.request.method"] == "_OTHER"
        assert server["http.request.method_original"] == "BREW"
        assert server["http.response.status_code"] == 502
        assert server["error.type"] == client["error.type"] == "origin_connect"
        assert found[SERVER].status.code == found[CLIENT].status.code == ERROR
        assert "http.response.status_code" not in client


def test_a_request_that_reaches_no_origin_has_one_span(tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with (
        collector() as got,
        edge(tmp_path, dead, extra=otel(got.url), hosts="other.test") as running,
    ):
        running.get("/")
        wait_until(lambda: bool(running.access()), "the access log")
        told = attributes(spans(got, 1)[SERVER])
        assert told["http.response.status_code"] == 404
        assert told["quicedge.outcome"] == "no_route"
        assert "error.type" not in told


def test_a_dead_collector_costs_nothing_but_spans(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    nobody = f"http://127.0.0.1:{free_port()}/v1/traces"
    with (
        nginx(tmp_path, tmp_path / "www", TOLD) as origin,
        edge(tmp_path, origin, extra=otel(nobody, 'timeout = "200ms"')) as running,
    ):
        for _ in range(3):
            assert running.get("/told").returncode == 0
        lost = 'quicedge_spans_dropped_total{reason="export"}'
        wait_until(lambda: metric(running, lost) == 6, "the spans to be counted as lost")
        assert metric(running, "quicedge_spans_exported_total") == 0


def test_variables_of_the_environment_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "www").mkdir()
    with collector() as got, nginx(tmp_path, tmp_path / "www", TOLD) as origin:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", got.url.removesuffix("/v1/traces"))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "named")
        with edge(tmp_path, origin, extra="[otel]\nenabled = true\n") as running:
            running.get("/told")
            spans(got, 2)
        assert got.headers[0]["x-key"] == "k"
        assert got.resources[0]["service.name"] == "named"
        assert got.resources[0]["deployment.environment.name"] == "test"


def test_a_reload_begins_and_ends_the_export(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()

    def reload(running: RunningEdge, text: str, count: int) -> None:
        (tmp_path / "quicedge.toml").write_text(text)
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: running.admin("/api/v1/status")["reloads"] == count, "the reload")

    with (
        collector() as got,
        nginx(tmp_path, tmp_path / "www", TOLD) as origin,
        edge(tmp_path, origin) as running,
    ):
        without = (tmp_path / "quicedge.toml").read_text()
        assert running.get("/told").stdout == b""
        reload(running, without + otel(got.url), 1)
        assert running.get("/told").stdout.endswith(b"-01")
        spans(got, 2)
        reload(running, without, 2)
        assert running.get("/told").stdout == b""


def test_the_last_spans_are_sent_when_the_edge_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "www").mkdir()
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    with collector() as got, nginx(tmp_path, tmp_path / "www", TOLD) as origin:
        with edge(tmp_path, origin, extra=otel(got.url)) as running:
            running.get("/told")
            wait_until(lambda: bool(running.access()), "the access log")
            assert got.spans == []
        assert len(got.spans) == 2
