"""The supervisor: sockets, workers, admin API and signals, from start to exit."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Coroutine
from typing import Any, Literal

import structlog

from quicedge import __version__
from quicedge.admin.server import AdminAddressError, AdminServer
from quicedge.admin.view import Connections, QlogLevel, State, Status, WorkerStatus
from quicedge.config.limits import MAX_WORKERS, WORKER_FAILED_STARTS
from quicedge.config.schema import Config
from quicedge.config.unusable import UnusableError
from quicedge.supervisor import notify
from quicedge.supervisor.expiry import CertificateWatch
from quicedge.supervisor.ownership import give_logs, take_back
from quicedge.supervisor.reload import (
    ReloadError,
    commit,
    prepare,
    read_settings,
    reread,
)
from quicedge.supervisor.resets import Rosters, UnaskedResets
from quicedge.supervisor.sockets import ListenError, Listeners
from quicedge.supervisor.spans import Spans
from quicedge.supervisor.workers import NoWorkerError, Worker, WorkerError, WorkerPool
from quicedge.telemetry.logs import Logs
from quicedge.telemetry.stats import (
    ConnectionPage,
    ConnectionQuery,
    ConnectionStats,
    FollowAnswer,
    TraceAnswer,
    first_rows,
    merge,
)
from quicedge.telemetry.tracefiles import trace_directory
from quicedge.worker.control import (
    CloseOrder,
    ControlError,
    FollowOrder,
    Settings,
    TraceOrder,
    WorkerSpec,
)
from quicedge.worker.privileges import PrivilegeError, identity_of

log = structlog.get_logger("quicedge.supervisor")

_SECRET_LENGTH = 32


def run(config: Config, config_path: str | None, *, worker_entry: str | None = None) -> int:
    """Run the edge until it is told to stop; the exit code.

    SIGTERM and SIGINT drain, a second one stops at once; SIGHUP reloads `config_path` and the
    certificates; SIGUSR1 reopens the logs; SIGUSR2 is ignored. `worker_entry` is for tests
    (`WorkerPool`).
    """
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        # Until they are handled: by default they end the process.
        signal.signal(number, signal.SIG_IGN)
    try:
        logs = Logs(config.log, process="supervisor", exchanges=False)
    except UnusableError as error:
        print(f"quicedge: {error}", file=sys.stderr)
        return 1
    supervisor = Supervisor(config, config_path, logs, worker_entry)
    try:
        return asyncio.run(supervisor.serve())
    finally:
        supervisor.logs.close()


class Supervisor:
    """The edge as a whole; what the admin API asks (`admin.view.EdgeView`)."""

    def __init__(
        self, config: Config, config_path: str | None, logs: Logs, worker_entry: str | None
    ) -> None:
        self.logs = logs
        self._settings = Settings(config=config)
        """What is in use: of the start, then of the last reload."""
        self._previous: Settings | None = None
        """What was in use before, until a worker has started with the current ones."""
        self._failed_starts = 0
        """Workers in a row that ended before they were ready."""
        self._config_path = config_path
        self._worker_entry = worker_entry
        self._secret = secrets.token_bytes(_SECRET_LENGTH)
        self._workers = (
            min(os.cpu_count() or 1, MAX_WORKERS) if config.workers == "auto" else config.workers
        )
        self._started_at = time.monotonic()
        self._state: State = "starting"
        self._logs_reopened_at = 0.0
        self._reloads = 0
        self._reload_error: str | None = None
        self._reload_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._spans = Spans()
        self._certificates = CertificateWatch()

    async def serve(self) -> int:
        """0 when all workers ended by themselves, 1 when the start failed or some were killed."""
        self._stop = asyncio.Event()
        try:
            self._identity = identity_of(self._config.user, self._config.group)
            self._settings = read_settings(self._config)
        except (PrivilegeError, ReloadError) as error:
            log.error("cannot start", error=str(error))
            return 1
        self._certificates.use(self._settings.certificates)
        try:
            self._listeners = Listeners(self._config.listen, self._workers)
        except ListenError as error:
            log.error("cannot listen", error=str(error))
            return 1
        self._rosters = Rosters(self._workers)
        self._resets = UnaskedResets(self._listeners, self._secret)
        self._pool = WorkerPool(
            self._workers,
            self._make_spec,
            entry=self._worker_entry,
            on_ready=self._worker_ready,
            on_dead=self._worker_dead,
            on_spans=self._spans.put,
            on_failed=self._worker_failed,
        )
        admin: AdminServer | None = None
        try:
            if self._config.admin.enabled:
                admin = AdminServer(self._config.admin, self)
                admin.start()
            self._handle_signals()
            self._spawn(self._certificates.run())
            await self._spans.configure(self._config.otel)
            return await self._run_workers(admin)
        except AdminAddressError as error:
            log.error("cannot listen", error=str(error))
            return 1
        finally:
            if admin is not None:
                await admin.close()
            await self._spans.close()
            await self._resets.close()
            self._listeners.close()
            self._rosters.close()

    async def _run_workers(self, admin: AdminServer | None) -> int:
        starting = asyncio.create_task(self._pool.start())
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        failed = False
        if starting.done():
            try:
                starting.result()
            except WorkerError as error:
                log.error("cannot start", error=str(error))
                failed = True
        if not failed and not self._stop.is_set():
            self._state = "running"
            notify.notify("READY=1", f"STATUS={self._workers} workers")
            log.info(
                "ready",
                version=__version__,
                listen=[listener.address for listener in self._listeners.status()],
                workers=self._workers,
                admin=admin.address if admin else None,
            )
            await self._stop.wait()
        self._state = "draining"
        notify.notify("STOPPING=1")
        log.info("draining", seconds=0 if failed else self._config.drain_timeout)
        starting.cancel()
        stopped.cancel()
        await self._pool.stop(0.0 if failed else self._config.drain_timeout)
        log.info("stopped", killed=self._pool.killed)
        return 1 if failed or self._pool.killed else 0

    def _make_spec(self, slot: int, control_fd: int) -> WorkerSpec:
        # A worker without privileges cannot make a log file again that somebody removed.
        give_logs(self._config.log, self._identity)
        return WorkerSpec(
            slot=slot,
            workers=self._workers,
            settings=self._settings,
            tolerant=self._state != "starting",
            sockets=self._listeners.of_slot(slot),
            inbox_fd=self._listeners.inbox_of(slot),
            outbox_fds=self._listeners.outboxes,
            roster_fd=self._rosters.of_slot(slot),
            identity=self._identity,
            control_fd=control_fd,
            secret=self._secret,
        )

    @property
    def _config(self) -> Config:
        return self._settings.config

    def _worker_ready(self, worker: Worker) -> None:
        if worker.spec.settings is self._settings:
            self._previous = None
            self._failed_starts = 0
        self._spawn(self._catch_up(worker))

    def _worker_dead(self, worker: Worker) -> None:
        self._resets.send(worker.slot, self._rosters.take(worker.slot))

    def _worker_failed(self, reason: str) -> None:
        self._failed_starts += 1
        if self._previous is not None and self._failed_starts >= WORKER_FAILED_STARTS:
            self._spawn(self._revert(reason))

    async def _catch_up(self, worker: Worker) -> None:
        """Tell a worker what was said while it started."""
        async with self._reload_lock:
            if worker.settings is not self._settings and worker.state == "ready":
                try:
                    await prepare([worker], self._settings)
                except ReloadError as error:
                    log.error("worker cannot catch up, it is replaced", error=str(error))
                    worker.kill()
                    return
                await commit([worker], self._settings)
        try:
            if worker.started_at < self._logs_reopened_at:
                await worker.channel.call("reopen_logs")
        except ControlError as error:
            log.error("worker did not reopen its logs", slot=worker.slot, error=str(error))

    async def _tell_all(self, method: str, parameter: Any = None) -> int:
        """Tell every worker; how many failed. Those that start will catch up."""
        _, errors = await self._pool.ask(method, parameter)
        failed = {k: error for k, error in errors.items() if not isinstance(error, NoWorkerError)}
        for slot, error in failed.items():
            log.error("worker did not obey", slot=slot, order=method, error=str(error))
        return len(failed)

    # --- signals ----------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload()))
        loop.add_signal_handler(signal.SIGUSR1, lambda: self._spawn(self._reopen_logs()))
        loop.add_signal_handler(
            signal.SIGUSR2,
            lambda: log.warning("signal ignored, it has no meaning", signal="SIGUSR2"),
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_stop(self, number: signal.Signals) -> None:
        log.info("told to stop", signal=number.name, at_once=self._stop.is_set())
        if self._stop.is_set():
            self._spawn(self._pool.stop(0.0))
        self._stop.set()

    async def _reload(self) -> None:
        async with self._reload_lock:
            if self._state == "draining":
                return
            notify.notify(*notify.reloading())
            try:
                previous = self._settings
                await self._change(reread(self._config_path, self._config))
            except (ReloadError, UnusableError) as error:
                self._reload_error = str(error)
                log.error("reload failed, configuration unchanged", error=str(error))
                notify.notify("READY=1", "STATUS=reload failed, configuration unchanged")
            else:
                self._previous = previous
                self._failed_starts = 0
                self._reload_error = None
                self._reloads += 1
                log.info("reloaded", config=self._config_path)
                notify.notify("READY=1", f"STATUS={self._workers} workers")

    async def _change(self, settings: Settings) -> None:
        """Use other settings, here and in every worker; UnusableError or ReloadError when that
        cannot be, and then nothing has changed."""
        logs = self.logs.successor(settings.config.log)
        gifts = give_logs(settings.config.log, self._identity)
        try:
            workers = self._pool.able()
            await prepare(workers, settings)
        except BaseException:
            take_back(gifts)
            self.logs.discard(logs)
            raise
        # From here on a worker that starts has the new ones; one that is starting catches up.
        self._settings = settings
        self.logs = self.logs.replace_by(logs)
        await commit(workers, settings)
        self._certificates.use(settings.certificates)
        await self._spans.configure(settings.config.otel)

    async def _revert(self, reason: str) -> None:
        """Go back to the settings before the last reload: workers do not start with its own."""
        async with self._reload_lock:
            previous = self._previous
            if (
                previous is None
                or self._failed_starts < WORKER_FAILED_STARTS
                or self._state == "draining"
            ):
                return
            self._previous = None
            try:
                await self._change(previous)
            except (ReloadError, UnusableError) as error:
                log.error("cannot go back to the previous configuration", error=str(error))
                return
            self._reload_error = f"workers do not start with it: {reason}"
            log.error(
                "configuration reverted, workers did not start with the new one",
                error=reason,
                failed_starts=self._failed_starts,
            )
            notify.notify("STATUS=configuration reverted, workers did not start with the new one")

    async def _reopen_logs(self) -> None:
        try:
            self.logs.reopen()
        except OSError as error:
            log.error("log not reopened", error=str(error))
        give_logs(self._config.log, self._identity)
        self._logs_reopened_at = time.monotonic()
        await self._tell_all("reopen_logs")
        log.info("logs reopened")

    # --- admin.view.EdgeView ------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._state

    @property
    def ready(self) -> bool:
        return self._state == "running" and self._pool.ready

    async def status(self) -> Status:
        answers, _ = await self._pool.ask("stats")
        now = time.monotonic()
        workers = [
            WorkerStatus(
                slot=slot,
                state=worker.state if worker else "starting",
                pid=worker.pid if worker and worker.state != "dead" else None,
                restarts=self._pool.restarts[slot],
                uptime_seconds=now - worker.started_at
                if worker and worker.state != "dead"
                else None,
                stats=answers.get(slot),
            )
            for slot, worker in enumerate(self._pool.current)
        ]
        return Status(
            version=__version__,
            state=self._state,
            pid=os.getpid(),
            uptime_seconds=now - self._started_at,
            config_path=self._config_path,
            reloads=self._reloads,
            last_reload_error=self._reload_error,
            connections=sum(stats.connections for stats in answers.values()),
            listeners=self._listeners.status(),
            workers=workers,
            certificates=self._certificates.status,
            spans=self._spans.counts,
            trace_directory=self.trace_directory,
        )

    async def connections(self, query: ConnectionQuery) -> Connections:
        answers: dict[int, ConnectionPage]
        answers, errors = await self._pool.ask("connections", first_rows(query))
        page = merge(answers.values(), query)
        return Connections(
            total=page.total,
            limit=query.limit,
            offset=query.offset,
            unanswered=sorted(errors),
            connections=page.connections,
        )

    async def connection(self, connection_id: str) -> ConnectionStats | None:
        answers, _ = await self._pool.ask("connection", connection_id)
        return next((found for found in answers.values() if found is not None), None)

    async def close_connection(self, connection_id: str, code: int, reason: str) -> bool:
        order = CloseOrder(connection_id, code, reason)
        answers, _ = await self._pool.ask("close_connection", order)
        return any(answers.values())

    async def set_log_level(self, level: str) -> None:
        logging.getLogger().setLevel(level.upper())
        await self._tell_all("set_log_level", level)

    @property
    def trace_directory(self) -> str | None:
        return trace_directory(self._config.qlog)

    async def trace_connection(
        self, connection_id: str, action: Literal["start", "stop"]
    ) -> TraceAnswer:
        answers, _ = await self._pool.ask("trace_connection", TraceOrder(connection_id, action))
        return next((one for one in answers.values() if one.found), TraceAnswer(found=False))

    async def follow_connection(
        self, worker: int, connection_id: str, follower: str, level: QlogLevel
    ) -> FollowAnswer:
        order = FollowOrder(connection_id, follower, level)
        try:
            answer: FollowAnswer = await self._pool.ask_one(worker, "follow_connection", order)
        except ControlError as error:
            log.debug("connection not followed", connection=connection_id, error=str(error))
            return FollowAnswer(found=False)
        return answer
