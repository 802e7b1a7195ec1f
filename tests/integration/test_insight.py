"""Connections on TCP beside those on QUIC: in the API, the log, the metrics and side by side."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.edge import RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import require, wait_until

linux = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")
ALL = "[forwarding]\ntransport_headers = true\nserver_timing = true"
HTTP = {"h2": "--http2", "http/1.1": "--http1.1"}
DOWNLOAD = 3_000_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    require("curl")
    directory = tmp_path_factory.mktemp("insight")
    with demo_origin() as origin, edge(directory, origin, extra=ALL) as found:
        yield found


def curl(running: RunningEdge, path: str, *options: str) -> list[str]:
    return [
        "curl", "-sS", "--max-time", "60", "--cacert", str(running.certificate.ca), *options,
        f"https://localhost:{running.port}{path}",
    ]  # fmt: skip


def fetch(running: RunningEdge, path: str, *options: str) -> str:
    done = subprocess.run(curl(running, path, *options), capture_output=True, check=True)
    return done.stdout.decode()


def connections(running: RunningEdge, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = running.admin(f"/api/v1/connections?{query}")["connections"]
    return found


@linux
@pytest.mark.parametrize("protocol", HTTP)
def test_a_live_tcp_connection_has_the_kernels_facts(running: RunningEdge, protocol: str) -> None:
    slow = curl(running, f"/download?size={DOWNLOAD}", HTTP[protocol], "--limit-rate", "1M",
                "-o", os.devnull)  # fmt: skip
    with subprocess.Popen(slow) as client:
        try:
            wait_until(
                lambda: any(one["bytes_sent"] > 100_000
                            for one in connections(running, f"protocol={protocol}")),
                "the connection",
            )  # fmt: skip
            (one,) = connections(running, f"protocol={protocol}&transport=tcp")
            assert one["transport"] == "tcp"
            assert one["state"] == "connected"
            assert one["requests_active"] == 1
            assert 0 < one["min_rtt"] <= one["smoothed_rtt"] < 5
            assert one["congestion_window"] == one["congestion_window_packets"] * one["mtu"]
            assert one["congestion_controller"]
            assert one["packets_sent"] > one["packets_lost"] >= 0
            assert one["bytes_acknowledged"] <= one["bytes_sent"]
            assert 0 < one["handshake_seconds"] < one["first_byte_seconds"] < 30
            assert one["tls_version"] == "TLSv1.3"
            assert one["migrations"] is one["key_updates"] is None, "QUIC alone has these"
            assert set(one["sending_limited_seconds"]) <= {
                "path", "connection_flow_control", "send_buffer", "idle",
            }  # fmt: skip
            detail = running.admin(f"/api/v1/connections/{one['id']}")
            assert detail["streams"][0]["path"].startswith("/download")
        finally:
            client.kill()
    assert connections(running, "protocol=h3") == []


@linux
def test_an_operator_can_close_a_tcp_connection_but_not_trace_it(running: RunningEdge) -> None:
    slow = curl(running, f"/download?size={DOWNLOAD}", "--limit-rate", "1M", "-o", os.devnull)
    with subprocess.Popen(slow, stderr=subprocess.DEVNULL) as client:
        try:
            wait_until(lambda: bool(connections(running, "transport=tcp")), "the connection")
            (one,) = connections(running, "transport=tcp")
            base = f"http://127.0.0.1:{running.admin_port}/api/v1/connections/{one['id']}"
            with pytest.raises(urllib.error.HTTPError, match="409"):
                urllib.request.urlopen(f"{base}/events?qlog=base", timeout=10)
            request = urllib.request.Request(
                f"{base}/close", b'{"reason": "enough"}', {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=10):
                pass
            assert client.wait(20) != 0
        finally:
            client.kill()


@linux
@pytest.mark.parametrize("protocol", HTTP)
def test_origins_clients_and_the_log_get_the_facts_of_tcp(
    running: RunningEdge, protocol: str
) -> None:
    before = len(running.access())
    said = fetch(running, "/echo", HTTP[protocol], "-D", "-").lower()
    assert "x-transport-protocol" in said
    assert "x-transport-rtt-ms" in said
    assert "x-quic-version" not in said
    assert 'rtt;desc="tcp"' in said
    wait_until(lambda: len(running.access()) > before, "the access log")
    record = running.access()[-1]
    assert record["protocol"] == protocol
    assert record["quic_version"] is None
    assert record["smoothed_rtt"] > 0
    assert record["congestion_window"] > 0
    assert record["packets_lost"] == 0
    assert record["connection_id"]


@linux
def test_the_protocols_are_compared_over_the_connections_that_came(running: RunningEdge) -> None:
    for _ in range(3):
        for option in HTTP.values():
            fetch(running, "/", option)
    assert running.get("/").returncode == 0

    def counts() -> dict[str, int]:
        found = running.admin("/api/v1/comparison")["protocols"]
        return {one["protocol"]: one["connections"] for one in found}

    wait_until(
        lambda: counts()["h2"] >= 3 and counts()["http/1.1"] >= 3 and counts()["h3"] >= 1,
        "connections to end",
    )
    for one in running.admin("/api/v1/comparison")["protocols"]:
        for figure in ("smoothed_rtt", "handshake_seconds", "first_byte_seconds"):
            assert 0 < one[figure]["median"] <= one[figure]["p95"]
            assert one[figure]["is_sparse"], "of a handful of connections"


@linux
def test_a_request_over_tcp_ends_when_the_client_has_acknowledged_the_response(
    running: RunningEdge,
) -> None:
    """A client whose window is small and closed for a second; the edge has the response at once."""
    context = ssl.create_default_context(cafile=running.certificate.ca)
    path = f"/download?size={400_000}"

    def logged() -> list[dict[str, Any]]:
        return [record for record in running.access() if record["path"] == path]

    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(30)
        plain.connect(("127.0.0.1", running.port))
        with context.wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path.encode())
            begun = time.monotonic()
            client.recv(1)
            time.sleep(1)  # what is measured
            assert not logged()
            held = time.monotonic() - begun
            received = 1
            while received < 400_000:
                received += len(client.recv(65536))
            done = time.monotonic() - begun
            wait_until(lambda: bool(logged()), "the access record")
    (record,) = logged()
    assert record["outcome"] == "complete"
    assert record["bytes_sent"] == 400_000
    assert record["response_seconds"] < record["total_seconds"]
    assert 0.9 < held < record["total_seconds"] + 0.1
    assert record["total_seconds"] < 2 * done + 2, "the kernel is asked again in time"


def metric(running: RunningEdge, name: str, protocol: str) -> float:
    url = f"http://127.0.0.1:{running.admin_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    start = f'quicedge_protocol_{name}{{protocol="{protocol}"}} '
    (line,) = (line for line in text.splitlines() if line.startswith(start))
    return float(line.removeprefix(start))


@linux
@pytest.mark.parametrize("protocol", ["h3", *HTTP])
def test_metrics_are_by_protocol(running: RunningEdge, protocol: str) -> None:
    requests = metric(running, "requests_total", protocol)
    ended = metric(running, "smoothed_rtt_seconds_count", protocol)
    if protocol == "h3":
        assert running.get("/").returncode == 0
    else:
        fetch(running, "/", HTTP[protocol])
    wait_until(lambda: metric(running, "requests_total", protocol) > requests, "the request")
    # A QUIC connection ends after its closing period.
    wait_until(
        lambda: metric(running, "smoothed_rtt_seconds_count", protocol) > ended, "the end of it"
    )
    assert metric(running, "connections_total", protocol) > 0


def test_http3_is_advertised_on_tcp_and_arrivals_are_counted(
    running: RunningEdge,
) -> None:
    said = fetch(running, "/", "-4", "-D", "-").lower()
    assert f'alt-svc: h3=":{running.port}"; ma=86400' in said
    listener = f"127.0.0.1:{running.port}"

    def status() -> dict[str, Any]:
        found: list[dict[str, Any]] = running.admin("/api/v1/status")["alt_svc"]
        return next(one for one in found if one["listener"] == listener)

    wait_until(lambda: status()["advertised"] > 0, "the report of the advertisement")
    assert status()["state"] == "on"
    to = ("--resolve", f"localhost:{running.port}:127.0.0.1")
    assert running.get("/", *to).returncode == 0
    wait_until(lambda: status()["arrived"] > 0, "the report of who arrived")
    assert status()["networks_missing"] == 0


def test_no_http3_no_alt_svc(tmp_path: Path) -> None:
    require("curl")
    options = 'protocols = ["h2", "http/1.1"]'
    with demo_origin() as origin, edge(tmp_path, origin, options=options) as found:
        assert "alt-svc" not in fetch(found, "/", "-D", "-").lower()
        assert found.admin("/api/v1/status")["alt_svc"] == []


def test_json_is_what_the_api_speaks(running: RunningEdge) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        running.admin("/api/v1/connections?protocol=spdy")
    assert "protocol" in json.loads(refused.value.read())["error"]
