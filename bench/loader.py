"""Loads of many connections, by stock aioquic clients: requests, handshakes, idle connections.

Usage: loader.py MODE PORT N [N ...], and every answer is checked; prints a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack

import uvloop

from tests.support.download_client import DownloadClient, download_client

HANDSHAKES_AT_ONCE = 8


async def requests(port: int, connections: int, streams: int, total: int) -> dict[str, float]:
    """`total` requests over `connections`, `streams` at a time on each."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(download_client(port)) for _ in range(connections)
        ]
        latencies: list[float] = []

        async def worker(client: DownloadClient, count: int) -> None:
            for _ in range(count):
                started = time.perf_counter()
                await asyncio.wait_for(client.request(), 30)
                latencies.append(time.perf_counter() - started)

        share = total // (connections * streams)
        started = time.perf_counter()
        await asyncio.gather(*(worker(c, share) for c in clients for _ in range(streams)))
        seconds = time.perf_counter() - started
    latencies.sort()
    return {"done": len(latencies), "seconds": seconds, "p50": latencies[len(latencies) // 2],
            "p99": latencies[len(latencies) * 99 // 100]}  # fmt: skip


async def handshakes(port: int, total: int) -> dict[str, float]:
    """`total` full handshakes, several concurrently, without requests."""
    limit = asyncio.Semaphore(HANDSHAKES_AT_ONCE)

    async def one() -> None:
        async with limit, download_client(port):
            pass

    await asyncio.gather(*(one() for _ in range(total)))
    return {"done": total}


async def idle(port: int, total: int) -> dict[str, float]:
    """Open `total` connections, report it, and hold them until standard input ends."""
    async with AsyncExitStack() as stack:
        for _ in range(total):
            await stack.enter_async_context(download_client(port))
        print(json.dumps({"done": total}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    return {}


if __name__ == "__main__":
    mode = {"requests": requests, "handshakes": handshakes, "idle": idle}[sys.argv[1]]
    print(json.dumps(uvloop.run(mode(*map(int, sys.argv[2:])))))
