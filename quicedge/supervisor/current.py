"""The settings that the edge runs with, and how others take their place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from quicedge.config.limits import WORKER_FAILED_STARTS
from quicedge.config.schema import Config
from quicedge.config.unusable import UnusableError
from quicedge.supervisor import notify
from quicedge.supervisor.ownership import give_logs, restore_owners
from quicedge.supervisor.reload import ReloadError, commit, prepare, reread
from quicedge.supervisor.workers import Worker
from quicedge.telemetry.logs import Logs
from quicedge.worker.control import Settings
from quicedge.worker.privileges import Identity

log = structlog.get_logger("quicedge.supervisor")


class CurrentSettings:
    """One change at a time, in this process and in all workers or nowhere.

    `workers` are those that are ready, `on_change` is told what is new.
    """

    def __init__(
        self,
        settings: Settings,
        path: str | None,
        logs: Logs,
        identity: Identity | None,
        *,
        workers: Callable[[], list[Worker]],
        on_change: Callable[[Settings], Awaitable[None]],
    ) -> None:
        self.settings = settings
        self.logs = logs
        self.reloads = 0
        """Those that took effect."""
        self.error: str | None = None
        """Why the last one did not, or was taken back."""
        self._path = path
        self._identity = identity
        self._workers = workers
        self._on_change = on_change
        self._lock = asyncio.Lock()
        self._proven = settings
        """The last that a worker has started with."""
        self._failed_starts = 0
        """Workers in a row that ended before they were ready."""

    @property
    def config(self) -> Config:
        return self.settings.config

    def give_logs(self) -> None:
        """Have log files there that workers without privileges can append to."""
        give_logs(self.config.log, self._identity)

    async def reload(self) -> None:
        """Read the configuration again and use it; what is wrong with it is said and kept."""
        async with self._lock:
            notify.notify(*notify.reloading())
            try:
                await self._change(reread(self._path, self.config))
            except (ReloadError, UnusableError) as error:
                self.error = str(error)
                log.error("reload failed, configuration unchanged", error=str(error))
                status = "reload failed, configuration unchanged"
            else:
                self._failed_starts = 0
                self.error = None
                self.reloads += 1
                log.info("reloaded", config=self._path)
                status = "configuration reloaded"
            notify.notify("READY=1", f"STATUS={status}")

    async def started(self, worker: Worker) -> None:
        """A worker is ready: tell it what changed meanwhile."""
        if worker.spec.settings is self.settings:
            self._proven = self.settings
            self._failed_starts = 0
        async with self._lock:
            if worker.settings is self.settings or worker.state != "ready":
                return
            try:
                await prepare([worker], self.settings)
            except ReloadError as error:
                log.error("worker cannot catch up, it is replaced", error=str(error))
                worker.kill()
                return
            await commit([worker], self.settings)

    async def failed_to_start(self, reason: str) -> None:
        """A worker ended before it was ready: after some, go back to settings that were good."""
        self._failed_starts += 1
        async with self._lock:
            if self.settings is self._proven or self._failed_starts < WORKER_FAILED_STARTS:
                return
            try:
                await self._change(self._proven)
            except (ReloadError, UnusableError) as error:
                log.error("cannot go back to the previous configuration", error=str(error))
                self._failed_starts = 0
                return
            self.error = f"workers do not start with it: {reason}"
            log.error(
                "configuration reverted, workers did not start with the new one",
                error=reason,
                failed_starts=self._failed_starts,
            )
            notify.notify("STATUS=configuration reverted, workers did not start with the new one")

    async def _change(self, settings: Settings) -> None:
        """Use other settings, here and in every worker; UnusableError or ReloadError when that
        cannot be, and then nothing has changed."""
        logs = self.logs.successor(settings.config.log)
        owners = give_logs(settings.config.log, self._identity)
        try:
            workers = self._workers()
            await prepare(workers, settings)
        except BaseException:
            restore_owners(owners)
            self.logs.discard(logs)
            raise
        # From here on a worker that starts has the new ones; one that is starting catches up.
        self.settings = settings
        self.logs = self.logs.replace_by(logs)
        await commit(workers, settings)
        await self._on_change(settings)
