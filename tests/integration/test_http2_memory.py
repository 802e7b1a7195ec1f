"""A gigabyte each way over HTTP/2 with one side slow: the edge holds a window of it, never more."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.integration.test_memory import (
    GIGABYTE,
    GROWTH_ALLOWED,
    slow_sink,
    stop_now_and_then,
    watched,
)
from tests.support.edge import RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import require


def command(running: RunningEdge, path: str, *options: str) -> list[str]:
    return [
        require("curl"), "-sS", "--http2", "--cacert", str(running.certificate.ca), *options,
        f"https://localhost:{running.port}{path}",
    ]  # fmt: skip


@pytest.mark.timeout(200)
def test_a_long_response_to_a_slow_client(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        warm = command(running, "/download?size=20000000", "-o", "/dev/null")
        subprocess.run(warm, check=True, timeout=60)
        asked = command(
            running, f"/download?size={GIGABYTE}", "-o", "/dev/null", "-w", "%{size_download}"
        )
        with watched(running.worker_pid()) as samples:
            client = subprocess.Popen(asked, stdout=subprocess.PIPE)
            stop_now_and_then(running, client)
            output, _ = client.communicate(timeout=150)
        assert client.returncode == 0
    assert output == b"%d" % GIGABYTE
    assert max(samples) - samples[0] < GROWTH_ALLOWED


@pytest.mark.timeout(200)
def test_a_long_request_to_a_slow_origin(tmp_path: Path) -> None:
    body = tmp_path / "body"
    block = bytes(range(250)) * 4000
    digest = hashlib.sha256()
    with body.open("wb") as file:
        for _ in range(GIGABYTE // len(block)):
            file.write(block)
            digest.update(block)
    with slow_sink() as (origin, got), edge(tmp_path, origin) as running:
        warm = command(running, "/", "-d", "x" * 100_000, "-o", "/dev/null")
        subprocess.run(warm, check=True, timeout=60)
        with watched(running.worker_pid()) as samples:
            sent = command(running, "/sink", "-X", "POST", "-T", str(body), "-o", "/dev/null")
            subprocess.run(sent, check=True, timeout=150)
    assert got == {"bytes": GIGABYTE, "sha256": digest.hexdigest()}
    assert max(samples) - samples[0] < GROWTH_ALLOWED
