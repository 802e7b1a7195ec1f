"""Large bodies over HTTP/2 with one side slow: the edge holds a window of them, never more."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.integration.test_memory import GROWTH_ALLOWED, slow_sink, stop_now_and_then, watched
from tests.support.edge import RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import require

SIZE = 200_000_000


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
        told = command(
            running, f"/download?size={SIZE}", "-o", "/dev/null", "-w", "%{size_download}"
        )
        with watched(running.worker_pid()) as samples:
            client = subprocess.Popen(told, stdout=subprocess.PIPE)
            stop_now_and_then(running, client)
            output, _ = client.communicate(timeout=150)
        assert client.returncode == 0
    assert output == b"%d" % SIZE
    assert max(samples) - samples[0] < GROWTH_ALLOWED


@pytest.mark.timeout(200)
def test_a_long_request_to_a_slow_origin(tmp_path: Path) -> None:
    body = tmp_path / "body"
    content = bytes(range(256)) * (SIZE // 256)
    body.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    with slow_sink() as (origin, got), edge(tmp_path, origin) as running:
        warm = command(running, "/", "-d", "x" * 100_000, "-o", "/dev/null")
        subprocess.run(warm, check=True, timeout=60)
        with watched(running.worker_pid()) as samples:
            sent = command(running, "/sink", "-X", "POST", "-T", str(body), "-o", "/dev/null")
            subprocess.run(sent, check=True, timeout=150)
    assert got == {"bytes": len(content), "sha256": digest}
    assert max(samples) - samples[0] < GROWTH_ALLOWED
