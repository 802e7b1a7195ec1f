"""Worker processes: started, watched, replaced when they die, drained at the end.

A worker is a fresh interpreter, not a fork: it inherits no loop, thread, lock or half-written
buffer of the supervisor, and the worker that replaces a dead one starts exactly as the first did.
It gets its sockets by number (`pass_fds`) and everything else over its control socket, so no
secret shows in its arguments or environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import structlog

import quicedge
from quicedge.config.limits import (
    STOP_GRACE,
    WORKER_BACKOFF_MAX,
    WORKER_BACKOFF_MIN,
    WORKER_HEARTBEAT,
    WORKER_HEARTBEATS_MISSED,
    WORKER_STABLE,
    WORKER_START_TIMEOUT,
)
from quicedge.telemetry.spans import Span
from quicedge.worker.control import ControlChannel, ControlError, WorkerSpec

log = structlog.get_logger(__name__)

_PACKAGE_PARENT = str(Path(quicedge.__file__).resolve().parent.parent)

MakeSpec = Callable[[int, int], WorkerSpec]
"""Slot and number of the control descriptor -> what the worker starts from."""


OnSpans = Callable[[list[Span]], None]


class WorkerError(Exception):
    """A worker that never became ready; the message says which and how it ended."""


class NoWorkerError(ControlError):
    """The slot has no worker that could be asked, just now."""


class Worker:
    """One worker process and the supervisor's end of its control channel."""

    def __init__(self, slot: int, spec: WorkerSpec, process: asyncio.subprocess.Process) -> None:
        self.slot = slot
        self.spec = spec
        self.settings = spec.settings
        """What it uses: those that it started with, until a reload."""
        self.failure: str | None = None
        """Why it could not start, in its own words."""
        self.started_at = time.monotonic()
        self.state: Literal["starting", "ready", "draining", "dead"] = "starting"
        self.ready = asyncio.Event()
        self.drained = asyncio.Event()
        """It has no connection left, or is dead."""
        self.channel: ControlChannel
        self._process = process

    @classmethod
    async def start(
        cls, slot: int, make_spec: MakeSpec, entry: str | None, on_spans: OnSpans
    ) -> Worker:
        """Spawn a process and send it its specification; OSError when there can be none."""
        ours, theirs = socket.socketpair()
        try:
            spec = make_spec(slot, theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the current directory is not where modules come from
                "-m",
                "quicedge.worker",
                str(theirs.fileno()),
                *([entry] if entry else []),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *spec.inherited_fds],
                env=_environment(),
                process_group=0,  # Ctrl-C in a terminal is the supervisor's alone
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = cls(slot, spec, process)
        worker.channel = ControlChannel(
            ours,
            {
                "ready": worker._on_ready,
                "drained": worker._on_drained,
                "failed": worker._on_failed,
                "spans": on_spans,
            },
        )
        await worker.channel.start()
        worker.channel.send_spec(spec)
        return worker

    def _on_ready(self) -> None:
        if self.state == "starting":
            self.state = "ready"
        self.ready.set()

    def _on_failed(self, reason: str) -> None:
        self.failure = reason

    def _on_drained(self) -> None:
        self.state = "draining"
        self.drained.set()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def drain(self, seconds: float) -> None:
        """Tell it to finish; a worker that still starts will read it when it is up."""
        if self.state != "dead":
            self.state = "draining"
        try:
            await self.channel.call("drain", seconds)
        except ControlError as error:
            log.debug("drain not confirmed", slot=self.slot, pid=self.pid, error=str(error))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def exited(self) -> int:
        """Its exit code, negative for a signal, once it has ended."""
        code = await self._process.wait()
        self.state = "dead"
        self.drained.set()
        self.channel.close()
        return code


