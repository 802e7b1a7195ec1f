"""Worker processes: started, monitored, replaced when they die, drained at shutdown.

A worker inherits no loop, thread, lock or half-written buffer of the supervisor, however it is
spawned (`spawning`), and a replacement starts exactly as the first worker did. It inherits its
sockets by number and receives everything else over its control socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import structlog

from quicedge.admin.view import WorkerState
from quicedge.config.limits import (
    CONTROL_TIMEOUT,
    STOP_GRACE,
    TUNNEL_DRAIN_SPREAD,
    WORKER_BACKOFF_MAX,
    WORKER_BACKOFF_MIN,
    WORKER_HEARTBEAT,
    WORKER_HEARTBEATS_MISSED,
    WORKER_STABLE,
)
from quicedge.config.schema import Config
from quicedge.supervisor.adoption import Adopted, AdoptedProcess
from quicedge.supervisor.spawning import Process, Spawner
from quicedge.supervisor.start_timeout import start_timeout
from quicedge.telemetry.stats import WorkerStats
from quicedge.udp.connection_id_codec import slot_number
from quicedge.worker.control import ControlChannel, ControlError, DrainOrder, Handler, WorkerSpec
from quicedge.worker.process import DEFAULT_ENTRY

log = structlog.get_logger(__name__)

MakeSpec = Callable[[int, int], WorkerSpec]
"""Slot and number of the control descriptor -> the worker's specification."""


class WorkerError(Exception):
    """A worker that never became ready; the message says which one and how it ended."""


class NoWorkerError(ControlError):
    """The slot currently has no worker that could answer."""


