"""Honest clients during an attack: served, and not much later than in quiet times."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import pytest

from quicedge.config.limits import RETRY_THRESHOLD
from tests.integration.test_limits import connected
from tests.support.edge import REPOSITORY, RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import wait_until

pytestmark = pytest.mark.alone

NEWCOMERS = 10
REQUESTS = 150
TIMES_QUIET = 5
LEAST_BAR = 0.05
"""Seconds: on a busy machine the quiet figure is no better known than that."""


async def p99(running: RunningEdge) -> float:
    """Seconds that 99 of 100 requests take, of clients that come anew now and then."""
    took = []
    for _ in range(NEWCOMERS):
        async with asyncio.timeout(10), connected(running) as client:
            for _ in range(REQUESTS // NEWCOMERS):
                start = time.perf_counter()
                stream_id = client.ask(b"/echo")
                client.transmit()
                while b"200" not in client.received.get(stream_id, b""):
                    await asyncio.sleep(0.0005)
                took.append(time.perf_counter() - start)
    return sorted(took)[len(took) * 99 // 100]


def retries_sent(running: RunningEdge) -> int:
    stats = running.admin("/api/v1/status")["workers"][0]["stats"]
    return int(stats["retries_sent"])


@asynccontextmanager
async def initials(running: RunningEdge) -> AsyncIterator[None]:
    """A thousand abandoned handshakes per second."""
    flood = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.flood", str(running.port), "1000", "60",
        stdout=asyncio.subprocess.PIPE, cwd=REPOSITORY,
    )  # fmt: skip
    assert flood.stdout is not None
    try:
        await flood.stdout.readline()
        await asyncio.to_thread(wait_until, lambda: retries_sent(running) > 100, "Retry packets")
        yield
    finally:
        flood.kill()
        await flood.wait()
    stats = running.admin("/api/v1/status")["workers"][0]["stats"]
    assert stats["handshakes_open"] <= RETRY_THRESHOLD + 2


@asynccontextmanager
async def rapid_reset(running: RunningEdge) -> AsyncIterator[None]:
    """A client that resets what it asks for, and comes back when it is sent away."""

    under_way = asyncio.Event()

    async def attack() -> None:
        resets = 0
        while True:
            with suppress(ConnectionError):
                async with connected(running) as client:
                    while not client.ended.done():
                        resets += 1
                        if resets > 100:
                            under_way.set()
                        stream_id = client.ask(b"/delay?seconds=5")
                        client.quic.reset_stream(stream_id, 0x10C)
                        client.quic.stop_stream(stream_id, 0x10C)
                        client.transmit()
                        await asyncio.sleep(0.002)

    attacking = asyncio.ensure_future(attack())
    try:
        await asyncio.wait_for(under_way.wait(), 20)
        yield
    finally:
        attacking.cancel()
        with suppress(asyncio.CancelledError):
            await attacking
    stats = running.admin("/api/v1/status")["workers"][0]["stats"]
    assert stats["requests_refused"]["abuse"] >= 1


@pytest.mark.parametrize("attack", [initials, rapid_reset])
async def test_honest_clients_are_served_during_a_flood(
    tmp_path: Path, attack: Callable[[RunningEdge], AbstractAsyncContextManager[None]]
) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        await p99(running)
        quiet = await p99(running)
        async with attack(running):
            flooded = await p99(running)
    assert flooded < max(TIMES_QUIET * quiet, LEAST_BAR), (quiet, flooded)
