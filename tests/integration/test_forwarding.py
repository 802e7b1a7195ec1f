"""Transport facts on their way to origins and clients, and into the access log."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.edge import edge
from tests.support.origin import demo_origin
from tests.support.peers import wait_until

FORWARDING = "[forwarding]\ntransport_headers = true\nserver_timing = true\ntrace_context = true"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_origins_and_clients_get_transport_facts_when_configured(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin, extra=FORWARDING) as running:
        done = running.get("/echo", "-v", "-H", "X-Transport-RTT-Ms: 0.001", "-H", "X-Quic-0RTT: 1",
                           "-H", f"traceparent: {PARENT}")  # fmt: skip
        told = done.stdout.decode().lower()
        assert told.count("x-transport-rtt-ms") == 1, told
        assert "0.001" not in told, "a client's own word does not count"
        assert "x-transport-congestion-window" in told
        assert PARENT in told
        timing = done.stderr.decode().lower()
        assert "server-timing: edge;dur=" in timing
        assert "origin;dur=" in timing
        assert "rtt;desc=" in timing
        wait_until(lambda: bool(running.access()), "the access log")
        assert running.access()[0]["trace_id"] == PARENT[3:35]


def test_transport_facts_are_not_forwarded_unless_configured(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        done = running.get("/echo", "-v")
        assert b"x-transport-rtt" not in done.stdout.lower()
        assert b"server-timing" not in done.stderr.lower()
        assert b"traceparent" not in done.stdout.lower()


def test_names_with_underscores_pass_where_origins_distinguish_them(tmp_path: Path) -> None:
    forged = ("-H", "x_forwarded_for: 6.6.6.6", "-H", "X-Real_IP: 6.6.6.6", "-H", "x_key: 7.7.7.7")
    for extra, passed in (("", False), ("[forwarding]\nunderscores = true", True)):
        directory = tmp_path / str(passed)
        directory.mkdir()
        with demo_origin() as origin, edge(directory, origin, extra=extra) as running:
            seen = running.get("/echo", *forged).stdout.decode()
        assert ("6.6.6.6" in seen) is passed, seen
        assert "7.7.7.7" in seen


def test_access_records_hold_the_fields_that_were_chosen(tmp_path: Path) -> None:
    fields = '["status", "path", "smoothed_rtt", "bytes_sent"]'
    chosen = f"access_fields = {fields}"
    with demo_origin() as origin, edge(tmp_path, origin, log=chosen) as running:
        running.get("/download?size=1000")
        wait_until(lambda: bool(running.access()), "the access log")
        record = running.access()[0]
        assert list(record) == ["status", "path", "smoothed_rtt", "bytes_sent"]
        assert record["bytes_sent"] == 1000
        assert record["status"] == 200


def test_metrics_count_routes_upstreams_and_connections(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        for _ in range(3):
            assert running.get("/download?size=5000").returncode == 0
        url = f"http://127.0.0.1:{running.admin_port}/metrics"

        def samples() -> dict[str, float]:
            text = urllib.request.urlopen(url, timeout=10).read().decode()
            return {
                f"{sample.name}{json.dumps(sample.labels)}": sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }

        listener = json.dumps({"listener": f"127.0.0.1:{running.port}", "transport": "quic"})
        ended = f"quicedge_connection_min_rtt_seconds_count{listener}"
        other = ended.replace("127.0.0.1", "[::1]")
        wait_until(
            lambda: samples().get(ended, 0) + samples().get(other, 0) == 3, "connections to end"
        )
        shown = samples()
        route = {"route": "*/"}
        assert shown["quicedge_route_requests_total" + json.dumps({**route, "status": "200"})] == 3
        assert shown["quicedge_route_response_bytes_total" + json.dumps(route)] == 15000
        assert shown["quicedge_upstream_requests_total" + json.dumps({"upstream": "app"})] == 3
        server = {"upstream": "app", "server": origin.removeprefix("http://"), "worker": "0"}
        name = "quicedge_upstream_server_up"
        up = {key: value for key, value in shown.items() if key.startswith(name)}
        assert [json.loads(key.removeprefix(name)) for key in up] == [server]
        assert list(up.values()) == [1]
        assert shown["quicedge_route_duration_seconds_count" + json.dumps(route)] == 3
