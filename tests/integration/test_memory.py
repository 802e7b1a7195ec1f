"""A gigabyte each way with one side slow: the edge holds a window of it, never more."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.edge import RunningEdge, edge
from tests.support.peers import free_port, nginx, require, wait_until

GIGABYTE = 10**9
GROWTH_ALLOWED = 32 * 2**20
STOPS = 4
PROGRESS = 10**7
"""Bytes of a download between two stops."""


def resident(pid: int) -> int:
    """Bytes of memory a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024


@contextmanager
def watched(pid: int) -> Iterator[list[int]]:
    """Samples the resident memory of a process while the block runs."""
    samples = [resident(pid)]
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.1):
            samples.append(resident(pid))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def sent_by(running: RunningEdge) -> int:
    """Bytes that the edge has sent to those who are connected."""
    return sum(row["bytes_sent"] for row in running.admin("/api/v1/connections")["connections"])


def stop_now_and_then(running: RunningEdge, client: subprocess.Popen[bytes]) -> None:
    """Stop the client four times during its download, until the edge can send no more."""
    for _ in range(STOPS):
        before = sent_by(running)
        wait_until(
            lambda before=before: sent_by(running) > before + PROGRESS or client.poll() is not None,
            "the download",
        )
        assert client.poll() is None, "the download was over too soon"
        client.send_signal(signal.SIGSTOP)
        seen: deque[int] = deque(maxlen=5)

        def is_blocked(seen: deque[int] = seen) -> bool:
            seen.append(sent_by(running))
            return len(seen) == seen.maxlen and len(set(seen)) == 1

        wait_until(is_blocked, "full windows")
        client.send_signal(signal.SIGCONT)


def warm_up(running: RunningEdge, path: str) -> None:
    """Code, buffers and pools are not growth."""
    assert running.get(path, "-o", "/dev/null").returncode == 0


@pytest.mark.timeout(240)
def test_a_gigabyte_to_a_slow_client(tmp_path: Path) -> None:
    root = tmp_path / "www"
    root.mkdir()
    for name, size in (("big", GIGABYTE), ("warm", 20_000_000)):
        with (root / name).open("wb") as file:
            file.truncate(size)
    with nginx(tmp_path, root) as origin, edge(tmp_path, origin) as running:
        warm_up(running, "/warm")
        command = [
            require("gtlsclient"), "--quiet", "--exit-on-all-streams-close",
            "--no-quic-dump", "--no-http-dump", "127.0.0.1", str(running.port),
            f"https://localhost:{running.port}/big",
        ]  # fmt: skip
        with watched(running.worker_pid()) as samples:
            quiet = subprocess.DEVNULL
            client = subprocess.Popen(command, stdout=quiet, stderr=quiet)
            stop_now_and_then(running, client)
            assert client.wait(150) == 0

        def record() -> list[dict[str, object]]:
            return [r for r in running.access() if r["path"] == "/big"]

        wait_until(lambda: bool(record()), "the access log")
        logged = record()[0]
        sent = logged["bytes_sent"]
    assert sent == GIGABYTE, logged
    assert max(samples) - samples[0] < GROWTH_ALLOWED


@contextmanager
def slow_sink() -> Iterator[tuple[str, dict[str, object]]]:
    """An origin that takes an upload in fits and starts; yields its URL and what it got."""
    got: dict[str, object] = {}
    port = free_port()
    ready, stop = threading.Event(), threading.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        match = re.search(rb"content-length: (\d+)", head)
        left = int(match[1]) if match else 0
        digest, taken = hashlib.sha256(), 0
        while left > taken:
            data = await reader.read(262144)
            if not data:
                break
            digest.update(data)
            before, taken = taken, taken + len(data)
            if before // 100_000_000 != taken // 100_000_000:
                await asyncio.sleep(0.5)  # this is the slowness under test
        got.update(bytes=taken, sha256=digest.hexdigest())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", port)
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.05)
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield f"http://127.0.0.1:{port}", got
    finally:
        stop.set()
        thread.join(5)


@pytest.mark.timeout(240)
def test_a_gigabyte_to_a_slow_origin(tmp_path: Path) -> None:
    body = tmp_path / "body"
    block = bytes(range(256)) * 4096
    digest = hashlib.sha256()
    with body.open("wb") as file:
        for at in range(0, GIGABYTE, len(block)):
            part = block[: min(len(block), GIGABYTE - at)]
            file.write(part)
            digest.update(part)
    with slow_sink() as (origin, got), edge(tmp_path, origin) as running:
        running.get("/", "-d", "x" * 1000)
        command = [
            require("gtlsclient"), "--quiet", "--exit-on-all-streams-close", "--no-quic-dump",
            "--no-http-dump", "-m", "POST", "-d", str(body), "127.0.0.1", str(running.port),
            f"https://localhost:{running.port}/sink",
        ]  # fmt: skip
        with watched(running.worker_pid()) as samples:
            done = subprocess.run(command, capture_output=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr
        record = [r for r in running.access() if r["path"] == "/sink"]
    assert got == {"bytes": GIGABYTE, "sha256": digest.hexdigest()}, json.dumps(record)
    assert max(samples) - samples[0] < GROWTH_ALLOWED
