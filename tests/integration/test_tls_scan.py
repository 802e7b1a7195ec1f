"""A kept scanner (sslyze) looks at the TCP port as an auditor would."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.support.edge import RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import require


def scan(running: RunningEdge, policy: str) -> tuple[str, dict]:
    """What the scanner says of a policy, and its results."""
    results = running.directory / "scan.json"
    command = [
        require("sslyze"), f"--mozilla_config={policy}", "--sni=localhost",
        f"--certinfo_ca_file={running.certificate.ca}", f"--json_out={results}",
        f"127.0.0.1:{running.port}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=240, check=False)
    (server,) = json.loads(results.read_text())["server_scan_results"]
    return done.stdout.decode(), server["scan_result"]


def accepted(results: dict, version: str) -> set[str]:
    """The cipher suites that were accepted with a version."""
    suites = results[f"{version}_cipher_suites"]["result"]["accepted_cipher_suites"]
    return {item["cipher_suite"]["name"] for item in suites}


@pytest.mark.parametrize("policy", ["intermediate", "modern"])
def test_a_scanner_finds_nothing_against_mozillas_guidelines(tmp_path: Path, policy: str) -> None:
    tls = "" if policy == "intermediate" else f'policy = "{policy}"'  # the default, and the other
    with demo_origin() as origin, edge(tmp_path, origin, tls=tls) as running:
        report, results = scan(running, policy)
        assert f"127.0.0.1:{running.port}: OK - Compliant." in report, report
        assert "VULNERABLE" not in report.replace("Not vulnerable", "")
        assert accepted(results, "tls_1_3")
        assert bool(accepted(results, "tls_1_2")) == (policy == "intermediate")
        # It is not as if the scanner approved of everything.
        other = scan(running, "old")[0]
        assert "FAILED - Not compliant." in other, other


def refusal(port: int, name: str | None, ca: Path) -> str | None:
    """The alert that a client gets which names a host, or none; None: it is let in."""
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as sock,
            context.wrap_socket(sock, server_hostname=name),
        ):
            return None
    except ssl.SSLError as error:
        return str(error.reason)


def test_without_a_covered_server_name_no_client_is_let_in(tmp_path: Path) -> None:
    tls = "require_server_name = true"
    with demo_origin() as origin, edge(tmp_path, origin, tls=tls) as running:
        ca = running.certificate.ca
        assert refusal(running.port, "localhost", ca) is None
        assert refusal(running.port, None, ca) == "TLSV13_ALERT_MISSING_EXTENSION"
        assert refusal(running.port, "other.example", ca) == "TLSV1_UNRECOGNIZED_NAME"
        done = running.get("/echo", "--sni", "other.example")
        assert done.returncode != 0
        assert b"unrecognized_name" in done.stderr, done.stderr
        assert running.get("/echo").returncode == 0