class Worker:
    """One worker process and the supervisor's end of its control channel."""

    def __init__(self, slot: int, spec: WorkerSpec | None, process: Process) -> None:
        self.slot = slot
        self.spec = spec
        """None: another supervisor has started it."""
        self.settings = None if spec is None else spec.settings
        """The settings in use: those it started with, until a reload; None: unknown."""
        self.failure: str | None = None
        """Why it failed to start, as reported by itself."""
        self.started_at = time.monotonic()
        self.state = WorkerState.STARTING
        self.ready = asyncio.Event()
        self.drained = asyncio.Event()
        """Set when it has no connection left or is dead."""
        self.channel: ControlChannel
        self.counted: WorkerStats | None = None
        """What it has counted, as far as it is known."""
        self._process = process

    @classmethod
    async def start(
        cls,
        slot: int,
        make_spec: MakeSpec,
        spawner: Spawner,
        entry: str,
        notices: Mapping[str, Handler],
    ) -> Worker:
        """Spawn a process and send it its specification; raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            spec = make_spec(slot, theirs.fileno())
            process = await spawner.spawn(entry, theirs.fileno(), spec.inherited_fds)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = cls(slot, spec, process)
        await worker._command(ours, notices)
        worker.channel.send_spec(spec)
        return worker

    @classmethod
    async def adopt(cls, adopted: Adopted, notices: Mapping[str, Handler]) -> Worker:
        """Go on with a worker of another supervisor; raises ProcessLookupError."""
        worker = cls(adopted.orphan.slot, None, AdoptedProcess(adopted.pid))
        worker.state = WorkerState.READY
        worker.ready.set()
        await worker._command(adopted.control, notices)
        return worker

    async def _command(self, control: socket.socket, notices: Mapping[str, Handler]) -> None:
        self.channel = ControlChannel(
            control,
            {
                "ready": self._on_ready,
                "drained": self._on_drained,
                "failed": self._on_failed,
                "counted": self._on_counted,
                **notices,
            },
        )
        await self.channel.start()

    def _on_ready(self) -> None:
        if self.state is WorkerState.STARTING:
            self.state = WorkerState.READY
        self.ready.set()

    def _on_failed(self, reason: str) -> None:
        self.failure = reason

    def _on_drained(self) -> None:
        self.state = WorkerState.DRAINING
        self.drained.set()

    def _on_counted(self, stats: WorkerStats) -> None:
        self.counted = stats

    async def stats(self, timeout: float = CONTROL_TIMEOUT) -> WorkerStats:
        """What it has counted by now; raises ControlError."""
        stats: WorkerStats = await self.channel.call("stats", timeout=timeout)
        self.counted = stats
        return stats

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self.state is not WorkerState.DEAD

    async def drain(self, order: DrainOrder) -> None:
        """Ask it to drain; a starting worker reads the request once it is up."""
        if self.state is not WorkerState.DEAD:
            self.state = WorkerState.DRAINING
        try:
            await self.channel.call("drain", order)
        except ControlError as error:
            log.debug("drain not confirmed", slot=self.slot, pid=self.pid, error=str(error))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def exited(self) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        code = await self._process.wait()
        await self.channel.lost()
        self.state = WorkerState.DEAD
        self.drained.set()
        self.channel.close()
        return code


class WorkerPool:
    """Keeps one worker running in each slot. Call `start` once, then `stop`.

    `spawner` creates the processes. `entry` (`module:function`) replaces the worker's main function
    in tests. `on_ready` is called with every worker that becomes ready, `on_dead` with every one
    that ended, `on_failed` with the reason when a replacement ends before it is ready. `notices`:
    handlers of further notices.

    Workers are known by their slots, which are those of `bank`.
    """

    def __init__(
        self,
        workers: int,
        make_spec: MakeSpec,
        *,
        spawner: Spawner,
        bank: int = 0,
        entry: str | None = None,
        on_ready: Callable[[Worker], None] = lambda worker: None,
        on_dead: Callable[[Worker], None] = lambda worker: None,
        on_failed: Callable[[str], None] = lambda reason: None,
        notices: Mapping[str, Handler] = MappingProxyType({}),
    ) -> None:
        self.slots = [slot_number(bank, worker) for worker in range(workers)]
        self.current: dict[int, Worker | None] = dict.fromkeys(self.slots)
        self.restarts = dict.fromkeys(self.slots, 0)
        self.killed = 0
        """Workers that had to be killed at shutdown."""
        self._make_spec = make_spec
        self._spawner = spawner
        self._entry = entry or DEFAULT_ENTRY
        self._on_ready = on_ready
        self._on_dead = on_dead
        self._notices = notices
        self._on_failed = on_failed
        self._stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []
        self._adopted: dict[int, Worker] = {}

    @property
    def ready(self) -> bool:
        return len(self.ready_workers()) == len(self.current)

    def ready_workers(self) -> list[Worker]:
        """The workers that are currently ready."""
        return [
            worker
            for worker in self.current.values()
            if worker is not None and worker.state is WorkerState.READY
        ]

    def _alive(self) -> list[Worker]:
        return [
            worker
            for worker in self.current.values()
            if worker is not None and worker.state is not WorkerState.DEAD
        ]

    async def start(self) -> None:
        """Start every worker and wait until all are ready.

        Raises WorkerError when one ends or times out before it was ever ready: a configuration that
        no worker can start with fails the start instead of being retried forever. The pool must
        then be stopped.
        """
        loop = asyncio.get_running_loop()
        first: dict[int, asyncio.Future[None]] = {slot: loop.create_future() for slot in self.slots}
        self._keepers = [asyncio.create_task(self._keep(slot, first[slot])) for slot in self.slots]
        try:
            await asyncio.gather(*first.values())
        finally:
            for future in first.values():
                future.cancel()

    async def adopt(self, workers: Iterable[Adopted]) -> None:
        """Take on workers of another supervisor, before `start` or in place of it."""
        for adopted in workers:
            try:
                worker = await Worker.adopt(adopted, self._notices)
            except (OSError, ControlError) as error:
                log.warning("worker not adopted", pid=adopted.pid, reason=str(error))
                continue
            self._adopted[worker.slot] = self.current[worker.slot] = worker

    def keep_adopted(self) -> None:
        """Watch the adopted workers, and start no others."""
        loop = asyncio.get_running_loop()
        self._keepers = [
            asyncio.create_task(self._keep(slot, loop.create_future()))
            for slot in list(self._adopted)
        ]

    async def stop(self, order: DrainOrder, *, refusing: bool = False) -> None:
        """Drain all workers, and kill those that take longer than `STOP_GRACE` more.

        May be called again meanwhile; the shorter time counts. `refusing`: successors do not take
        all new clients.
        """
        self._stopping.set()
        alive = self._alive()
        # Where there are no successors, each refuses new clients until the last has drained.
        alone = order.succeeded and not refusing
        groups = [[worker] for worker in alive] if alone else [alive]
        draining = asyncio.gather(
            *(_dismiss_once_drained(group) for group in groups),
            *(worker.drain(order) for worker in alive),
        )
        if self._keepers:
            spread = TUNNEL_DRAIN_SPREAD if order.long > order.seconds or order.succeeded else 0.0
            seconds = max(order.seconds, order.long) + spread
            _, running = await asyncio.wait(self._keepers, timeout=seconds + STOP_GRACE)
            if running:
                self._kill_all()
                await asyncio.wait(running)
        draining.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await draining

    async def ask(
        self, method: str, parameter: Any = None
    ) -> tuple[dict[int, Any], dict[int, ControlError]]:
        """The answers of all ready or draining workers and the errors of the others, by slot.

        The error is NoWorkerError for a slot without such a worker.
        """
        answers: dict[int, Any] = {}
        errors: dict[int, ControlError] = {}

        async def one(slot: int) -> None:
            try:
                answers[slot] = await self.ask_one(slot, method, parameter)
            except ControlError as error:
                errors[slot] = error

        await asyncio.gather(*(one(slot) for slot in self.slots))
        return answers, errors

    async def ask_one(self, slot: int, method: str, parameter: Any = None) -> Any:
        """The answer of the worker in a slot; raises ControlError."""
        worker = self.current.get(slot)
        if worker is None or worker.state in (WorkerState.STARTING, WorkerState.DEAD):
            raise NoWorkerError("no worker is ready")
        return await worker.channel.call(method, parameter)

    # --- one slot ---------------------------------------------------------------------------

    async def _keep(self, slot: int, first: asyncio.Future[None]) -> None:
        """Keep a worker running in the slot until the pool stops."""
        backoff = WORKER_BACKOFF_MIN
        while not self._stopping.is_set():
            started = time.monotonic()
            ending = await self._live(slot, first)
            if self._stopping.is_set():
                break
            if not first.done():
                first.set_exception(WorkerError(f"worker {slot} failed to start: {ending}"))
                return
            if not self._became_ready(slot):
                self._on_failed(ending)
            lived = time.monotonic() - started
            if lived >= WORKER_STABLE:
                backoff = WORKER_BACKOFF_MIN
            log.error(
                "worker died; replacing it",
                slot=slot, ending=ending, lived_seconds=round(lived, 3), delay_seconds=backoff,
            )  # fmt: skip
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff)
            backoff = min(backoff * 2, WORKER_BACKOFF_MAX)
            self.restarts[slot] += 1

    async def _live(self, slot: int, first: asyncio.Future[None]) -> str:
        """Run one worker to its end; returns how it ended, in words."""
        try:
            worker = self._adopted.pop(slot, None) or await Worker.start(
                slot, self._make_spec, self._spawner, self._entry, self._notices
            )
        except (OSError, ControlError) as error:
            return str(error)
        self.current[slot] = worker
        if self._stopping.is_set() and worker.spec is not None:
            worker.kill()
        watch = asyncio.create_task(self._watch(worker, first))
        try:
            code = await worker.exited()
        finally:
            watch.cancel()
        self._on_dead(worker)
        if self._stopping.is_set():
            log.info("worker ended", slot=slot, pid=worker.pid, ending=_ending(code))
        return worker.failure or _ending(code)

    def _became_ready(self, slot: int) -> bool:
        worker = self.current[slot]
        return worker is not None and worker.ready.is_set()

    async def _watch(self, worker: Worker, first: asyncio.Future[None]) -> None:
        """Kill a worker that does not become ready in time or stops answering."""
        try:
            settings = worker.settings
            config = Config() if settings is None else settings.config
            async with asyncio.timeout(start_timeout(config)):
                await worker.ready.wait()
        except TimeoutError:
            log.error("worker start timed out", slot=worker.slot, pid=worker.pid)
            worker.kill()
            return
        log.info("worker ready", slot=worker.slot, pid=worker.pid)
        self._on_ready(worker)
        if not first.done():
            first.set_result(None)
        missed = 0
        while missed < WORKER_HEARTBEATS_MISSED:
            await asyncio.sleep(WORKER_HEARTBEAT)
            try:
                await worker.stats(WORKER_HEARTBEAT)
                missed = 0
            except ControlError:
                missed += 1
        log.error("worker stopped answering", slot=worker.slot, pid=worker.pid)
        worker.kill()

    def _kill_all(self) -> None:
        for worker in self._alive():
            log.warning("worker did not stop in time; killing it", slot=worker.slot, pid=worker.pid)
            self.killed += 1
            worker.kill()


async def _dismiss_once_drained(workers: list[Worker]) -> None:
    """Dismiss these workers at once, when the last of them has drained."""
    for worker in workers:
        await worker.drained.wait()
    for worker in workers:
        worker.channel.notify("dismiss")


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