class WorkerPool:
    """One worker in each slot, for as long as the pool lives.

    `entry` (`module:function`) stands in for the worker's main function, in tests.
    `on_ready` is called with every worker that becomes ready, `on_dead` with every one that ended,
    `on_spans` with what they record, `on_failed` with the reason when a worker that takes a dead
    one's place ends before it is ready.
    """

    def __init__(
        self,
        workers: int,
        make_spec: MakeSpec,
        *,
        entry: str | None = None,
        on_ready: Callable[[Worker], None] = lambda worker: None,
        on_dead: Callable[[Worker], None] = lambda worker: None,
        on_spans: OnSpans = lambda spans: None,
        on_failed: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.current: list[Worker | None] = [None] * workers
        self.restarts = [0] * workers
        self.killed = 0
        """Workers that did not end by themselves when told to stop."""
        self._make_spec = make_spec
        self._entry = entry
        self._on_ready = on_ready
        self._on_dead = on_dead
        self._on_spans = on_spans
        self._on_failed = on_failed
        self._stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> bool:
        return all(worker is not None and worker.state == "ready" for worker in self.current)

    def ready_workers(self) -> list[Worker]:
        """The workers that are ready, at this moment."""
        return [worker for worker in self.current if worker and worker.state == "ready"]

    async def start(self) -> None:
        """Start every worker and wait until each is ready.

        WorkerError when one ends or takes too long before it ever was: a configuration that
        workers cannot live with should fail the start, not be tried for ever. Stop the pool then.
        """
        loop = asyncio.get_running_loop()
        first = [loop.create_future() for _ in self.current]
        self._keepers = [
            asyncio.create_task(self._keep(slot, first[slot])) for slot in range(len(self.current))
        ]
        try:
            await asyncio.gather(*first)
        finally:
            for future in first:
                future.cancel()

    async def stop(self, seconds: float) -> None:
        """Drain all workers within `seconds`, kill what is left `STOP_GRACE` later.

        Called again while it runs, the shorter time counts.
        """
        self._stopping.set()
        alive = [worker for worker in self.current if worker and worker.state != "dead"]
        orders = asyncio.gather(
            _dismiss_once_drained(alive), *(worker.drain(seconds) for worker in alive)
        )
        if self._keepers:
            _, running = await asyncio.wait(self._keepers, timeout=seconds + STOP_GRACE)
            if running:
                self._kill_all()
                await asyncio.wait(running)
        orders.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await orders

    async def ask(
        self, method: str, parameter: Any = None
    ) -> tuple[dict[int, Any], dict[int, ControlError]]:
        """Every ready or draining worker's answer, and the error of each that gave none, by slot.

        A slot without a worker to ask has a NoWorkerError.
        """
        answers: dict[int, Any] = {}
        errors: dict[int, ControlError] = {}

        async def one(slot: int) -> None:
            try:
                answers[slot] = await self.ask_one(slot, method, parameter)
            except ControlError as error:
                errors[slot] = error

        await asyncio.gather(*(one(slot) for slot in range(len(self.current))))
        return answers, errors

    async def ask_one(self, slot: int, method: str, parameter: Any = None) -> Any:
        """The answer of the worker in a slot; raises ControlError when there is none."""
        worker = self.current[slot] if 0 <= slot < len(self.current) else None
        if worker is None or worker.state in ("starting", "dead"):
            raise NoWorkerError("no worker is ready")
        return await worker.channel.call(method, parameter)

    # --- one slot ---------------------------------------------------------------------------

    async def _keep(self, slot: int, first: asyncio.Future[None]) -> None:
        """Have a worker in the slot until the pool stops."""
        backoff = WORKER_BACKOFF_MIN
        while not self._stopping.is_set():
            started = time.monotonic()
            ending = await self._live(slot, first)
            if self._stopping.is_set():
                break
            if not first.done():
                first.set_exception(WorkerError(f"worker {slot} did not start: {ending}"))
                return
            if not self._became_ready(slot):
                self._on_failed(ending)
            lived = time.monotonic() - started
            if lived >= WORKER_STABLE:
                backoff = WORKER_BACKOFF_MIN
            log.error(
                "worker died, another takes its place",
                slot=slot, ending=ending, lived_seconds=round(lived, 3), delay_seconds=backoff,
            )  # fmt: skip
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff)
            backoff = min(backoff * 2, WORKER_BACKOFF_MAX)
            self.restarts[slot] += 1

    async def _live(self, slot: int, first: asyncio.Future[None]) -> str:
        """One worker from its start to its end, which is told in words."""
        try:
            worker = await Worker.start(slot, self._make_spec, self._entry, self._on_spans)
        except (OSError, ControlError) as error:
            return str(error)
        self.current[slot] = worker
        if self._stopping.is_set():
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
        """Kill a worker that does not become ready, or stops answering."""
        try:
            async with asyncio.timeout(WORKER_START_TIMEOUT):
                await worker.ready.wait()
        except TimeoutError:
            log.error("worker does not become ready", slot=worker.slot, pid=worker.pid)
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
                await worker.channel.call("stats", timeout=WORKER_HEARTBEAT)
                missed = 0
            except ControlError:
                missed += 1
        log.error("worker does not answer", slot=worker.slot, pid=worker.pid)
        worker.kill()

    def _kill_all(self) -> None:
        for worker in self.current:
            if worker is not None and worker.state != "dead":
                log.warning("worker did not end in time", slot=worker.slot, pid=worker.pid)
                self.killed += 1
                worker.kill()


async def _dismiss_once_drained(workers: list[Worker]) -> None:
    """Let workers go together: until the last has drained, each refuses its share of newcomers."""
    for worker in workers:
        await worker.drained.wait()
    for worker in workers:
        worker.channel.notify("dismiss")


def _environment() -> dict[str, str]:
    """Ours, and our own package's place: a worker runs the code that its supervisor runs."""
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([_PACKAGE_PARENT, inherited] if inherited else [_PACKAGE_PARENT])
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("NOTIFY_SOCKET", None)  # the supervisor speaks to systemd
    return environment


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
