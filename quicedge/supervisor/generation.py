"""One generation of workers: the processes, their sockets, and what they share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog

from quicedge.config.limits import ANNOUNCE_ATTEMPTS, ANNOUNCE_RETRY
from quicedge.supervisor.adoption import Adopted, AdoptionSockets
from quicedge.supervisor.resets import Rosters, UnsolicitedResets
from quicedge.supervisor.sockets import Listeners
from quicedge.supervisor.spawning import Spawner
from quicedge.supervisor.workers import Worker, WorkerPool
from quicedge.tcp.sockets import stop_listening
from quicedge.telemetry.stats import WorkerStats
from quicedge.udp.connection_id_codec import MAX_WORKERS
from quicedge.udp.forwarding import announce
from quicedge.worker.control import DrainOrder, Handler, Settings, WorkerSpec
from quicedge.worker.privileges import Identity

log = structlog.get_logger(__name__)


async def _nothing() -> None: ...


@dataclass(frozen=True, kw_only=True)
class Staff:
    """What all generations of one supervisor have in common."""

    spawner: Spawner
    secret: bytes
    identity: Identity | None
    resets: UnsolicitedResets
    adoption: AdoptionSockets
    entry: str | None = None
    """The workers' main function, in tests."""
    before_start: Callable[[], None] = lambda: None
    """Called before a worker starts."""
    on_ready: Callable[[Worker], None] = lambda worker: None
    on_failed: Callable[[str], None] = lambda reason: None
    on_counted: Callable[[WorkerStats], None] = lambda stats: None
    """Called with what a worker has counted that has ended."""
    settle_counts: Callable[[], Awaitable[None]] = _nothing
    """Lets the workers that live know of it."""
    notices: Mapping[str, Handler] = field(default_factory=lambda: MappingProxyType({}))


