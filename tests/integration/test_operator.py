"""What an operator does at the admin API of a running edge: read metrics, close a connection."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.edge import RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import process, require, wait_until


def metrics(running: RunningEdge) -> dict[str, dict[tuple[str, ...], float]]:
    url = f"http://127.0.0.1:{running.admin_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        sample.name: {
            tuple(other.labels.values()): other.value
            for other in family.samples
            if other.name == sample.name
        }
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def post(running: RunningEdge, path: str, body: bytes) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{running.admin_port}{path}",
        data=body,
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_metrics_count_what_happened_over_all_workers(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin, options="workers = 2") as running:
        before = metrics(running)
        for _ in range(5):
            assert running.get("/echo").returncode == 0
        after = metrics(running)
    assert sum(before["quicedge_requests_total"].values()) == 0
    assert sum(after["quicedge_requests_total"].values()) == 5
    assert sum(after["quicedge_connections_total"].values()) == 5
    handshakes = after["quicedge_handshakes_total"]
    assert sum(n for labels, n in handshakes.items() if "completed" in labels) == 5
    assert len(after["quicedge_worker_uptime_seconds"]) == 2
    assert after["quicedge_up"][()] == 1
    assert all(value >= before[name][labels] for name, values in after.items()
               if name.endswith("_total") and name in before
               for labels, value in values.items() if labels in before[name])  # fmt: skip


def test_a_connection_is_closed_with_a_code_and_words(tmp_path: Path) -> None:
    program = require("gtlsclient")
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        url = f"https://localhost:{running.port}/slow?seconds=60"
        command = [program, "-q", "127.0.0.1", str(running.port), url]

        def live() -> list[dict[str, Any]]:
            rows = running.admin("/api/v1/connections")["connections"]
            return [row for row in rows if row["requests_active"]]

        with process(command, tmp_path / "client.log"):
            wait_until(lambda: bool(live()), "a request")
            path = f"/api/v1/connections/{live()[0]['id']}/close"
            with pytest.raises(urllib.error.HTTPError, match="400"):
                post(running, path, b'{"code": -1}')
            with pytest.raises(urllib.error.HTTPError, match="405"):
                running.admin(path)
            assert live()
            post(running, path, b'{"code": 256, "reason": "enough"}')
            wait_until(lambda: not live(), "the end of the connection")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            post(running, "/api/v1/connections/00ff/close", b"{}")
        assert "closed by operator" in running.log()
        wait_until(lambda: bool(running.access()), "the access log")
        assert running.access()[0]["outcome"] != "complete"


def test_the_keys_of_a_connection_are_updated_on_request(tmp_path: Path) -> None:
    program = require("gtlsclient")
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        command = [
            program, "-q", "127.0.0.1", str(running.port),
            f"https://localhost:{running.port}/slow?seconds=60",
        ]  # fmt: skip

        def live() -> list[dict[str, Any]]:
            rows = running.admin("/api/v1/connections")["connections"]
            return [row for row in rows if row["requests_active"]]

        with process(command, tmp_path / "client.log"):
            wait_until(lambda: bool(live()), "a request")
            path = f"/api/v1/connections/{live()[0]['id']}"
            before = running.admin(path)
            assert post(running, f"{path}/key-update", b"")["requested"] == live()[0]["id"]
            # It waits for nothing: a PING takes the new keys to the client.
            wait_until(lambda: running.admin(path)["key_updates"] == 1, "the update")
            wait_until(
                lambda: running.admin(path)["packets_received"] > before["packets_received"],
                "the client's answer under the new keys",
            )
            assert running.admin(path)["packets_dropped"] == before["packets_dropped"]
            assert live()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            post(running, "/api/v1/connections/00ff/key-update", b"")
        assert "key update requested by operator" in running.log()


def test_connections_on_tcp_have_no_key_update(tmp_path: Path) -> None:
    with (
        demo_origin() as origin,
        edge(tmp_path, origin) as running,
        socket.create_connection(("127.0.0.1", running.port)) as raw,
    ):
        context = ssl.create_default_context(cafile=str(running.certificate.ca))
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(raw, server_hostname="localhost"):

            def rows() -> list[dict[str, Any]]:
                found: list[dict[str, Any]] = running.admin("/api/v1/connections")["connections"]
                return found

            wait_until(lambda: bool(rows()), "the connection")
            assert rows()[0]["group"]
            assert rows()[0]["hello_retry"] is False
            with pytest.raises(urllib.error.HTTPError, match="409") as refused:
                post(running, f"/api/v1/connections/{rows()[0]['id']}/key-update", b"")
            assert b"ssl module" in refused.value.read()


def test_metrics_tell_how_keys_are_exchanged(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        for _ in range(2):
            assert running.get("/echo").returncode == 0
        found = metrics(running)
    assert sum(found["quicedge_tls_key_exchanges_total"].values()) == 2
    assert all("quic" in labels for labels in found["quicedge_tls_key_exchanges_total"])
    assert found["quicedge_tls_certificates_sent_total"] == {("none", "quic"): 2}
    assert found["quicedge_tls_hello_retry_requests_total"][("quic",)] == 0
