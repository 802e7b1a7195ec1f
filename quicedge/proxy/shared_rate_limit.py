"""Request rates shared by the workers of a fleet through a store, without waiting for it.

A request is decided immediately, from the last count in the store and the requests received here
since; a task synchronizes with the store every `FLEET_SYNC_INTERVAL`. A fleet may thus exceed a
rate by the requests of one interval, and no request waits. If the store is unavailable, each worker
continues with what it knows and counts for itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, cast

import structlog

from quicedge.config.limits import (
    FLEET_SYNC_CONCURRENCY,
    FLEET_SYNC_INTERVAL,
    FLEET_TIMEOUT,
    MAX_PREFIX_RATES,
    REFUSAL_LOG_INTERVAL,
)
from quicedge.telemetry.bounded_log import BoundedLog

log = structlog.get_logger(__name__)


class Store(Protocol):
    """Counters shared by several machines (`limits.aio.storage`)."""

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a counter that expires after `expiry` seconds; returns the sum."""


def open_store(url: str) -> Store:
    """Open a store of the `limits` library; raises ImportError without quicedge[redis]."""
    from limits.storage import storage_from_string

    return cast(
        Store,
        storage_from_string(
            f"async+{url}",
            implementation="redispy",
            key_prefix="quicedge",
            socket_timeout=FLEET_TIMEOUT,
            socket_connect_timeout=FLEET_TIMEOUT,
        ),
    )


class _Count:
    """Requests of one client in one window: `known` in the store, `pending` to be added."""

    __slots__ = ("known", "lifetime", "pending")

    def __init__(self, lifetime: int) -> None:
        self.known = 0
        self.pending = 0
        self.lifetime = lifetime


class FleetCounts:
    """The counts of this worker and the last known sums. Windows follow the wall clock.

    `run` synchronizes them; without it `take` counts locally.
    """

    def __init__(self, store: Store, wall: Callable[[], float] = time.time) -> None:
        self._store = store
        self._wall = wall
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._pending: dict[str, _Count] = {}
        self._failures = BoundedLog(self._log_failure, REFUSAL_LOG_INTERVAL)

    def take(self, key: str, most: int, seconds: float) -> float:
        """Count one request of at most `most` per `seconds`; returns 0 or the seconds to wait."""
        now = self._wall()
        window = int(now // seconds)
        name = f"{key}:{window}"
        count = self._counts.get(name)
        if count is None:
            count = self._counts[name] = _Count(int(seconds) + 1)
            if len(self._counts) > MAX_PREFIX_RATES:
                forgotten, _ = self._counts.popitem(last=False)
                self._pending.pop(forgotten, None)
        else:
            self._counts.move_to_end(name)
        if count.known + count.pending >= most:
            return (window + 1) * seconds - now
        count.pending += 1
        self._pending[name] = count
        return 0.0

    async def run(self) -> None:
        """Synchronize with the store until cancelled."""
        while True:
            await asyncio.sleep(FLEET_SYNC_INTERVAL)
            await self.sync()

    async def sync(self) -> None:
        """Add pending requests to the store and read the sums."""
        untold, self._pending = list(self._pending.items()), {}
        for at in range(0, len(untold), FLEET_SYNC_CONCURRENCY):
            some = untold[at : at + FLEET_SYNC_CONCURRENCY]
            if not all(await asyncio.gather(*(self._tell(name, count) for name, count in some))):
                return

    async def _tell(self, name: str, count: _Count) -> bool:
        amount, count.pending = count.pending, 0
        count.known += amount
        try:
            count.known = await self._store.incr(name, count.lifetime, amount)
        except Exception as error:
            self._failures.note(f"{type(error).__name__}: {error}"[:200], self._wall())
            return False
        return True

    @staticmethod
    def _log_failure(reason: str, count: int) -> None:
        log.warning("request rate store unavailable", reason=reason, count=count)
