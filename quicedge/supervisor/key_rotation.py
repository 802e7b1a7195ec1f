"""Follows the ticket and token keys of a fleet as they rotate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from quicedge.config.limits import REFUSAL_LOG_INTERVAL, SHARED_KEY_CHECK, SHARED_KEY_PERIOD
from quicedge.quic.ticket_keys import SharedKeys
from quicedge.supervisor.key_store import (
    KeyStore,
    KeyStoreError,
    is_store,
    open_store,
    read_keys,
    shown,
)
from quicedge.telemetry.bounded_log import BoundedLog
from quicedge.worker.control import Settings

log = structlog.get_logger("quicedge.supervisor")


class KeyRotation:
    """Reads the store every `SHARED_KEY_CHECK` seconds and when a period begins.

    Nothing runs while keys are in a file or not shared. Without the store, the last known keys are
    used on; before there are any, those of this host.
    """

    def __init__(
        self,
        on_change: Callable[[], Awaitable[None]],
        *,
        wall: Callable[[], float] = time.time,
        open_store: Callable[[str, bytes | None], KeyStore] = open_store,
    ) -> None:
        self.keys: SharedKeys | None = None
        self._on_change = on_change
        self._wall = wall
        self._open_store = open_store
        self._place: tuple[str, bytes | None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._failures = BoundedLog(self._log_failure, REFUSAL_LOG_INTERVAL)

    def configure(self, settings: Settings) -> None:
        """Follow the store of these settings, if they have one."""
        location = settings.config.tls.shared_keys
        place = None
        if location is not None and is_store(location):
            place = location, settings.fleet.secret if settings.fleet is not None else None
        if place == self._place:
            return
        self._place, self.keys = place, None
        self.close()
        if place is not None:
            self._task = asyncio.create_task(self._run(*place))

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self, location: str, secret: bytes | None) -> None:
        store = self._open_store(location, secret)
        name = shown(location)
        while True:
            now = self._wall()
            try:
                keys = await asyncio.to_thread(read_keys, store, now)
            except KeyStoreError as error:
                self._failures.note(f"{name}: {error}", now)
            else:
                found = SharedKeys(name, keys)
                if found != self.keys:
                    log.info("ticket keys changed", store=name, keys=len(keys))
                    self.keys = found
                    await self._on_change()
            await asyncio.sleep(min(SHARED_KEY_CHECK, SHARED_KEY_PERIOD - now % SHARED_KEY_PERIOD))

    @staticmethod
    def _log_failure(reason: str, count: int) -> None:
        log.warning("shared ticket keys unavailable; using those there are", reason=reason)
