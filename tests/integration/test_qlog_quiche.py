"""Our traces, read by a reader that is not ours: the `qlog` crate of Cloudflare's quiche."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.edge import edge
from tests.support.origin import demo_origin
from tests.support.peers import gtlsclient

SOURCE = Path(__file__).parents[1] / "support" / "qlogreader"
BUILD_TIMEOUT = 300

NEWER_THAN_THE_CRATE = {"handshake_complete", "key_unavailable"}
"""States of draft-ietf-quic-qlog-quic-events-13 whose name the crate (0.18.2) has of an older
draft: `handshake_completed`."""


@pytest.fixture(scope="session")
def reader(pytestconfig: pytest.Config) -> Path:
    """The program in tests/support/qlogreader, built once and kept in pytest's cache."""
    cargo = shutil.which("cargo")
    if cargo is None:
        pytest.skip("cargo is not installed: nothing builds quiche's reader")
    assert pytestconfig.cache is not None
    place = pytestconfig.cache.mkdir("qlogreader")
    shutil.copytree(SOURCE, place, dirs_exist_ok=True)
    command = [cargo, "fetch", "--quiet"]
    if subprocess.run(command, cwd=place, capture_output=True, check=False).returncode:
        pytest.skip("cargo cannot fetch quiche's reader")
    built = subprocess.run(
        [cargo, "build", "--quiet", "--offline"],
        cwd=place, capture_output=True, check=False, timeout=BUILD_TIMEOUT,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr.decode()
    return place / "target" / "debug" / "qlogreader"


def ours(path: Path) -> list[dict[str, Any]]:
    """The records of a trace."""
    return [json.loads(record) for record in path.read_text().split("\x1e") if record]


def theirs(reader: Path, path: Path) -> list[dict[str, Any]]:
    """The same, as the crate understood them."""
    done = subprocess.run([reader, path], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def misread(said: Any, understood: Any) -> bool:
    """Whether a value lost or changed something; the crate keeps some as 32-bit floats."""
    if isinstance(said, dict):
        if said.get("type") == "resumption":
            # A token's type: the crate calls the member `ty`, so it writes none.
            said = {key: value for key, value in said.items() if key != "type"}
        return any(
            key not in understood or misread(value, understood[key]) for key, value in said.items()
        )
    if isinstance(said, list):
        return len(said) != len(understood) or any(map(misread, said, understood))
    if isinstance(said, float):
        return bool(understood != pytest.approx(said, rel=1e-5))
    return bool(said != understood)


@pytest.mark.timeout(BUILD_TIMEOUT + 120)
def test_quiches_reader_understands_every_event(tmp_path: Path, reader: Path) -> None:
    (tmp_path / "traces").mkdir()
    extra = '[qlog]\ndirectory = "traces"\nrate = 1.0\nlevel = "extra"'
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(500_000))
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        assert running.get("/download?size=1MB").returncode == 0
        for number, options in enumerate(
            (("--rx-loss=0.02",), ("-d", str(upload), "--tx-loss=0.02"))
        ):
            path = "/upload" if "-d" in options else "/download?size=1000000"
            done = gtlsclient(running.port, path, directory=tmp_path / str(number), options=options)
            assert done.code == 0, done.output
    traces = sorted((tmp_path / "traces").glob("*.sqlog"))
    assert len(traces) == 3
    greased = [event for event in ours(traces[1]) if "grease_quic_bit" in event.get("data", {})]
    assert [event["data"]["initiator"] for event in greased] == ["remote"], "gtlsclient's own"
    for trace in traces:
        said, understood = ours(trace), theirs(reader, trace)
        assert [event["time"] for event in said[1:3]] == [0.0, 0.0]
        assert len(said) == len(understood) > 100
        assert not misread(said[0], understood[0]), understood[0]
        names = set()
        for event, found in zip(said[1:], understood[1:], strict=True):
            if "unread" in found:
                data = event["data"]
                values = {data.get(name) for name in ("old", "new", "trigger")}
                assert NEWER_THAN_THE_CRATE & values, found
            else:
                assert not misread(event, found), (event, found)
                names.add(event["name"])
        assert {
            "quic:connection_started", "quic:parameters_set", "quic:packet_sent",
            "quic:packet_received", "quic:recovery_metrics_updated",
            "quic:congestion_state_updated", "quic:connection_closed", "http3:frame_parsed",
        } <= names  # fmt: skip
