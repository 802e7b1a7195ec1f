"""A live connection's qlog events, followed without a file."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from quicedge.qlog.validate import validate
from tests.support.edge import REPOSITORY, RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import process, require, wait_until


@contextmanager
def client(running: RunningEdge, log: Path, path: str) -> Iterator[str]:
    """A connection with a request in progress; yields its ID."""
    program = require("gtlsclient")
    url = f"https://localhost:{running.port}{path}"
    port = str(running.port)
    command = [program, "-q", "--exit-on-all-streams-close", "127.0.0.1", port, url]

    def live() -> list[dict[str, Any]]:
        rows = running.admin("/api/v1/connections")["connections"]
        return [row for row in rows if row["requests_active"]]

    with process(command, log):
        wait_until(lambda: bool(live()), "a request")
        yield live()[0]["id"]


def tail(running: RunningEdge, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    admin = f"127.0.0.1:{running.admin_port}"
    return subprocess.run(
        [sys.executable, "-m", "quicedge", "qlog", "tail", "--admin", admin, *arguments],
        capture_output=True, timeout=30, cwd=REPOSITORY, check=False,
    )  # fmt: skip


def test_tail_prints_what_happens_and_can_write_a_trace(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        with client(running, tmp_path / "client.log", "/slow?seconds=60") as identity:
            done = tail(running, identity[:8], "-n", "12", "--level", "extra")
            assert done.returncode == 0, done.stderr
            lines = done.stdout.decode().splitlines()
            assert len(lines) == 12
            assert "connection_started" in lines[0]
            assert sum("parameters_set" in line for line in lines) >= 3
            assert any("packet_sent" in line for line in lines)

            done = tail(running, identity, "-n", "14", "--raw", "--level", "extra")
            path = tmp_path / "tail.sqlog"
            path.write_bytes(done.stdout)
            result = validate(path)
            assert result.errors == 0, [vars(finding) for finding in result.findings.values()]
            assert result.events == 14

            done = tail(running, identity, "-n", "2", "--json", "-t", "packet_sent")
            names = [json.loads(line)["name"] for line in done.stdout.splitlines()]
            assert names == ["quic:packet_sent"] * 2

            # As the access log's console format has it.
            done = tail(running, f"conn={identity[:8]}/0", "-n", "1", "--json")
            assert done.returncode == 0, done.stderr
            assert len(done.stdout.splitlines()) == 1
        done = tail(running, "00ff00ff")
        assert done.returncode == 1
        assert b"no live connection has an ID starting with 00ff00ff" in done.stderr


def test_the_stream_has_both_kinds_of_events_and_ends_with_the_connection(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        base = f"http://127.0.0.1:{running.admin_port}/api/v1/connections"
        with client(running, tmp_path / "client.log", "/slow?seconds=60") as identity:
            with pytest.raises(urllib.error.HTTPError, match="400"):
                urllib.request.urlopen(f"{base}/{identity}/events?qlog=all", timeout=10)
            url = f"{base}/{identity}/events?interval=0.5&qlog=base"
            with urllib.request.urlopen(url, timeout=20) as answer:
                events: list[tuple[str, Any]] = []
                name, closed = "", False
                for line in answer:
                    key, _, value = line.decode().rstrip("\n").partition(": ")
                    if key == "event":
                        name = value
                    elif key == "data":
                        events.append((name, json.loads(value)))
                        if not closed and sum(kind == "stats" for kind, _ in events) == 3:
                            closed = True
                            request = urllib.request.Request(
                                f"{base}/{identity}/close", data=b'{"reason": "seen"}',
                                headers={"content-type": "application/json"},
                            )  # fmt: skip
                            urllib.request.urlopen(request, timeout=10).close()
    kinds = [kind for kind, _ in events]
    assert kinds[0] == "stats"
    assert kinds[-1] == "gone"
    qlog = [data for kind, data in events if kind == "qlog"]
    assert qlog[0]["file_schema"] == "urn:ietf:params:qlog:file:sequential"
    assert qlog[-1]["name"] == "quic:connection_closed"
    assert qlog[-1]["data"]["reason"] == "seen"
    assert all(data["name"] != "quic:mtu_updated" for data in qlog[1:]), "that would be extra"


def test_a_slow_follower_loses_events_and_learns_how_many(tmp_path: Path) -> None:
    with (
        demo_origin() as origin,
        edge(tmp_path, origin) as running,
        client(running, tmp_path / "client.log", "/download?size=400MB") as identity,
        socket.create_connection(("127.0.0.1", running.admin_port)) as slow,
    ):
        slow.settimeout(20)
        path = f"/api/v1/connections/{identity}/events?qlog=extra"
        slow.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

        def dropped() -> float:
            url = f"http://127.0.0.1:{running.admin_port}/metrics"
            text = urllib.request.urlopen(url, timeout=10).read().decode()
            name = "quicedge_qlog_live_writes_dropped_total"
            found = re.search(rf'^{name}{{worker="0"}} (\S+)', text, re.MULTILINE)
            return float(found[1]) if found else 0.0

        wait_until(lambda: dropped() > 0, "events to be lost")
        got = b""
        while b"events lost: not read in time" not in got[-200_000:]:
            piece = slow.recv(65536)
            assert piece, "the stream ended without a word"
            got += piece
