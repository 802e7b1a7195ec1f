"""The edge read uvloop's clock, which has whole milliseconds and stands still within an event loop
iteration: a first byte took 0.0 seconds, and a round trip on a LAN 0 or 1 ms."""

from __future__ import annotations

from pathlib import Path

from tests.support.edge import edge
from tests.support.origin import demo_origin
from tests.support.peers import wait_until

REQUESTS = 5


def test_a_first_byte_on_loopback_takes_neither_no_time_nor_whole_milliseconds(
    tmp_path: Path,
) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        for _ in range(REQUESTS):
            assert running.get("/echo").returncode == 0
        wait_until(lambda: len(running.access()) >= REQUESTS, "the access log")
        times = [record["first_byte_seconds"] for record in running.access()]
    assert min(times) > 0
    assert any(abs(seconds * 1000 - round(seconds * 1000)) > 1e-3 for seconds in times)
