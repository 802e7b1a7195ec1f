"""quicedge in the interop runner's cases: a subset, in both roles, against other stacks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.runner import topology
from interop.runner.cases import BY_NAME
from interop.runner.implementations import INTEROP, Implementation, find
from interop.runner.trial import Pair, Result, Site, compliant, run_trial
from tests.support.peers import free_port, require, require_namespaces

pytestmark = pytest.mark.timeout(120)

OURS = find("quicedge")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    require_namespaces()
    with topology.topology() as names:
        yield Site(names)


def peer(name: str) -> Implementation:
    if name == "gtls":
        require("gtlsclient")
    return find(name)


CASES = [
    ("handshake", "gtls"), ("http3", "gtls"), ("retry", "gtls"), ("keyupdate", "gtls"),
    ("resumption", "aioquic"), ("zerortt", "aioquic"), ("connectionmigration", "quicedge"),
    ("v2", "aioquic"), ("rebind-addr", "aioquic"), ("transferloss", "aioquic"), ("ecn", "gtls"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("role", "case", "foreign"),
    [(role, *case) for role in ("client", "server") for case in CASES],
)
def test_case(site: Site, role: str, case: str, foreign: str, tmp_path: Path) -> None:
    other = peer(foreign)
    pair = Pair(OURS, other) if role == "client" else Pair(other, OURS)
    outcome = run_trial(site, BY_NAME[case], pair, tmp_path / "trial")
    assert outcome.result is Result.SUCCEEDED, outcome.reason


@pytest.mark.parametrize("role", ["client", "server"])
def test_an_unknown_case_is_refused(role: str, tmp_path: Path) -> None:
    assert compliant(Site(None), OURS, role, tmp_path / "trial") is None


def test_both_commands_refuse_an_unknown_case() -> None:
    for name in ("client", "server"):
        done = subprocess.run(
            [sys.executable, "-m", "interop", name],
            env={**os.environ, "TESTCASE": "brave-otter"},
            cwd=INTEROP.parent,
            timeout=60,
            check=False,
        )
        assert done.returncode == 127


@pytest.mark.parametrize("case", ["handshake", "chacha20", "retry", "http3", "keyupdate", "v2"])
def test_with_itself_on_loopback(case: str, tmp_path: Path) -> None:
    outcome = run_trial(Site(None), BY_NAME[case], Pair(OURS, OURS), tmp_path / "trial")
    assert outcome.result is Result.SUCCEEDED, outcome.reason


def test_the_runners_probe_is_answered_soon(tmp_path: Path) -> None:
    """Version negotiation for connection IDs of length zero, IPv4 and IPv6."""
    from quicedge.config import devcerts

    files = devcerts.ensure(tmp_path / "dev")
    certs, www = tmp_path / "certs", tmp_path / "www"
    certs.mkdir()
    www.mkdir()
    (certs / "cert.pem").write_bytes(files.cert.read_bytes())
    (certs / "priv.key").write_bytes(files.key.read_bytes())
    port = free_port(socket.SOCK_DGRAM)
    probe = b"\xc0WAIT\0\0" + bytes(1200)
    started = time.monotonic()
    server = subprocess.Popen(
        [sys.executable, "-m", "interop", "server"],
        env={
            **os.environ, "TESTCASE": "transfer", "PORT": str(port), "WWW": str(www),
            "CERTS": str(certs),
        },
        cwd=INTEROP.parent,
    )  # fmt: skip
    try:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.settimeout(0.1)
                sock.connect((host, port))
                answer = b""
                while not answer:
                    # The runner asks for ten seconds; a machine busy with tests is given as much.
                    assert time.monotonic() - started < 10
                    try:
                        sock.send(probe)
                        answer = sock.recv(2048)
                    except (TimeoutError, ConnectionRefusedError):
                        assert server.poll() is None
            assert answer[1:5] == bytes(4)
    finally:
        server.terminate()
    assert server.wait(10) == 0
