"""Request counts that the workers of a fleet add up in one store, without waiting for it.

A request is decided at once, by what the store said last and what came here since; a task tells
the store and hears from it every `FLEET_SYNC_INTERVAL`. So a fleet may exceed a rate by what comes
in one interval, and no request waits. When the store does not answer, every worker goes on with
what it knows and counts for itself.
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
from quicedge.quic.admission import BoundedLog

log = structlog.get_logger(__name__)


class Store(Protocol):
    """Counters that several machines see (`limits.aio.storage`)."""

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a counter that is forgotten after `expiry` seconds; returns the sum."""


def open_store(url: str) -> Store:
    """A store of the `limits` library; ImportError when quicedge[redis] is not installed."""
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
    """Requests of one client in one window: `known` to be in the store, `pending` to be told."""

    __slots__ = ("known", "lifetime", "pending")

    def __init__(self, lifetime: int) -> None:
        self.known = 0
        self.pending = 0
        self.lifetime = lifetime


class FleetCounts:
    """The counts of this worker and what it knows of the others'. Windows follow the wall clock."""

    def __init__(self, store: Store, wall: Callable[[], float] = time.time) -> None:
        self._store = store
        self._wall = wall
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._untold: dict[str, _Count] = {}
        self._failures = BoundedLog(self._say_failed, REFUSAL_LOG_INTERVAL)

    def take(self, key: str, most: int, seconds: float) -> float:
        """Count one of at most `most` in `seconds`; 0, or how long until there is room."""
        now = self._wall()
        window = int(now // seconds)
        name = f"{key}:{window}"
        count = self._counts.get(name)
        if count is None:
            count = self._counts[name] = _Count(int(seconds) + 1)
            if len(self._counts) > MAX_PREFIX_RATES:
                forgotten, _ = self._counts.popitem(last=False)
                self._untold.pop(forgotten, None)
        else:
            self._counts.move_to_end(name)
        if count.known + count.pending >= most:
            return (window + 1) * seconds - now
        count.pending += 1
        self._untold[name] = count
        return 0.0

    async def run(self) -> None:
        """Keep in touch with the store until cancelled."""
        while True:
            await asyncio.sleep(FLEET_SYNC_INTERVAL)
            await self.sync()

    async def sync(self) -> None:
        """Tell the store what came since, and learn what came elsewhere."""
        untold, self._untold = list(self._untold.items()), {}
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
    def _say_failed(reason: str, count: int) -> None:
        log.warning("the store of request rates does not answer", reason=reason, count=count)
