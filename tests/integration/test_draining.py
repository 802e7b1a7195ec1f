"""How an edge stops: what load balancers see first, and who has how much time."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

from tests.integration.test_generations import ask, tls_client
from tests.integration.test_worker_ends import silent_origin
from tests.support.edge import RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import wait_until


def readiness(running: RunningEdge) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", running.admin_port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    finally:
        connection.close()


def test_readiness_fails_first_while_newcomers_are_still_served(tmp_path: Path) -> None:
    options = 'drain_lead = "3s"'
    with demo_origin() as origin, edge(tmp_path, origin, options=options) as running:
        assert readiness(running) == 200
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: readiness(running) == 503, "readiness to fail", 2)
        # Not for a load balancer that has not looked yet.
        with tls_client(running.port) as tls:
            answer = ask(tls)
            assert b"200 OK" in answer
            assert b"connection: close" not in answer.lower()
        assert running.get("/").returncode == 0
        assert running.process.wait(20) == 0


def test_a_second_signal_ends_the_lead(tmp_path: Path) -> None:
    options = 'drain_lead = "600s"'
    with demo_origin() as origin, edge(tmp_path, origin, options=options) as running:
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: readiness(running) == 503, "readiness to fail", 10)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0


@contextlib.contextmanager
def events_origin() -> Iterator[tuple[str, socket.socket]]:
    """An origin whose one response is a stream of events without end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", listener


def open_request(tls: ssl.SSLSocket, path: str) -> None:
    tls.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())


def seconds_until_closed(tls: ssl.SSLSocket) -> float:
    started = time.monotonic()
    tls.settimeout(30)
    with contextlib.suppress(OSError):
        while tls.recv(65536):
            pass
    return time.monotonic() - started


def test_a_long_poll_has_its_own_time(tmp_path: Path) -> None:
    options = 'drain_timeout = "1s"\nlong_drain = "4s"'
    with (
        silent_origin() as origin,
        edge(tmp_path, origin, options=options, drain_timeout=None) as running,
        tls_client(running.port) as tls,
    ):
        open_request(tls, "/poll")
        wait_until(
            lambda: running.admin("/api/v1/status")["workers"][0]["stats"]["requests_active"] == 1,
            "the request", 10,
        )  # fmt: skip
        running.process.send_signal(signal.SIGTERM)
        assert seconds_until_closed(tls) > 3


def test_a_stream_of_events_has_its_own_time_and_a_download_has_not(tmp_path: Path) -> None:
    options = 'drain_timeout = "1s"\nlong_drain = "4s"'
    with (
        events_origin() as (origin, listener),
        edge(tmp_path, origin, options=options, drain_timeout=None) as running,
        tls_client(running.port) as events,
        tls_client(running.port) as download,
    ):
        peers = []
        for tls, kind in ((events, "text/event-stream"), (download, "text/plain")):
            open_request(tls, "/")
            peer, _ = listener.accept()
            peers.append(peer)
            peer.recv(65536)
            head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\nx"
            peer.sendall(head.encode())
            assert b"200 OK" in tls.recv(65536)
        started = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        seconds_until_closed(download)
        assert time.monotonic() - started < 3
        seconds_until_closed(events)
        assert time.monotonic() - started > 3
        for peer in peers:
            peer.close()
