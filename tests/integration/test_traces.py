"""qlog of a running edge: by configuration, by an operator's order, by QLOGDIR."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from quicedge.qlog.analyse import analyse
from quicedge.qlog.normalise import Events
from quicedge.qlog.validate import validate
from tests.support.edge import RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import gtlsclient, process, require, wait_until


def post(running: RunningEdge, path: str, body: object) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{running.admin_port}{path}",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def traces(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.sqlog"))


def qlog(directory: Path, **options: object) -> str:
    (directory / "traces").mkdir()
    lines = [f"{key} = {json.dumps(value)}" for key, value in options.items()]
    return "\n".join(["[qlog]", 'directory = "traces"', *lines])


def test_sampled_connections_leave_valid_traces(tmp_path: Path) -> None:
    extra = qlog(tmp_path, rate=1.0, level="extra")
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        for _ in range(3):
            assert running.get("/download?size=200KB").returncode == 0
    found = traces(tmp_path / "traces")
    assert len(found) == 3
    for path in found:
        result = validate(path)
        assert result.errors == 0, [vars(finding) for finding in result.findings.values()]
        for name in (
            "quic:connection_started",
            "quic:parameters_set",
            "quic:packet_sent",
            "quic:packet_received",
            "quic:recovery_metrics_updated",
            "http3:frame_parsed",
            "http3:frame_created",
            "quic:connection_closed",
        ):
            assert result.names.get(name), (name, result.names)
        assert b"/download?size=200KB" in path.read_bytes()
        assert analyse(path).main is not None


def test_nothing_is_written_unless_asked(tmp_path: Path) -> None:
    extra = qlog(tmp_path)
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        assert running.get("/echo").returncode == 0
    assert traces(tmp_path / "traces") == []


def test_the_server_name_chooses(tmp_path: Path) -> None:
    extra = qlog(tmp_path, server_names=["LOCALHOST"])
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        assert running.get("/echo").returncode == 0
    (path,) = traces(tmp_path / "traces")
    result = validate(path)
    assert result.errors == 0
    assert result.names["quic:connection_started"] == 1, "the beginning is there too"


def test_a_live_connection_is_traced_on_demand(tmp_path: Path) -> None:
    client = require("gtlsclient")
    extra = qlog(tmp_path, level="core")
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        url = f"https://localhost:{running.port}/slow?seconds=60"
        command = [client, "-q", "--exit-on-all-streams-close", "127.0.0.1", str(running.port), url]

        def live() -> list[dict[str, Any]]:
            rows = running.admin("/api/v1/connections")["connections"]
            return [row for row in rows if row["requests_active"]]

        with process(command, tmp_path / "client.log"):
            wait_until(lambda: bool(live()), "a request")
            identity = live()[0]["id"]
            started = post(running, f"/api/v1/connections/{identity}/qlog", {"action": "start"})
            again = post(running, f"/api/v1/connections/{identity}/qlog", {"action": "start"})
            assert again == started, "one trace a connection"
            file = started["file"]
            stopped = post(running, f"/api/v1/connections/{identity}/qlog", {"action": "stop"})
            assert stopped == started
        path = tmp_path / "traces" / file
        wait_until(path.exists, "the trace")
        assert [entry["file"] for entry in running.admin("/api/v1/qlog")["traces"]] == [file]
        report = f"http://127.0.0.1:{running.admin_port}/api/v1/qlog/{file}/report"
        with urllib.request.urlopen(report, timeout=20) as answer:
            assert b"<html" in answer.read()
        for bad in ("..%2fquicedge.toml", "none.sqlog", "quicedge.toml"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                running.admin(f"/api/v1/qlog/{bad}")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            post(running, "/api/v1/connections/00/qlog", {"action": "start"})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post(running, f"/api/v1/connections/{identity}/qlog", {"action": "explode"})
        assert "trace started" in running.log()
    assert validate(path).errors == 0


def test_without_a_directory_an_operator_is_told(tmp_path: Path) -> None:
    with (
        demo_origin() as origin,
        edge(tmp_path, origin) as running,
        pytest.raises(urllib.error.HTTPError, match="409"),
    ):
        post(running, "/api/v1/connections/00/qlog", {"action": "start"})


def test_qlogdir_asks_for_every_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "q"
    directory.mkdir()
    monkeypatch.setenv("QLOGDIR", str(directory))
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        for _ in range(2):
            assert running.get("/echo").returncode == 0
    assert len(traces(directory)) == 2


def test_both_ends_traces_agree(tmp_path: Path) -> None:
    """Our trace against that of ngtcp2's client: packets, losses, round-trip times."""
    extra = qlog(tmp_path, rate=1.0)
    theirs = tmp_path / "client.qlog"
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        done = gtlsclient(
            running.port, "/download?size=3MB", directory=tmp_path / "d",
            options=(f"--qlog-file={theirs}", "--rx-loss=0.02"),
        )  # fmt: skip
        assert done.code == 0, done.output
    (ours,) = traces(tmp_path / "traces")
    assert validate(ours).errors == 0

    def numbers(path: Path, name: str) -> set[int]:
        return {
            event.data["header"]["packet_number"]
            for _, event in Events(path, None)
            if event.name == name and event.data["header"].get("packet_type") == "1RTT"
        }

    sent, lost = numbers(ours, "quic:packet_sent"), numbers(ours, "quic:packet_lost")
    received = numbers(theirs, "quic:packet_received")
    assert received <= sent, "nothing came that was not sent"
    assert len(lost) > 10
    # The client drops before it reads: what never came is what was lost, but for the last ones.
    missing = sent - received
    assert lost <= missing | received
    assert len(missing ^ lost) <= 0.1 * len(missing) + 8, sorted(missing ^ lost)
