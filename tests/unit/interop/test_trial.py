"""Trials on loopback with endpoints that are a few lines of Python."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import pytest

from interop.runner.cases import BY_NAME, Case
from interop.runner.endpoint import Endpoint, wait_any
from interop.runner.implementations import Implementation
from interop.runner.matrix import Cell, run_matrix
from interop.runner.report import as_html, as_json, as_markdown
from interop.runner.trial import Outcome, Pair, Result, Site, compliant, run_trial

LOOPBACK = Site(None)
UNKNOWN = "import os, sys\nif '-' in os.environ['TESTCASE']: sys.exit(127)\n"
SERVER = """
import os, socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", int(os.environ["PORT"])))
while True:
    data, address = sock.recvfrom(2000)
    sock.sendto(b"\\x80\\0\\0\\0\\0\\0\\0\\0\\0\\0\\x01", address)
"""
# A client that cheats: it copies from the server's folder, which lies beside its own.
CLIENT = """
import os, pathlib, shutil
downloads = pathlib.Path(os.environ["DOWNLOADS"])
www = downloads.parent.parent / "server" / "www"
for url in os.environ["REQUESTS"].split():
    shutil.copy(www / url.rsplit("/", 1)[1], downloads)
"""


def implementation(name: str, client: str = CLIENT, server: str = SERVER) -> Implementation:
    run = (sys.executable, "-c")
    return Implementation(name, (*run, UNKNOWN + server), (*run, UNKNOWN + client))


def trial(
    directory: Path, case: Case = BY_NAME["handshake"], client: str = CLIENT, server: str = SERVER
) -> Outcome:
    peer = implementation("peer", client, server)
    return run_trial(LOOPBACK, case, Pair(peer, peer), directory / "trial")


def test_success(tmp_path: Path) -> None:
    assert trial(tmp_path).result is Result.SUCCEEDED
    assert (tmp_path / "trial" / "client" / "output.txt").exists()


@pytest.mark.parametrize(
    ("client", "result", "says"),
    [
        ("import sys; print('no route'); sys.exit(1)", Result.FAILED, "code 1: no route"),
        ("import sys; sys.exit(127)", Result.UNSUPPORTED, "127"),
        ("pass", Result.FAILED, "1 of 1 files missing"),
    ],
)
def test_exit_codes(tmp_path: Path, client: str, result: Result, says: str) -> None:
    outcome = trial(tmp_path, client=client)
    assert outcome.result is result
    assert says in outcome.reason


def test_a_client_that_hangs_is_stopped(tmp_path: Path) -> None:
    case = dataclasses.replace(BY_NAME["handshake"], timeout=0.3)
    began = time.monotonic()
    outcome = trial(tmp_path, case, client="import time; time.sleep(60)")
    assert outcome == dataclasses.replace(
        Outcome(Result.FAILED, "not done within 0.3 s"), seconds=outcome.seconds
    )
    assert time.monotonic() - began < 20


def test_a_server_that_answers_something_else_fails(tmp_path: Path) -> None:
    outcome = trial(tmp_path, server=SERVER.replace("\\x80\\0\\0\\0\\0", "\\x80\\1\\0\\0\\0"))
    assert outcome.result is Result.FAILED
    assert "answered an unknown version with" in outcome.reason


def test_a_pair_without_a_protocol_in_common(tmp_path: Path) -> None:
    http09 = implementation("http09")
    h3 = dataclasses.replace(implementation("h3"), http09=False, h3=True)
    outcome = run_trial(LOOPBACK, BY_NAME["handshake"], Pair(http09, h3), tmp_path)
    assert outcome.result is Result.UNSUPPORTED
    assert Pair(http09, h3).alpn(BY_NAME["http3"]) == "h3"
    assert Pair(http09, http09).alpn(BY_NAME["transfer"]) == "hq-interop"
    assert Pair(h3, h3).alpn(BY_NAME["transfer"]) == "h3"


def test_compliance(tmp_path: Path) -> None:
    good = implementation("good")
    bad = dataclasses.replace(good, client=(sys.executable, "-c", "raise SystemExit(1)"))
    assert compliant(LOOPBACK, good, "client", tmp_path / "good") is None
    assert "exited with code 1" in (compliant(LOOPBACK, bad, "client", tmp_path / "bad") or "")


def test_sigterm_then_sigkill(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True);"
        " time.sleep(60)"
    )
    endpoint = Endpoint([sys.executable, "-c", stubborn], dict(os.environ), tmp_path, None)
    while not (tmp_path / "output.txt").read_text():
        assert wait_any([endpoint], 0.01) is None
    endpoint.stop()
    assert endpoint.returncode == -9


def test_matrix_and_reports(tmp_path: Path) -> None:
    fine, silent = implementation("fine"), implementation("silent", client="pass")
    rude = dataclasses.replace(fine, name="rude", client=(sys.executable, "-c", "pass"))
    cases = [BY_NAME["handshake"], BY_NAME["http3"]]
    told: list[tuple[str, str, str, Result]] = []
    matrix = run_matrix(
        *(LOOPBACK, [fine, silent, rude], [fine], cases, tmp_path),
        repeat=2,
        progress=lambda client, server, case, outcome: told.append(
            (client, server, case, outcome.result)
        ),
    )
    assert matrix.failed == 2
    assert len(told) == 8
    made = as_json(matrix)
    assert made["clients"] == ["fine", "silent", "rude"]
    assert [[entry["result"] for entry in pair] for pair in made["results"]] == [
        ["succeeded"] * 2,
        ["failed"] * 2,
        [None] * 2,
    ]
    assert made["results"][1][0]["reason"].startswith("2 of 2: 1 of 1 files missing")
    assert "rude as client is not compliant" in made["results"][2][0]["reason"]
    assert made["tests"]["H"]["name"] == "handshake"
    json.dumps(made)
    table = as_markdown(matrix)
    assert "| handshake | ✓ | ✕ | · |" in table
    page = as_html(matrix)
    assert 'href="fine_silent/handshake/"' in page
    assert (tmp_path / "fine_fine" / "handshake" / "2" / "server" / "output.txt").exists()


def test_html_escapes_what_endpoints_say(tmp_path: Path) -> None:
    loud = implementation("loud", client="raise SystemExit('<script>alert(1)</script>')")
    matrix = run_matrix(
        *(LOOPBACK, [loud], [loud], [BY_NAME["handshake"]], tmp_path),
        repeat=1,
        progress=lambda *_: None,
    )
    assert "<script>" not in as_html(matrix)


def test_the_worst_repetition_counts_and_goodput_is_averaged() -> None:
    good, bad = Outcome(Result.SUCCEEDED, kbps=9000.0), Outcome(Result.FAILED, "slow")
    cell = Cell(BY_NAME["goodput"], [good, Outcome(Result.SUCCEEDED, kbps=9200.0)])
    assert (cell.result, cell.details, cell.why) == (
        Result.SUCCEEDED,
        "9100 (± 141) kbps",
        "",
    )
    cell.outcomes.append(bad)
    assert (cell.result, cell.why) == (Result.FAILED, "1 of 3: slow")
