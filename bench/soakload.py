"""Honest clients of the soak, by stock aioquic; every byte is checked.

Usage: soakload.py idle PORT N PING_SECONDS | active PORT N INTERVAL_SECONDS. Says `{"ready": ...}`,
then works until standard input ends, then prints what happened.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack

import uvloop

from tests.support.download_client import SIZE, DownloadClient, download_client

AT_ONCE = 16
"""Handshakes in progress."""

LARGE = 60_000
REQUEST_TIMEOUT = 30.0
MAX_LATENCIES = 1_000_000


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def percentile(latencies: list[float], share: float) -> float | None:
    return sorted(latencies)[int(len(latencies) * share)] if latencies else None


async def until_told() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def idle(port: int, total: int, ping: float) -> None:
    """Idle connections; each makes a request at the end to prove that it is alive."""
    clients: list[DownloadClient] = []
    limit = asyncio.Semaphore(AT_ONCE)

    async with AsyncExitStack() as stack:

        async def one() -> None:
            async with limit:
                clients.append(await stack.enter_async_context(download_client(port)))

        async def keep() -> None:
            while True:
                started = time.monotonic()
                for at, client in enumerate(list(clients)):
                    client.ping()
                    if at % 50 == 49:
                        await asyncio.sleep(ping * 40 / max(len(clients), 1000))
                await asyncio.sleep(max(0.1, ping - (time.monotonic() - started)))

        keeping = asyncio.create_task(keep())
        await asyncio.gather(*(one() for _ in range(total)))
        say(ready=len(clients))
        await until_told()
        failed: Counter[str] = Counter()

        async def ask(client: DownloadClient) -> None:
            async with limit:
                try:
                    await asyncio.wait_for(client.request(), REQUEST_TIMEOUT)
                except (RuntimeError, TimeoutError) as error:
                    failed[str(error) or "timeout"] += 1

        await asyncio.gather(*(ask(client) for client in clients))
        keeping.cancel()
        say(asked=len(clients), failed=failed)
        for client in clients:
            client.close()  # all at once: each takes a few round trips to be closed


async def active(port: int, total: int, interval: float) -> None:
    """Short-lived connections with a few, mostly small requests."""
    stopping = asyncio.Event()
    latencies: list[float] = []
    handshakes: list[float] = []
    done, failed = Counter[str](), Counter[str]()
    connected = 0

    async def live() -> None:
        nonlocal connected
        started = time.perf_counter()
        async with download_client(port) as client:
            handshakes.append(time.perf_counter() - started)
            connected += 1
            try:
                for _ in range(random.randint(5, 25)):
                    await pause()
                    if stopping.is_set():
                        break
                    size = LARGE if random.random() < 0.1 else SIZE
                    asked = time.perf_counter()
                    await asyncio.wait_for(client.request(size), REQUEST_TIMEOUT)
                    if size == SIZE and len(latencies) < MAX_LATENCIES:
                        latencies.append(time.perf_counter() - asked)
                    done["small" if size == SIZE else "large"] += 1
            finally:
                connected -= 1

    async def pause() -> None:
        try:
            async with asyncio.timeout(random.uniform(0, 2 * interval)):
                await stopping.wait()
        except TimeoutError:
            pass

    async def one() -> None:
        await pause()
        while not stopping.is_set():
            try:
                await live()
            except (RuntimeError, ConnectionError, TimeoutError) as error:
                failed[str(error) or type(error).__name__] += 1

    tasks = [asyncio.create_task(one()) for _ in range(total)]
    say(ready=total)
    await until_told()
    at_end = connected
    stopping.set()
    await asyncio.gather(*tasks)
    say(
        connections=len(handshakes),
        at_once=at_end,
        small=done["small"],
        large=done["large"],
        failed=failed,
        p50=percentile(latencies, 0.5),
        p99=percentile(latencies, 0.99),
        handshake_p99=percentile(handshakes, 0.99),
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["idle", port, total, ping]:
            uvloop.run(idle(int(port), int(total), float(ping)))
        case ["active", port, total, interval]:
            uvloop.run(active(int(port), int(total), float(interval)))
        case _:
            sys.exit(__doc__)
