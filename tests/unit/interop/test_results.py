"""One page from many runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from interop.runner.cases import BY_NAME
from interop.runner.peerfaults import PEER_FAULTS
from interop.runner.results import summarize


def write(
    directory: Path, clients: list[str], servers: list[str], *rows: list[dict[str, Any]]
) -> None:
    directory.mkdir(parents=True)
    document = {
        "clients": clients, "servers": servers, "end_time": 0.0, "results": rows,
        "versions": dict.fromkeys((*clients, *servers), "1"),
        "measurements": [[] for _ in rows],
    }  # fmt: skip
    (directory / "results.json").write_text(json.dumps(document))


def entry(name: str, result: str | None, reason: str = "", runs: int = 1) -> dict[str, Any]:
    return {"name": name, "abbr": "X", "result": result, "reason": reason, "runs": runs}


def test_runs_add_up_and_the_worst_counts(tmp_path: Path) -> None:
    write(tmp_path / "a", ["peer"], ["quicedge"], [entry("retry", "succeeded", runs=3)])
    write(tmp_path / "b", ["peer"], ["quicedge"], [entry("retry", "failed", "1 of 2: why", 2)])
    write(tmp_path / "c", ["quicedge"], ["peer"], [entry("retry", "succeeded", runs=2)])
    page = summarize(tmp_path, "quicedge")
    as_server, as_client = page.split("## quicedge as client")
    assert "| retry | ✕ 1 of 5 |" in as_server
    assert "| retry | ✓ (2) |" in as_client
    assert "| handshake | · |" in as_client
    assert "- ✕ peer → quicedge, retry: why" in page


def test_pairs_of_others_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a", ["x"], ["y"], [entry("retry", "failed", "why")])
    page = summarize(tmp_path, "quicedge")
    assert "why" not in page
    assert "Nothing failed." in page


def test_a_known_fault_of_the_peer_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a", ["quicedge"], ["qh3"], [entry("v2", "failed", "not done")])
    assert "- ✕ quicedge → qh3, v2: not done (qh3's server raises" in summarize(
        tmp_path, "quicedge"
    )


def test_what_is_known_is_about_cases_and_quicedge() -> None:
    for client, server, case in PEER_FAULTS:
        assert case in BY_NAME
        assert "quicedge" in (client, server)