class Generation:
    """Workers with the same settings, on sockets of the same bank.

    Call `start`; then `succeed` when it takes the place of another one, and `retire` of that one.
    """

    def __init__(
        self,
        staff: Staff,
        settings: Settings,
        listeners: Listeners,
        adopted: Sequence[Adopted] = (),
        *,
        is_leaving: bool = False,
    ) -> None:
        """`adopted`: workers of another supervisor; `is_leaving`: they drain, or soon will."""
        self.settings = settings
        """Of workers that start from now on."""
        self.listeners = listeners
        self.is_proven = False
        """All workers have started: those that replace them serve whatever they can."""
        self.before: Generation | None = None
        """The generation that it replaces, until that is gone."""
        self.after: Generation | None = None
        """The generation that replaces it."""
        self._staff = staff
        self._adopted = adopted
        self.is_outdated = any(item.orphan.is_outdated for item in adopted)
        """Its supervisor ended for others to take its place."""
        self._rosters = _rosters(listeners, adopted)
        self.pool = WorkerPool(
            listeners.workers,
            self._make_spec,
            spawner=staff.spawner,
            bank=listeners.bank,
            entry=staff.entry,
            on_ready=(lambda worker: None) if is_leaving else staff.on_ready,
            on_dead=self._on_dead,
            on_failed=staff.on_failed,
            notices=staff.notices,
        )

    @property
    def bank(self) -> int:
        return self.listeners.bank

    async def start(self) -> None:
        """Start all workers; raises WorkerError, and then `abandon` must be called."""
        await self.pool.adopt(self._adopted)
        await self.pool.start()
        self.is_proven = True

    async def take_on(self, adopted: Sequence[Adopted]) -> None:
        """Go on with workers of another supervisor, and start no others."""
        self._rosters.close()
        self._rosters = _rosters(self.listeners, adopted)
        await self.pool.adopt(adopted)
        self.pool.keep_adopted()

    async def abandon(self, order: DrainOrder) -> None:
        """It did not start, and nothing is to be left of it."""
        await self.pool.stop(order)
        self.listeners.abandon()
        self._rosters.close()

    async def resume(self) -> None:
        """Go on draining, with workers whose supervisor died meanwhile."""
        await self.take_on(self._adopted)

    async def succeed(self, before: Generation) -> None:
        """Take the place of another generation, which goes on with the connections that it has."""
        self.before, before.after = before, self
        self.listeners.activate()
        await before.hear_of(self)

    async def hear_of(self, other: Generation) -> None:
        """Tell the workers of those of another bank, which takes new connections from now on."""
        await self._announce(
            other.bank,
            list(other.listeners.outboxes.values()),
            other.bank,
            other.listeners.udp_addresses,
        )

    async def retire(self, order: DrainOrder) -> None:
        """Drain while `after` serves, then give back everything that only this generation has."""
        assert self.after is not None
        successor = self.after
        self._stop_listening_where(successor)
        left = set(self.listeners.udp_addresses) - set(successor.listeners.udp_addresses)
        await self.pool.stop(order, refusing=bool(left))
        await self._staff.resets.close()
        await self._staff.settle_counts()
        successor.before = None
        self.listeners.retire(successor.listeners)
        await successor._announce(self.bank, [], successor.bank)
        self._rosters.close()
        log.info("replaced workers ended", bank=self.bank)

    def close(self) -> None:
        """Close everything at the end."""
        self.listeners.close()
        self._rosters.close()

    def _stop_listening_where(self, successor: Generation) -> None:
        """Refuse new TCP connections at addresses that the successor does not have."""
        kept = {id(group) for group in successor.listeners.groups()}
        for group in self.listeners.tcp_groups():
            if id(group) not in kept:
                for sock in group.sockets:
                    stop_listening(sock)

    async def _announce(
        self, bank: int, outboxes: list[int], active: int, addresses: list[str] | None = None
    ) -> None:
        for worker, (_, outbox) in enumerate(self.listeners.mailboxes):
            for _ in range(ANNOUNCE_ATTEMPTS):
                try:
                    announce(outbox, bank, outboxes, active, addresses)
                    break
                except BlockingIOError:
                    await asyncio.sleep(ANNOUNCE_RETRY)  # its inbox is full
                except OSError as error:
                    log.warning("worker was not told of others", worker=worker, error=str(error))
                    break

    def _make_spec(self, slot: int, control_fd: int) -> WorkerSpec:
        staff, listeners = self._staff, self.listeners
        staff.before_start()
        worker = slot % MAX_WORKERS
        others = self.before or self.after
        if listeners.renew_mailbox(worker):
            # It was that of an adopted worker; the others have to know the new one.
            outboxes = list(listeners.outboxes.values())
            self._telling = asyncio.ensure_future(self._announce(self.bank, outboxes, self.bank))
        return WorkerSpec(
            slot=slot,
            workers=listeners.workers,
            settings=self.settings,
            tolerant=self.is_proven,
            sockets=listeners.of_slot(worker),
            tcp_sockets=listeners.tcp_of_slot(worker),
            redirect_sockets=listeners.redirects_of_slot(worker),
            inbox_fd=listeners.inbox_of(worker),
            outbox_fds={
                **listeners.outboxes,
                **(others.listeners.outboxes if others is not None else {}),
            },
            roster_fd=self._rosters.of_slot(worker),
            identity=staff.identity,
            control_fd=control_fd,
            adoption_fd=staff.adoption.open(slot),
            owner=os.geteuid(),
            estate=listeners.estate(),
            secret=staff.secret,
        )

    def _on_dead(self, worker: Worker) -> None:
        if worker.counted is not None:
            self._staff.on_counted(worker.counted)
        self._staff.adoption.close(worker.slot)
        number = worker.slot % MAX_WORKERS
        sockets = self.listeners.sockets_of_slot(number)
        self._staff.resets.send(worker.slot, self._rosters.take(number), sockets)
        if self.after is not None:
            # Nobody takes its place: its successors answer for it.
            self.after.listeners.answer_for(worker.slot)


def _rosters(listeners: Listeners, adopted: Sequence[Adopted]) -> Rosters:
    known = {item.orphan.slot % MAX_WORKERS: item.roster_fd for item in adopted}
    return Rosters(listeners.workers, known)
