"""What clients see when workers end: a drain refuses newcomers, a death resets those who wait."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

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
    visitor.run(lambda v, ended: requests_active(running) > before)
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
            late.run(lambda v, ended: v.quic._close_event is not None, limit=2.0)
            assert late.quic._close_event is not None
            assert late.quic._close_event.error_code == QuicErrorCode.CONNECTION_REFUSED
    log = running.log()
    assert "clients refused" in log
    assert "Retry" not in log
