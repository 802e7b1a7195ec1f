"""The 0-RTT anti-replay register shared by the workers of a fleet, in Redis.

TLS decides about early data immediately and cannot wait for a store. A ticket of this register is
therefore accepted by what the worker itself knows, and its requests are held until the store
confirms that the ticket was not used before (RFC 8470 section 3 allows a server to delay them). If
it was used, or the store does not answer in time, they are held until the handshake is complete,
which a replay cannot achieve: a failing store costs only the benefit of 0-RTT.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import structlog

from quicedge.config.limits import (
    EARLY_DATA_AGE_TOLERANCE,
    EARLY_DATA_LIFETIME,
    FLEET_REGISTER_CHECK,
    FLEET_STRIKES_WAITING,
    FLEET_SYNC_CONCURRENCY,
    FLEET_TIMEOUT,
    REFUSAL_LOG_INTERVAL,
)
from quicedge.quic.anti_replay import REGISTER_LENGTH, EarlyDataUse
from quicedge.telemetry.bounded_log import BoundedLog
from quicedge.telemetry.outcomes import EarlyDataVerdict

log = structlog.get_logger(__name__)

REMEMBERED = int(EARLY_DATA_LIFETIME + 2 * EARLY_DATA_AGE_TOLERANCE)
"""Seconds to remember a use: longer than any ticket is valid for early data."""


class ReplayStore(Protocol):
    """A set of used keys shared by all its users."""

    async def identity(self) -> str:
        """An identifier of this store that changes whenever it may have lost keys."""

    async def use(self, key: str) -> tuple[str, bool]:
        """Add `key` for `REMEMBERED` seconds; returns the identity and whether it was new."""

    async def close(self) -> None: ...


class RedisReplayStore:
    """A Redis server as `ReplayStore`.

    Its identity is the `run_id`, which changes with every start and differs between replicas: a
    server that may have lost uses, or never received some, does not vouch for older tickets.
    """

    def __init__(self, url: str) -> None:
        from redis import asyncio as redis

        self._redis = redis.Redis(
            connection_pool=redis.BlockingConnectionPool.from_url(
                url,
                max_connections=FLEET_SYNC_CONCURRENCY,
                timeout=FLEET_TIMEOUT,
                socket_timeout=FLEET_TIMEOUT,
                socket_connect_timeout=FLEET_TIMEOUT,
            )
        )

    async def identity(self) -> str:
        return str((await self._redis.info("server"))["run_id"])

    async def use(self, key: str) -> tuple[str, bool]:
        # One pipeline for both, so that the same server answers both.
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.info("server")
            pipeline.set(f"quicedge/early-data/{key}", b"", nx=True, ex=REMEMBERED)
            server, is_new = await pipeline.execute()
        return str(server["run_id"]), bool(is_new)

    async def close(self) -> None:
        await self._redis.aclose()


class SharedAntiReplay:
    """This worker's access to the register.

    `run` must be running for `ask` to succeed. `named` is called with the name of the register when
    it is first known and whenever it changes.
    """

    def __init__(
        self,
        store: ReplayStore,
        named: Callable[[bytes], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.verdicts: Counter[EarlyDataVerdict] = Counter()
        """Connections whose early data was asked about, by the answer."""
        self._store = store
        self._named = named
        self._clock = clock
        self._waiting: set[asyncio.Task[None]] = set()
        self._last_error = ""
        self._failures = BoundedLog(self._log_failure, REFUSAL_LOG_INTERVAL)

    async def run(self) -> None:
        """Poll the identity of the store until cancelled, then close it."""
        try:
            while True:
                try:
                    async with asyncio.timeout(FLEET_TIMEOUT):
                        self._learn(await self._store.identity())
                except Exception as error:
                    self._note_failure(error)
                await asyncio.sleep(FLEET_REGISTER_CHECK)
        finally:
            for task in self._waiting:
                task.cancel()
            await self._store.close()

    def ask(self, use: EarlyDataUse, is_first: Callable[[], None]) -> None:
        """Mark a ticket as used; calls `is_first` if it was not used before."""
        if len(self._waiting) >= FLEET_STRIKES_WAITING:
            self.verdicts[EarlyDataVerdict.BUSY] += 1
            return
        task = asyncio.get_running_loop().create_task(self._ask(use, is_first))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _ask(self, use: EarlyDataUse, is_first: Callable[[], None]) -> None:
        try:
            async with asyncio.timeout(FLEET_TIMEOUT):
                identity, is_new = await self._store.use(use.ticket_id.hex())
        except Exception as error:
            self.verdicts[EarlyDataVerdict.UNKNOWN] += 1
            self._note_failure(error)
            return
        # A register other than the ticket's may have missed an earlier use.
        if is_new and self._learn(identity) == use.register:
            self.verdicts[EarlyDataVerdict.FIRST] += 1
            is_first()
        else:
            self.verdicts[EarlyDataVerdict.USED] += 1

    def _learn(self, identity: str) -> bytes:
        name = hashlib.sha256(b"quicedge register " + identity.encode()).digest()[:REGISTER_LENGTH]
        self._named(name)
        return name

    def _note_failure(self, error: Exception) -> None:
        self._last_error = str(error)[:200]
        self._failures.note(type(error).__name__, self._clock())

    def _log_failure(self, reason: str, count: int) -> None:
        log.warning(
            "0-RTT register unavailable; early requests wait for the handshake",
            reason=f"{reason}: {self._last_error}",
            count=count,
        )
