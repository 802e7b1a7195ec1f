"""`quicedge demo`, the first thing that anyone runs."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.peers import free_edge_port, require


def test_the_demo_shows_a_request_and_leaves_nothing_behind(tmp_path: Path) -> None:
    port = free_edge_port()
    demo = subprocess.Popen(
        [sys.executable, "-m", "quicedge", "demo", "--port", str(port)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert demo.stdout is not None
    said = ""
    try:
        for line in demo.stdout:
            said += line
            if "Press Ctrl-C to stop" in line:
                break
        assert "< HTTP/3 200" in said
        assert f" get -v --cacert certs/ca.pem https://localhost:{port}/echo" in said
        (curl,) = [line.split() for line in said.splitlines() if line.strip().startswith("curl ")]
        require(curl[0])
        page = subprocess.run(
            [*curl, "-sS"], cwd=tmp_path, capture_output=True, timeout=30, check=True
        )
        assert b"It works" in page.stdout
        demo.send_signal(signal.SIGTERM)
        # The edge writes to the same pipe: its end is the end of the edge, too.
        assert "draining" in demo.stdout.read()
        assert demo.wait(20) == 0
    finally:
        demo.kill()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))
