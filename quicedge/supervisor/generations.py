"""The generation of workers that serves, and the one before it as long as that drains."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

from quicedge.config.listeners import listeners, redirecting
from quicedge.supervisor.generation import Generation, Staff
from quicedge.supervisor.reload import ReloadError, number_of_workers
from quicedge.supervisor.sockets import ListenError, Listeners
from quicedge.supervisor.takeover import Takeover, adopt_all
from quicedge.supervisor.workers import (
    NoWorkerError,
    Worker,
    WorkerError,
    WorkerPool,
    WorkerState,
)
from quicedge.telemetry.stats import WorkerStats
from quicedge.udp.connection_id_codec import BANKS
from quicedge.udp.connection_id_layout import ConnectionIdLayout
from quicedge.worker.control import (
    AT_ONCE,
    ControlError,
    DrainOrder,
    Settings,
    succession_order,
)

log = structlog.get_logger("quicedge.supervisor")


class Generations:
    """All workers. The constructor opens the sockets of the first generation, or raises
    ListenError."""

    def __init__(
        self,
        staff: Staff,
        settings: Settings,
        layout: ConnectionIdLayout,
        takeover: Takeover | None = None,
    ) -> None:
        """`takeover`: sockets and workers of another supervisor."""
        self._staff = staff
        self._layout = layout
        self._retiring: asyncio.Task[None] | None = None
        if takeover is None:
            self.current = Generation(staff, settings, self._open(settings))
        elif takeover.upgrade is not None:
            inherited = Listeners.inherit(takeover.estate, layout)
            inherited.forget_other_banks()
            before = Generation(staff, settings, inherited, is_leaving=True)
            self.current = Generation(staff, settings, self._open(settings, inherited))
            self.current.before = before
        else:
            self._adopt(settings, takeover)

    def _adopt(self, settings: Settings, takeover: Takeover) -> None:
        """Go on with the generations of a supervisor that has died."""
        listeners = Listeners.inherit(takeover.estate, self._layout)
        self.current = Generation(self._staff, settings, listeners, takeover.serving)
        if not takeover.leaving:
            listeners.forget_other_banks()
            return
        estate = takeover.leaving[0].orphan.estate
        left = Listeners.inherit(estate, self._layout)
        before = Generation(self._staff, settings, left, takeover.leaving, is_leaving=True)
        self.current.before, before.after = before, self.current

    async def start(self) -> None:
        """Start the workers of the first generation; raises WorkerError."""
        await self.current.start()
        before = self.current.before
        if before is not None and before.after is self.current:
            await before.resume()
            self._retire(before)

    async def take_over(self, takeover: Takeover, control: Path) -> None:
        """Take the place of the generation of a supervisor that has ended for us."""
        before = self.current.before
        assert before is not None
        await before.take_on(await adopt_all(control, takeover.slots))
        await self.current.succeed(before)
        self._retire(before)

    def _retire(self, generation: Generation) -> None:
        order = succession_order(generation.settings.config)
        self._retiring = asyncio.create_task(generation.retire(order))

    def _open(self, settings: Settings, previous: Listeners | None = None) -> Listeners:
        config = settings.config
        return Listeners(
            listeners(config),
            number_of_workers(config),
            redirecting(config),
            layout=self._layout,
            bank=0 if previous is None else (previous.bank + 1) % BANKS,
            previous=previous,
        )

    @property
    def all(self) -> list[Generation]:
        """The generations with workers, the current one first."""
        before = self.current.before
        return [self.current] if before is None else [self.current, before]

    def workers(self) -> Iterator[tuple[int, Worker | None, WorkerPool]]:
        """Slot, process and pool of each worker."""
        for generation in self.all:
            for slot, worker in generation.pool.current.items():
                yield slot, worker, generation.pool

    @property
    def left(self) -> str | None:
        """Why there cannot be another generation now; None: there can."""
        before = self.current.before
        if before is None:
            return None
        workers = [worker for worker in before.pool.current.values() if worker is not None]
        alive = sum(worker.is_alive for worker in workers)
        return (
            "it needs new workers, and those of the change before still finish requests "
            f"({alive} left, for at most upgrade_drain); try again later"
        )

    def begin(self, settings: Settings) -> ChangeOfGeneration:
        """The part of a reload that replaces all workers."""
        return ChangeOfGeneration(self, settings)

    async def prepare(self, settings: Settings) -> Generation:
        """Start workers beside those that serve; raises ReloadError."""
        if (left := self.left) is not None:
            raise ReloadError(left)
        try:
            generation = Generation(
                self._staff, settings, self._open(settings, self.current.listeners)
            )
        except ListenError as error:
            raise ReloadError(str(error)) from error
        generation.before = self.current
        try:
            await generation.start()
        except BaseException as error:
            await generation.abandon(AT_ONCE)
            if isinstance(error, WorkerError):
                raise ReloadError(str(error)) from error
            raise
        return generation

    async def adopt(self, generation: Generation) -> None:
        """Newcomers come to this generation from now on, and the one before it drains."""
        before, self.current = self.current, generation
        await generation.succeed(before)
        self._retire(before)
        log.info("workers replaced", bank=generation.bank, workers=generation.listeners.workers)

    async def settled(self) -> None:
        """Wait until there is only one generation."""
        if self._retiring is not None:
            await asyncio.wait({self._retiring})

    def differ_from(self, settings: Settings) -> bool:
        """Whether the workers, adopted as they were, are not those that the settings want."""
        config, ours = settings.config, self.current.listeners
        if self.current.is_outdated or number_of_workers(config) != ours.workers:
            return True
        wanted = [(item.address, item.quic, bool(item.tcp_protocols)) for item in listeners(config)]
        return wanted != [
            (item.listening.address, item.udp is not None, item.tcp is not None)
            for item in ours.listeners
        ]

    async def stop(self, order: DrainOrder) -> None:
        """Drain all workers; may be called again, and then the shorter time counts."""
        await asyncio.gather(*(generation.pool.stop(order) for generation in self.all))
        if self._retiring is not None:
            await self._retiring

    def close(self) -> None:
        for generation in self.all:
            generation.close()

    @property
    def killed(self) -> int:
        """Workers that had to be killed at shutdown."""
        return sum(generation.pool.killed for generation in self.all)

    async def stats(self) -> dict[Worker, WorkerStats]:
        """What all workers have counted by now that answer."""
        answers: dict[Worker, WorkerStats] = {}

        async def one(worker: Worker) -> None:
            with contextlib.suppress(ControlError):
                answers[worker] = await worker.stats()

        await asyncio.gather(*(one(worker) for worker in self._answering()))
        return answers

    def _answering(self) -> Iterator[Worker]:
        for _, worker, _ in self.workers():
            if worker is not None and worker.state in (WorkerState.READY, WorkerState.DRAINING):
                yield worker

    async def ask(
        self, method: str, parameter: Any = None
    ) -> tuple[dict[int, Any], dict[int, Exception]]:
        """As `WorkerPool.ask`, of the workers of all generations."""
        found = await asyncio.gather(
            *(generation.pool.ask(method, parameter) for generation in self.all)
        )
        answers: dict[int, Any] = {}
        errors: dict[int, Exception] = {}
        for some_answers, some_errors in found:
            answers.update(some_answers)
            errors.update(some_errors)
        return answers, errors

    async def ask_one(self, slot: int, method: str, parameter: Any = None) -> Any:
        """As `WorkerPool.ask_one`."""
        for generation in self.all:
            if slot in generation.pool.current:
                return await generation.pool.ask_one(slot, method, parameter)
        raise NoWorkerError("no worker is ready")


class ChangeOfGeneration:
    """Other workers take the place of those that run (`supervisor.change.Change`)."""

    def __init__(self, generations: Generations, settings: Settings) -> None:
        self._generations = generations
        self._settings = settings
        self._prepared: Generation | None = None

    async def prepare(self) -> None:
        self._prepared = await self._generations.prepare(self._settings)

    async def abort(self) -> None:
        assert self._prepared is not None
        await self._prepared.abandon(AT_ONCE)

    async def commit(self) -> None:
        assert self._prepared is not None
        await self._generations.adopt(self._prepared)
