"""The admin API above a thousand live connections: quick, and nobody is disturbed."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import pytest

from bench.soak import program
from tests.support.edge import edge
from tests.support.h3client import h3_client
from tests.support.origin import demo_origin

pytestmark = pytest.mark.alone

CONNECTIONS = 1000


async def test_a_page_of_a_thousand_connections_is_quick(tmp_path: Path) -> None:
    with (
        demo_origin() as origin,
        edge(tmp_path, origin) as running,
        program("bench.soakload", "idle", running.port, CONNECTIONS, 30) as idlers,
    ):
        assert idlers.ready["ready"] == CONNECTIONS
        seconds = []
        for key in ("smoothed_rtt", "created_at", "remote_address", "requests", "bytes_sent"):
            start = time.perf_counter()
            page = running.admin(f"/api/v1/connections?sort=-{key}&limit=100")
            seconds.append(time.perf_counter() - start)
            assert page["total"] >= CONNECTIONS
            assert len(page["connections"]) == 100
            assert page["unanswered"] == []
        assert median(seconds) < 0.2, seconds
        # Requests go on meanwhile, and a filter finds the one that came.
        async with h3_client(running.port) as client:
            assert (await client.ask(b"GET", b"/echo")).status == 200
            found = running.admin("/api/v1/connections?route=*/&limit=10")
            assert found["total"] == 1
        assert running.admin("/api/v1/connections?route=elsewhere/")["total"] == 0
        assert not idlers.finish()["failed"]
