"""Disks that are full, under everything the edge writes."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest

from quicedge.cli.client import Client
from quicedge.qlog.validate import validate
from tests.support.edge import RunningEdge, edge
from tests.support.faults import descriptors
from tests.support.origin import demo_origin
from tests.support.peers import wait_until

QLOG = '[qlog]\ndirectory = "traces"\nrate = 1.0\nlevel = "extra"\n'

A_SMALL_DISK = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
for failed in (libc.unshare(CLONE_NEWNS),
               libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None),
               libc.mount(b"tmpfs", os.environb[b"SMALL_DISK"], b"tmpfs", 0, b"size=128k")):
    if failed:
        sys.exit(os.strerror(ctypes.get_errno()))
from quicedge.cli import main
main()
"""


async def download(running: RunningEdge, size: int) -> None:
    """A whole download on a connection of its own."""
    client = await Client.connect("localhost", running.port, ca_file=str(running.certificate.ca))
    body = bytearray()
    answer = await client.fetch("GET", "localhost", f"/download?size={size}", on_body=body.extend)
    await client.close()
    assert (answer.status, len(body)) == (200, size)


def stats(running: RunningEdge) -> dict[str, int]:
    (worker,) = running.admin("/api/v1/status")["workers"]
    found: dict[str, int] = worker["stats"]
    return found


def make_room(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


def at_rest(running: RunningEdge) -> bool:
    found = stats(running)
    return found["connections"] == found["traces_running"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process a disk of its own")
async def test_a_full_disk_costs_traces_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "traces").mkdir()
    monkeypatch.setenv("SMALL_DISK", str(tmp_path / "traces"))
    program = ("-c", A_SMALL_DISK)
    with demo_origin() as url, edge(tmp_path, url, extra=QLOG, program=program) as running:
        pid = running.worker_pid()
        held = descriptors(pid)
        for _ in range(3):
            await download(running, 1_000_000)
        wait_until(lambda: stats(running)["trace_writes_dropped"] > 0, "writes that are counted")
        wait_until(lambda: "cannot write trace" in running.log(), "a line that says so")
        assert "No space left on device" in running.log()
        wait_until(lambda: at_rest(running), "connections that ended")
        wait_until(lambda: descriptors(pid) <= held + 1, "files that are closed")
        # The operator makes room: the next trace is whole.
        traces = Path(f"/proc/{pid}/root{tmp_path}/traces")
        make_room(traces)
        await download(running, 1000)
        wait_until(lambda: at_rest(running), "the end of the connection")

        def is_whole() -> bool:
            # The end of an earlier one may have been written after its file was removed.
            shutil.copy(max(traces.iterdir()), tmp_path / "copy.sqlog")
            result = validate(tmp_path / "copy.sqlog")
            return not result.errors and bool(result.names.get("quic:connection_closed"))

        wait_until(is_whole, "the whole trace")
        wait_until(lambda: len(running.access()) == 4, "the access log")


async def test_no_file_can_grow(tmp_path: Path) -> None:
    """Access log, log and traces at once, as by a quota: requests go on, lines are counted."""
    (tmp_path / "traces").mkdir()
    with demo_origin() as url, edge(tmp_path, url, extra=QLOG) as running:
        await download(running, 1000)
        wait_until(lambda: len(running.access()) == 1, "the access log")
        wait_until(lambda: at_rest(running), "the end of the connection")
        pid = running.worker_pid()
        held = descriptors(pid)
        limit = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, limit[1]))
        try:
            for _ in range(3):
                await download(running, 100_000)

            def counted() -> bool:
                found = stats(running)
                return found["trace_writes_dropped"] > 0 and found["log_lines_dropped"] >= 3

            wait_until(counted, "lines that are counted")
            wait_until(lambda: at_rest(running), "connections that ended")
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
        wait_until(lambda: descriptors(pid) <= held + 1, "files that are closed")
        await download(running, 1000)
        wait_until(lambda: len(running.access()) == 2, "the access log")
        wait_until(lambda: "access_log_lines" in running.log(), "a line that says so")
        assert running.worker_pid() == pid
