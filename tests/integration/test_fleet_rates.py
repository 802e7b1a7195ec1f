"""Request rates that two edges share by way of a Redis server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.edge import RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import free_port, wait_until
from tests.support.redisserver import redis_server


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    with redis_server(tmp_path) as server:
        yield server.url


def is_refused(running: RunningEdge) -> bool:
    return "429" in running.get("/echo", "-v").stderr.decode()


def test_two_edges_share_a_rate(tmp_path: Path, redis_url: str) -> None:
    extra = f'[limits]\nrequests = [{{ rate = "6/day" }}]\nredis = "{redis_url}"'
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with (
        demo_origin() as origin,
        edge(one, origin, extra=extra) as first,
        edge(two, origin, extra=extra) as second,
    ):
        # A process for each request takes longer than the edges need to tell each other.
        refused = [is_refused(running) for _ in range(5) for running in (first, second)]
    # An edge knows nothing of the other before its own first request of the window.
    assert 6 <= refused.index(True) <= 7, refused
    assert all(refused[8:]), refused


def test_a_store_that_is_not_there_costs_nobody_an_answer(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    extra = (
        f'[limits]\nrequests = [{{ rate = "2/day" }}]\nredis = "redis://127.0.0.1:{free_port()}"'
    )
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        assert [is_refused(running) for _ in range(4)] == [False, False, True, True]
        wait_until(lambda: "request rate store unavailable" in running.log(), "a line that says so")
