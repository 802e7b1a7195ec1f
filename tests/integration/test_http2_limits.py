"""The operator's limits and drains at a running edge, with clients of HTTP/2."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from quicedge.config.limits import ABANDONED_PAGES, MAX_STREAMS_BIDI
from quicedge.http.errors import H2ErrorCode
from tests.support.edge import RunningEdge, edge
from tests.support.h2client import frame
from tests.support.h2socket import h2_socket
from tests.support.hostile_h2 import window
from tests.support.origin import demo_origin
from tests.support.peers import wait_until
from tests.support.raworigin import raw_origin

NO_WINDOW = b"\0\x04\0\0\0\0"
LIMITS = """
[limits]
header_timeout = "1s"
body_timeout = "1s"
response_timeout = "1s"
keepalive_timeout = "2s"
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    directory = tmp_path_factory.mktemp("edge")
    with demo_origin() as origin, edge(directory, origin, extra=LIMITS) as edge_process:
        yield edge_process


def outcomes(running: RunningEdge, path: str) -> list[object]:
    return [r["outcome"] for r in running.access() if str(r["path"]).startswith(path)]


def test_a_reader_that_takes_nothing_is_cut_off(running: RunningEdge) -> None:
    with h2_socket(running, NO_WINDOW) as client:
        stream = client.ask(b"/download?size=5000000")
        assert client.status(stream) == b"200"
        assert client.reset_code(stream) == H2ErrorCode.CANCEL
        client.send(window(0, 1000))
        again = client.ask(b"/")
        client.send(window(again, 10_000))
        assert client.body(again), "the connection goes on"
    wait_until(lambda: bool(outcomes(running, "/download")), "the access log")
    assert outcomes(running, "/download") == ["response_timeout"]


def test_a_slow_body_is_answered_408(running: RunningEdge) -> None:
    with h2_socket(running) as client:
        stream = client.ask(b"/upload", method=b"POST", end=False)
        client.send(frame(0, 0, stream, b"x"))
        assert client.status(stream) == b"408"
        assert client.reset_code(stream) == H2ErrorCode.NO_ERROR


def test_a_head_that_never_ends_closes_the_connection(running: RunningEdge) -> None:
    with h2_socket(running) as client:
        client.send(frame(1, 1, 1, b"\x82"))
        client.until_closed()
        assert client.goaways == [H2ErrorCode.ENHANCE_YOUR_CALM]


def test_a_connection_without_requests_is_closed(running: RunningEdge) -> None:
    with h2_socket(running) as client:
        stream = client.ask(b"/")
        assert client.status(stream) == b"200"
        client.until_closed()
        assert client.goaways == [H2ErrorCode.NO_ERROR]


def test_rapid_reset_ends_the_connection_and_spares_the_others(tmp_path: Path) -> None:
    with (
        raw_origin({}, held=(b"/held",)) as origin,
        edge(tmp_path, origin.url) as running,
        h2_socket(running) as other,
        h2_socket(running) as client,
    ):
        waiting = other.ask(b"/held")
        for _ in range(4 * ABANDONED_PAGES * MAX_STREAMS_BIDI):
            client.send(frame(3, 0, client.ask(b"/held"), b"\0\0\0\x08"))
            if client.closed:
                break
        client.until_closed()
        assert client.goaways[-1] == H2ErrorCode.ENHANCE_YOUR_CALM
        origin.release()
        assert other.status(waiting) == b"200"


def test_readers_that_take_nothing_leave_origin_connections_to_others(tmp_path: Path) -> None:
    """As over HTTP/3 (`test_fair_shares.py`); the honest client comes from another network."""

    def active(running: RunningEdge) -> int:
        stats = running.admin("/api/v1/status")["workers"][0]["stats"]["servers"]["app"]
        (figures,) = stats.values()
        return int(figures["active"])

    with (
        demo_origin() as origin,
        edge(tmp_path, origin, upstream_extra="max_connections = 9") as running,
        ExitStack() as stack,
    ):
        for _ in range(3):
            attacker = stack.enter_context(h2_socket(running, NO_WINDOW))
            for _ in range(100):
                attacker.ask(b"/download?size=1MB")
        wait_until(lambda: active(running) == 6, "the attackers' share")
        with h2_socket(running, host="::1") as honest:
            for _ in range(10):
                assert honest.status(honest.ask(b"/echo")) == b"200"
        assert active(running) == 6


def test_a_drain_finishes_what_runs_and_refuses_the_rest(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        with h2_socket(running) as client:
            stream = client.ask(b"/upload", method=b"POST", end=False)
            client.send(frame(0, 0, stream, b"one "))
            client.send(frame(6, 0, 0, bytes(8)))
            client.until(lambda: any(f.kind == 6 for f in client.frames), "the answer to PING")
            running.process.send_signal(signal.SIGTERM)
            client.until(lambda: len(client.goaways) == 2, "two GOAWAY frames")
            late = client.ask(b"/")
            assert client.reset_code(late) == H2ErrorCode.REFUSED_STREAM
            client.send(frame(0, 1, stream, b"two"))
            assert client.status(stream) == b"200"
            assert client.body(stream)
            client.until_closed()
        assert running.process.wait(10) == 0
