"""What clients see when workers end: a drain refuses newcomers, a death resets those who wait."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aioquic.quic.packet import QuicErrorCode

from tests.support.edge import RunningEdge, edge
from tests.support.peers import wait_until
from tests.support.visitor import Visitor


@contextlib.contextmanager
def silent_origin() -> Iterator[str]:
    """An origin that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def waiting_client(running: RunningEdge) -> Visitor:
    """A client whose request is at the origin and that has nothing more to say."""
    visitor = Visitor(running.port)
    visitor.request(b"GET", b"/never")
    before = requests_active(running)
    # Before that, what it sends begins with a Handshake packet, which nobody answers with a reset.
    visitor.run(lambda v, ended: v.quic._handshake_confirmed and requests_active(running) > before)
    return visitor


def requests_active(running: RunningEdge) -> int:
    workers = running.admin("/api/v1/status")["workers"]
    return sum(worker["stats"]["requests_active"] for worker in workers)


def test_newcomers_are_refused_at_once_while_any_worker_drains(tmp_path: Path) -> None:
    with silent_origin() as origin, edge(tmp_path, origin, options="workers = 2") as running:
        waiting_client(running)
        running.process.send_signal(signal.SIGTERM)
        wait_until(
            lambda: all(w["stats"]["draining"] for w in running.admin("/api/v1/status")["workers"]),
            "the drain",
        )
        # The worker that had no connection has drained; both have their share of these.
        for _ in range(8):
            late = Visitor(running.port)
            late.run(lambda v, ended: v.quic._close_event is not None, limit=5.0)
            assert late.quic._close_event is not None
            assert late.quic._close_event.error_code == QuicErrorCode.CONNECTION_REFUSED
    log = running.log()
    assert "clients refused" in log
    assert "Retry" not in log


def connection_of(running: RunningEdge, visitor: Visitor) -> dict[str, Any]:
    """What the edge says of a client's connection."""
    identity = visitor.quic.original_destination_connection_id.hex()
    found: dict[str, Any] = running.admin(f"/api/v1/connections/{identity}")
    return found


def reset_within(visitor: Visitor, seconds: float) -> float | None:
    """Seconds until a stateless reset comes, without a word of ours; None when none does."""
    token = visitor.quic._peer_cid.stateless_reset_token
    assert token
    started = time.monotonic()
    while (left := started + seconds - time.monotonic()) > 0:
        visitor.socket.settimeout(left)
        with contextlib.suppress(TimeoutError):
            if visitor.socket.recv(65536)[-16:] == token:
                return time.monotonic() - started
    return None


def migrate(running: RunningEdge, visitor: Visitor) -> None:
    """Take a new port and a new connection ID."""
    visitor.socket.close()
    visitor.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    visitor.socket.connect(visitor.address)
    visitor.quic.change_connection_id()
    visitor.quic.send_ping(1)

    def arrived(visitor: Visitor, ended: set[int]) -> bool:
        connection = connection_of(running, visitor)
        return bool(connection["migrations"] and connection["path_validated"])

    visitor.run(arrived)


def test_clients_that_wait_for_a_dead_worker_are_reset_at_once(tmp_path: Path) -> None:
    with silent_origin() as origin, edge(tmp_path, origin, options="workers = 2") as running:
        waiting: dict[int, list[Visitor]] = {0: [], 1: []}
        while min(len(visitors) for visitors in waiting.values()) < 2:
            visitor = waiting_client(running)
            waiting[connection_of(running, visitor)["worker"]].append(visitor)
        migrate(running, waiting[0][0])
        doomed = running.admin("/api/v1/status")["workers"][0]
        assert doomed["slot"] == 0
        os.kill(doomed["pid"], signal.SIGKILL)
        for visitor in waiting[0]:
            # A second is what is promised; the machine may be busy.
            assert reset_within(visitor, 3.0) is not None
        # Lines of the log are written by a thread of their own.
        wait_until(lambda: "resetting clients of dead worker" in running.log(), "the log", 20)
        for visitor in waiting[1]:
            assert reset_within(visitor, 0.1) is None, "its worker lives"
            visitor.close()


def test_the_command_line_client_ends_when_its_worker_dies(tmp_path: Path) -> None:
    with silent_origin() as origin, edge(tmp_path, origin) as running, ThreadPoolExecutor() as pool:
        asked = pool.submit(running.get, "/never")
        wait_until(lambda: requests_active(running) == 1, "the request")
        os.kill(running.worker_pid(), signal.SIGKILL)
        killed = time.monotonic()
        done = asked.result(30)
        assert time.monotonic() - killed < 3
        assert done.returncode != 0
        assert b"stateless reset" in done.stderr
