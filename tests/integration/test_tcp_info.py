"""TCP_INFO shows the path: its delay, its losses and its receiver."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interop.runner import addresses
from interop.runner.network import link
from interop.runner.topology import Topology, topology
from tests.support.peers import require_namespaces

ROOT = Path(__file__).resolve().parents[2]
PORT = 4433
SIZE = 400_000

SERVER = f"""
import json, socket, time
from quicedge.tcp.info import read_info, unacknowledged
with socket.create_server(("{addresses.SERVER_V4}", {PORT})) as listener:
    listener.settimeout(30)
    print("listening", flush=True)
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    accepted = read_info(sock)
    sock.sendall(bytes({SIZE}))
    deadline = time.monotonic() + 30
    while unacknowledged(sock) and time.monotonic() < deadline:
        time.sleep(0.01)
    sent = read_info(sock)
    shown = ("smoothed_rtt", "minimum_rtt", "delivery_bits", "busy_seconds", "total_retrans",
             "bytes_acked", "bytes_sent", "bytes_retrans", "ssthresh")
    facts = [{{name: getattr(each, name) for name in shown}} for each in (accepted, sent)]
    print(json.dumps(facts))
"""
CLIENT = f"""
import socket
with socket.create_connection(("{addresses.SERVER_V4}", {PORT}), 20) as sock:
    while sock.recv(1 << 16):
        pass
"""


@pytest.fixture(scope="module")
def names() -> Iterator[Topology]:
    require_namespaces()
    with topology() as found:
        yield found


def transfer(names: Topology, scenario: str, directory: Path) -> tuple[dict[str, Any], ...]:
    """Facts after accept and after a download over a link."""

    def inside(namespace: str, code: str) -> subprocess.Popen[str]:
        command = ["ip", "netns", "exec", namespace, sys.executable, "-c", code]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    with link(names, scenario, directory), inside(names.server, SERVER) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        with inside(names.client, CLIENT) as client:
            try:
                told, _ = server.communicate(timeout=60)
            finally:
                client.kill()
                server.kill()
    return tuple(json.loads(told))


def test_the_delay_and_the_rate_of_the_path_appear(names: Topology, tmp_path: Path) -> None:
    scenario = "simple-p2p --delay=30ms --bandwidth=10Mbps --queue=100"
    accepted, sent = transfer(names, scenario, tmp_path)
    assert accepted["smoothed_rtt"] >= 0.059, "the SYN-ACK was a sample"
    assert sent["minimum_rtt"] >= 0.059
    assert sent["smoothed_rtt"] >= sent["minimum_rtt"]
    assert 100_000 < sent["delivery_bits"] < 12_000_000
    assert sent["busy_seconds"] >= SIZE * 8 / 10e6
    assert sent["bytes_acked"] == SIZE


def test_losses_at_a_full_queue_appear(names: Topology, tmp_path: Path) -> None:
    scenario = "simple-p2p --delay=20ms --bandwidth=10Mbps --queue=5"
    _, sent = transfer(names, scenario, tmp_path)
    assert sent["bytes_acked"] == SIZE
    assert sent["total_retrans"] > 0
    assert sent["bytes_sent"] == SIZE + sent["bytes_retrans"]
    assert sent["ssthresh"] is not None
