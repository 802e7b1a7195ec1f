"""The supervisor: sockets, workers, admin API and signals, from start to exit."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from quicedge import __version__, native
from quicedge.acme.challenge import Challenges
from quicedge.admin.command_messages import Command, CommandReply
from quicedge.admin.errors import AdminAddressError, RefusedError
from quicedge.admin.view import Connections, EdgeState, QlogLevel, Status, WorkerStatus
from quicedge.config.control_path import control_path
from quicedge.config.schema import Config
from quicedge.config.unusable import UnusableError
from quicedge.proxy.alt_svc import Advertising
from quicedge.quic.fleet_identity import marks_of, place_of
from quicedge.quic.tls import CertificatePem
from quicedge.supervisor import notify
from quicedge.supervisor.administration import Administration, ChangeOfAdmin
from quicedge.supervisor.adoption import AdoptionSockets
from quicedge.supervisor.alt_svc import AltSvcEvidence
from quicedge.supervisor.change import Change, ChangeOfWorkers
from quicedge.supervisor.commands import CommandFailure, CommandServer, Run
from quicedge.supervisor.current import CurrentSettings, ReadSettings
from quicedge.supervisor.expiry import CertificateWatch
from quicedge.supervisor.fleet import FleetDirectory
from quicedge.supervisor.forks import Forking, can_fork
from quicedge.supervisor.generation import Staff
from quicedge.supervisor.generations import Generations
from quicedge.supervisor.handover import (
    Bequest,
    Inherited,
    Successor,
    UpgradeError,
    inherited,
    refuse,
)
from quicedge.supervisor.key_rotation import KeyRotation
from quicedge.supervisor.pem_watch import PemWatch
from quicedge.supervisor.pid_file import remove_pid_file, write_pid_file
from quicedge.supervisor.reload import (
    ReloadError,
    needs_new_workers,
    read_document,
    read_settings,
)
from quicedge.supervisor.resets import UnsolicitedResets
from quicedge.supervisor.signals import handled
from quicedge.supervisor.sockets import ListenError, Listeners
from quicedge.supervisor.spans import Spans
from quicedge.supervisor.spawning import FreshInterpreters, Spawner
from quicedge.supervisor.state import StateDirectory, StateError, load_secret, open_state
from quicedge.supervisor.status import summary
from quicedge.supervisor.takeover import Takeover, of_orphans, of_upgrade
from quicedge.supervisor.tally import Tally
from quicedge.supervisor.workers import NoWorkerError, Worker, WorkerError, WorkerState
from quicedge.telemetry.comparison import Comparison, compare
from quicedge.telemetry.logs import Logs
from quicedge.telemetry.series import series_names
from quicedge.telemetry.stats import (
    ConnectionPage,
    ConnectionQuery,
    ConnectionStats,
    FollowAnswer,
    KeyUpdateVerdict,
    TraceAction,
    TraceAnswer,
    first_rows,
    merge,
)
from quicedge.telemetry.tracefiles import trace_directory
from quicedge.udp.connection_id_layout import PLAIN, ConnectionIdLayout
from quicedge.worker.control import (
    AT_ONCE,
    CloseCommand,
    ControlError,
    FollowCommand,
    Peer,
    Settings,
    TraceCommand,
    shutdown_order,
)
from quicedge.worker.memory import release_files, trim
from quicedge.worker.privileges import Identity, PrivilegeError, identity_of

if TYPE_CHECKING:
    from quicedge.admin.server import AdminServer
    from quicedge.supervisor.acme import AcmeManager
    from quicedge.supervisor.acme_plan import Reach

log = structlog.get_logger("quicedge.supervisor")


def run(config: Config, config_path: str | None, *, worker_entry: str | None = None) -> int:
    """Run the edge until shutdown is requested; returns the exit code.

    SIGTERM and SIGINT drain, a second one stops immediately; SIGHUP reloads `config_path` and the
    certificates; SIGUSR1 reopens the logs; SIGUSR2 upgrades. `worker_entry` is for tests
    (`WorkerPool`).
    """
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        # Until handlers are installed: the default action is to terminate.
        signal.signal(number, signal.SIG_IGN)
    spawner: Spawner = Forking() if can_fork() else FreshInterpreters()
    try:
        return _run(config, config_path, spawner, worker_entry)
    finally:
        spawner.close()


def _run(
    config: Config, config_path: str | None, spawner: Spawner, worker_entry: str | None
) -> int:
    try:
        logs = Logs(config.log, process="supervisor", exchanges=False)
    except UnusableError as error:
        print(f"quicedge: {error}", file=sys.stderr)
        refuse(str(error))
        return 1
    try:
        identity = identity_of(config.user, config.group)
        settings = read_settings(config)
        state = open_state(config)
        takeover = _takeover(settings, config_path)
        secret = load_secret(state) if takeover is None else takeover.secret
    except (PrivilegeError, ReloadError, StateError, UpgradeError) as error:
        log.error("cannot start", error=str(error))
        _tell(config, error)
        refuse(str(error))
        logs.close()
        return 1
    supervisor = Supervisor(
        settings, config_path, logs, identity, state, secret, spawner, worker_entry, takeover
    )
    try:
        return asyncio.run(supervisor.serve())
    finally:
        supervisor.current.logs.close()


def _tell(config: Config, error: Exception) -> None:
    """Whoever starts the edge is to see why it does not, though its log is a file."""
    if config.log.file is not None:
        print(f"quicedge: {error}", file=sys.stderr)


def _takeover(settings: Settings, config_path: str | None) -> Takeover | None:
    """What there is to take over from another supervisor; raises UpgradeError."""
    found = inherited(settings.fleet)
    if found is not None:
        return of_upgrade(found)
    return of_orphans(control_path(settings.config, config_path), settings.fleet)


class ControlSocketError(Exception):
    """The configured control socket cannot be opened; the message names it."""


class Supervisor:
    """The edge as a whole; implements `admin.view.EdgeView`."""

    def __init__(
        self,
        settings: Settings,
        config_path: str | None,
        logs: Logs,
        identity: Identity | None,
        state: StateDirectory | None,
        secret: bytes,
        spawner: Spawner,
        worker_entry: str | None,
        takeover: Takeover | None = None,
    ) -> None:
        self.state_directory = state
        """None: nothing outlives a restart."""
        self.current = CurrentSettings(
            settings,
            config_path,
            logs,
            identity,
            begin=self._begin_change,
            managed=self._managed_certificates,
            rotated=lambda: self._key_rotation.keys,
            turn=self._refuse_while_leaving,
            check=self._check_acme,
            on_change=self._changed,
        )
        self._generations: Generations
        self._administration = Administration(self)
        self._identity = identity
        self._config_path = config_path
        self._spawner = spawner
        self._worker_entry = worker_entry
        self._secret = secret
        self._takeover = takeover
        self._commands: CommandServer | None = None
        self._adoption = AdoptionSockets(None)
        self._successor: Successor | None = None
        """The new program, which has taken over."""
        self._upgrading = False
        self._leaving = False
        self._started_at = time.monotonic()
        self._state = EdgeState.STARTING
        self._logs_reopened_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._spans = Spans()
        self._certificates = CertificateWatch()
        self._acme: AcmeManager | None = None
        self._followed_by_acme: tuple[Config, list[CertificatePem]] | None = None
        """The configuration and the operator's certificates that it knows."""
        self._alt_svc = AltSvcEvidence(time.monotonic, self._tell_of_alt_svc)
        self._fleet = FleetDirectory(secret, self._tell_of_peers)
        self._tally = Tally(self._spread_totals)
        self._key_rotation = KeyRotation(self.current.refresh_shared_keys)

    async def serve(self) -> int:
        """Run until shutdown; returns 1 if the start failed or a worker was killed, else 0."""
        self._stop = asyncio.Event()
        self._running = asyncio.Event()
        self._stop_now = asyncio.Event()
        try:
            return await self._serve()
        except (ListenError, AdminAddressError, ControlSocketError) as error:
            return self._cannot_start("cannot listen", error)
        except (ReloadError, WorkerError) as error:
            return self._cannot_start("cannot start", error)

    def _cannot_start(self, event: str, error: Exception) -> int:
        log.error(event, error=str(error))
        _tell(self.config, error)
        if self._takeover is not None and self._takeover.upgrade is not None:
            self._takeover.upgrade.refuse(str(error))
        return 1

    async def _serve(self) -> int:
        takeover = self._takeover
        upgrade = takeover.upgrade if takeover is not None else None
        if upgrade is None:
            self._commands = self._serve_commands()
            if self._commands is not None:
                self._adoption = AdoptionSockets(self._commands.path)
        else:
            self._adoption = AdoptionSockets(upgrade.control_path)
            if upgrade.admin is not None:
                self._administration.inherit(*upgrade.admin)
        try:
            self._generations = Generations(
                self._staff(), self.current.settings, self._layout(), takeover
            )
        except ListenError:
            if self._commands is not None:
                await self._commands.close()
            raise
        self._configure_alt_svc()
        try:
            # What can fail is done before anybody hands over to us.
            admin = self._administration.open(self.config.admin)
            if takeover is None:
                self._administration.use(admin)
            with self._handled_signals():
                self._spawn(self._certificates.run())
                self._spawn(self._alt_svc.run())
                self._fleet.configure(self.current.settings.fleet, self.config.fleet.peers)
                self._spawn(PemWatch(lambda: self.config.tls, self._files_changed).run())
                self._key_rotation.configure(self.current.settings)
                await self._spans.configure(self.config.otel)
                self._check_acme(self.current.settings)
                await self._configure_acme()
                self._certificates.use(
                    [*self.current.settings.certificates, *self._managed_certificates()]
                )
                return await self._run_workers(admin)
        finally:
            handed_over = self._successor is not None
            await self._administration.close(keep_path=handed_over)
            if self._acme is not None:
                await self._acme.close()
            await self._spans.close()
            self._fleet.close()
            self._key_rotation.close()
            self._tally.close()
            await self._resets.close()
            self._generations.close()
            self._adoption.leave()
            if not handed_over:
                remove_pid_file(self.config.pid_file)
            if self._commands is not None:
                # Last: its clients wait for the end.
                await self._commands.close()

    def _staff(self) -> Staff:
        identity = self.current.settings.fleet
        self._resets = UnsolicitedResets(
            self._secret if identity is None else identity.reset_secret(self._secret)
        )
        return Staff(
            spawner=self._spawner,
            secret=self._secret,
            identity=self._identity,
            resets=self._resets,
            adoption=self._adoption,
            entry=self._worker_entry,
            # An unprivileged worker cannot recreate a log file that was removed.
            before_start=self.current.chown_logs,
            on_ready=self._worker_ready,
            on_failed=self._worker_failed,
            on_counted=self._tally.worker_ended,
            settle_counts=self._tally.settle,
            notices={
                "spans": self._spans.put,
                "alt_svc": self._alt_svc.receive,
                "names_missing": self._names_missing,
            },
        )

    async def _run_workers(self, admin: AdminServer | None) -> int:
        """Start the workers, and serve until the end; raises WorkerError."""
        starting = asyncio.create_task(self._start_workers(admin))
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        try:
            if starting.done():
                starting.result()
                await self._stop.wait()
        except WorkerError:
            await self._generations.stop(AT_ONCE)
            raise
        starting.cancel()
        if self._successor is not None:
            log.info("handed over", pid=self._successor.pid)
            return 0
        if self._leaving:
            log.info("left workers to the next supervisor")
            return 0
        self._state = EdgeState.DRAINING
        notify.notify("STOPPING=1")
        order = shutdown_order(self.config)
        await self._lead()
        log.info("draining", seconds=order.seconds)
        await self._generations.stop(order)
        killed = self._generations.killed
        log.info("stopped", killed=killed)
        return 1 if killed else 0

    async def _start_workers(self, admin: AdminServer | None) -> None:
        await self._generations.start()
        takeover = self._takeover
        if takeover is not None:
            if takeover.upgrade is not None:
                await self._take_over(takeover, takeover.upgrade)
            copies, _ = await self._generations.ask("kept_totals")
            self._tally.inherit(copies.values())
            # Not before: counters would have gone down meanwhile.
            self._administration.use(admin)
        self._state = EdgeState.RUNNING
        self._running.set()
        write_pid_file(self.config.pid_file)
        # Starting leaves garbage, and from now on little happens here.
        gc.collect()
        release_files()
        trim()
        notify.notify("READY=1", f"STATUS={self._listeners.workers} workers")
        log.info(
            "ready",
            version=__version__,
            listen=[listener.address for listener in self._listeners.status()],
            workers=self._listeners.workers,
            admin=self._administration.address,
            core=native.describe(),
        )
        if takeover is not None and self._generations.differ_from(self.current.settings):
            # Adopted workers go on as they were; then come those that the configuration wants.
            self._spawn(self._replace_adopted())

    async def _replace_adopted(self) -> None:
        await self._generations.settled()
        await self._reload()

    async def leave(self) -> None:
        """End, and leave the workers to the next supervisor; raises UpgradeError."""
        if self._state is not EdgeState.RUNNING:
            raise UpgradeError(f"the edge is {self._state}")
        if self._commands is None:
            raise UpgradeError("there is no control socket, by which workers change hands")
        await self._tally.settle()
        for worker in self._generations.current.pool.ready_workers():
            try:
                await worker.channel.call("leave")
            except ControlError as error:
                log.error(
                    "worker does not know that it is left", slot=worker.slot, error=str(error)
                )
        self._leaving = True
        self._stop.set()

    async def _take_over(self, takeover: Takeover, upgrade: Inherited) -> None:
        """The other supervisor ends, and everything is ours."""
        upgrade.ready()
        await asyncio.to_thread(upgrade.wait_for_end)
        self._commands = self._serve_commands(upgrade)
        await self._generations.take_over(takeover, upgrade.control_path)
        self.current.reloads = upgrade.reloads
        log.info("took over", workers=takeover.slots)

    async def upgrade(self) -> int:
        """Hand over to the program that is installed now; returns its process ID.

        Raises UpgradeError, and then nothing has changed.
        """
        self._check_upgrade()
        assert self._commands is not None
        estate = self._listeners.estate()
        admin = self._administration.bequest()
        bequest = Bequest(
            estate=estate,
            secret=self._secret,
            place=place_of(self.current.settings.fleet),
            id_keys=marks_of(self.current.settings.fleet),
            admin=None if admin is None else admin[0],
            control=str(self._commands.path),
            reloads=self.current.reloads,
        )
        others = [*([] if admin is None else [admin[1].fileno()]), self._commands.socket.fileno()]
        self._upgrading = True
        log.info("upgrade started", program=sys.orig_argv)
        try:
            async with self.current.hold():
                await self._tally.settle()
                self._successor = await self._start_successor(bequest, [*estate.fds, *others])
        except UpgradeError as error:
            log.error("upgrade failed; this program goes on", error=str(error))
            raise
        finally:
            self._upgrading = False
            if admin is not None:
                admin[1].close()
        self._commands.pause()
        notify.notify(f"MAINPID={self._successor.pid}")
        self._stop.set()
        return self._successor.pid

    async def _start_successor(self, bequest: Bequest, fds: list[int]) -> Successor:
        """Raises UpgradeError; so does a stop that is requested meanwhile, which is obeyed."""
        starting = asyncio.create_task(Successor.start(bequest, fds))
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
        if not self._stop.is_set():
            return starting.result()
        if not starting.cancelled() and starting.exception() is None:
            await starting.result().abandon()
        raise UpgradeError("the edge is stopping")

    def _check_upgrade(self) -> None:
        if self._state is not EdgeState.RUNNING:
            raise UpgradeError(f"the edge is {self._state}")
        if self._upgrading:
            raise UpgradeError("an upgrade is in progress")
        if self._commands is None:
            raise UpgradeError("there is no control socket, by which workers change hands")
        if os.getpid() == 1:
            raise UpgradeError("this process is the container's first: replace the container")
        if (left := self._generations.left) is not None:
            raise UpgradeError(left)

    async def _lead(self) -> None:
        """Let load balancers see that this edge is going before anybody is refused."""
        if self.config.drain_lead and not self._stop_now.is_set():
            log.info("leaving", seconds=self.config.drain_lead)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop_now.wait(), self.config.drain_lead)

    @property
    def _listeners(self) -> Listeners:
        return self._generations.current.listeners

    def _configure_alt_svc(self) -> None:
        quic = [item.address for item in self._listeners.of_slot(0)]
        # A worker may have several sockets of one address.
        tcp = list(dict.fromkeys(item.address for item in self._listeners.tcp_of_slot(0)))
        self._alt_svc.configure(self.config.alt_svc, tcp=tcp, quic=quic)

    def _tell_of_alt_svc(self, states: dict[str, Advertising]) -> None:
        self._spawn(self._broadcast("set_alt_svc", states))

    def _layout(self) -> ConnectionIdLayout:
        fleet = self.current.settings.fleet
        return PLAIN if fleet is None else fleet.layout(self._secret)

    async def _spread_totals(self, totals: bytes) -> None:
        """Have all workers keep a copy; those of an older program cannot."""
        await self._generations.ask("keep_totals", totals)

    def _tell_of_peers(self, peers: list[Peer]) -> None:
        self._spawn(self._broadcast("set_peers", peers))

    async def _changed(self, settings: Settings) -> None:
        self._generations.current.settings = settings
        self._fleet.configure(settings.fleet, settings.config.fleet.peers)
        self._key_rotation.configure(settings)
        quic, tcp = self._listeners.of_slot(0), self._listeners.tcp_of_slot(0)
        addresses = [item.address for item in (*quic, *tcp)]
        self._tally.keep(series_names(settings.config, addresses))
        self._certificates.use([*settings.certificates, *settings.managed])
        self._configure_alt_svc()
        await self._spans.configure(settings.config.otel)
        self._spawn(self._configure_acme())

    # --- certificates by ACME (supervisor.acme.Front) -------------------------------------------

    def _managed_certificates(self) -> list[CertificatePem]:
        return [] if self._acme is None else self._acme.certificates()

    @property
    def _reach(self) -> Reach:
        from quicedge.supervisor.acme_plan import Reach

        return Reach(
            http=bool(self._listeners.redirects_of_slot(0)),
            tls=bool(self._listeners.tcp_of_slot(0)),
        )

    def _check_acme(self, settings: Settings) -> None:
        """Raise ReloadError if certificates cannot be ordered as configured."""
        if settings.config.tls.acme is None:
            return
        # What orders certificates is imported where they are ordered, as the admin API is.
        from quicedge.supervisor.acme_plan import AcmeError, plan

        state = self.state_directory
        try:
            plan(settings, None if state is None else state.path, self._reach)
        except AcmeError as error:
            raise ReloadError(str(error)) from error

    async def _configure_acme(self) -> None:
        """Order certificates as configured, and serve those that there are."""
        settings = self.current.settings
        followed = settings.config, settings.certificates
        if followed == self._followed_by_acme:
            return
        self._followed_by_acme = followed
        if self._acme is None:
            if settings.config.tls.acme is None:
                return
            from quicedge.supervisor.acme import AcmeManager

            state = self.state_directory
            path = None if state is None else state.path
            self._acme = AcmeManager(self, path, self._identity)
            self._spawn(self._order_certificates(self._acme))
        await self._acme.configure(settings, self._reach)
        await self.use_certificates()

    async def _order_certificates(self, acme: AcmeManager) -> None:
        """Once there are workers, which issuers can ask."""
        await self._running.wait()
        await acme.run()

    async def _files_changed(self) -> None:
        await self.current.refresh_certificates(files=True)

    async def use_certificates(self) -> None:
        await self.current.refresh_certificates()

    def refuse_names(self, names: list[str]) -> None:
        self._spawn(self._broadcast("refuse_names", names))

    def _names_missing(self, names: list[str]) -> None:
        if self._acme is not None:
            self._acme.names_missing(names)

    async def use_challenges(self, challenges: Challenges) -> str | None:
        _, errors = await self._generations.ask("use_challenges", challenges)
        failed = [error for error in errors.values() if not isinstance(error, NoWorkerError)]
        return str(failed[0]) if failed else None

    def _begin_change(self, settings: Settings) -> list[Change]:
        """The parts of a reload."""
        parts: list[Change] = []
        if settings.config.admin != self.config.admin:
            parts.append(ChangeOfAdmin(self._administration, settings.config.admin))
        config = settings.config
        if needs_new_workers(config, self.config) or self._generations.differ_from(settings):
            parts.append(self._generations.begin(settings))
        else:
            workers = self._generations.current.pool.ready_workers()
            parts.append(ChangeOfWorkers(workers, settings))
        return parts

    def _worker_ready(self, worker: Worker) -> None:
        if self._generations.current.pool.ready:
            self._spawner.rest()
        self._spawn(self._catch_up(worker))

    def _worker_failed(self, reason: str) -> None:
        self._spawn(self.current.failed_to_start(reason))

    async def _catch_up(self, worker: Worker) -> None:
        """Apply to a worker the commands that were issued while it started."""
        await self.current.started(worker)
        try:
            if worker.started_at < self._logs_reopened_at:
                await worker.channel.call("reopen_logs")
            await worker.channel.call("set_alt_svc", self._alt_svc.states)
            if self._fleet.peers:
                await worker.channel.call("set_peers", self._fleet.peers)
            if self._acme is not None:
                await worker.channel.call("use_challenges", self._acme.challenges())
        except ControlError as error:
            log.error("worker failed to reopen its logs", slot=worker.slot, error=str(error))

    async def _broadcast(self, method: str, parameter: Any = None) -> None:
        """Send a command to every worker and log rejections; starting workers catch up later."""
        _, errors = await self._generations.ask(method, parameter)
        failed = {k: error for k, error in errors.items() if not isinstance(error, NoWorkerError)}
        for slot, error in failed.items():
            log.error("worker rejected the command", slot=slot, command=method, error=str(error))

    # --- signals ----------------------------------------------------------------------------

    def _handled_signals(self) -> AbstractContextManager[None]:
        return handled(
            {
                signal.SIGTERM: lambda: self._on_stop(signal.SIGTERM),
                signal.SIGINT: lambda: self._on_stop(signal.SIGINT),
                signal.SIGHUP: lambda: self._spawn(self._reload()),
                signal.SIGUSR1: lambda: self._spawn(self._reopen_logs()),
                signal.SIGUSR2: lambda: self._spawn(self._upgrade()),
            }
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_stop(self, number: signal.Signals) -> None:
        self._request_stop(number.name, immediate=self._stop.is_set())

    def _request_stop(self, by: str, *, immediate: bool) -> None:
        log.info("shutdown requested", by=by, immediate=immediate)
        self._stop.set()
        if immediate:
            self._stop_now.set()
            self._spawn(self._generations.stop(AT_ONCE))

    async def _reload(self) -> None:
        """SIGHUP: nobody waits for the outcome, which is in the log and the status."""
        with contextlib.suppress(ReloadError):
            await self.reload()

    async def _reopen_logs(self) -> None:
        try:
            self.current.logs.reopen()
        except OSError as error:
            log.error("cannot reopen log", error=str(error))
        self.current.chown_logs()
        self._logs_reopened_at = time.monotonic()
        await self._broadcast("reopen_logs")
        log.info("logs reopened")

    # --- commands -----------------------------------------------------------------------------

    def _serve_commands(self, upgrade: Inherited | None = None) -> CommandServer | None:
        """Take commands, on the socket of the supervisor that has handed over if there is one."""
        path = control_path(self.config, self._config_path)
        commands: dict[Command, Run] = {
            Command.RELOAD: lambda _: self._command_reload(),
            Command.VALIDATE: lambda _: self._command_validate(),
            Command.UPGRADE: lambda _: self._command_upgrade(),
            Command.LEAVE: lambda _: self._command_leave(),
            Command.STATUS: lambda _: self._command_status(),
            Command.RENEW: self._command_renew,
            Command.STOP: lambda _: self._command_stop(immediate=False),
            Command.STOP_NOW: lambda _: self._command_stop(immediate=True),
        }
        until_end = frozenset({Command.STOP, Command.STOP_NOW, Command.UPGRADE, Command.LEAVE})
        sock = None
        if upgrade is not None:
            path, sock = upgrade.control_path, upgrade.control
        try:
            return CommandServer(path, commands, keep_open=until_end, inherited=sock)
        except OSError as error:
            reason = str(error)
            if error.errno == errno.EADDRINUSE:
                reason = "another edge answers there; `quicedge status` shows it"
            if self.config.control_socket is not None:
                raise ControlSocketError(f"control_socket: {path}: {reason}") from error
            log.warning("no control socket; only signals are obeyed", path=str(path), reason=reason)
            return None

    async def _command_upgrade(self) -> CommandReply:
        try:
            pid = await self.upgrade()
        except UpgradeError as error:
            raise CommandFailure(f"not upgraded; the edge goes on as it was\n{error}") from error
        return CommandReply(lines=[f"upgraded: process {pid} serves"], data=pid)

    async def _command_leave(self) -> CommandReply:
        try:
            await self.leave()
        except UpgradeError as error:
            raise CommandFailure(str(error)) from error
        return CommandReply(lines=["ending; workers wait for the next supervisor"])

    async def _upgrade(self) -> None:
        """SIGUSR2: nobody waits for the outcome, which is in the log."""
        with contextlib.suppress(UpgradeError):
            await self.upgrade()

    async def _command_reload(self) -> CommandReply:
        try:
            found = await self.reload()
        except ReloadError as error:
            raise CommandFailure(f"reload failed; configuration unchanged\n{error}") from error
        return CommandReply(lines=["reloaded", *(found or ["nothing has changed"])], data=found)

    async def _command_validate(self) -> CommandReply:
        try:
            found = await self.validate()
        except ReloadError as error:
            raise CommandFailure(str(error)) from error
        return CommandReply(lines=found or ["nothing would change"], data=found)

    async def _command_status(self) -> CommandReply:
        status = await self.status()
        return CommandReply(lines=list(summary(status)), data=msgspec.to_builtins(status))

    async def _command_renew(self, hosts: list[str]) -> CommandReply:
        if self._acme is None:
            raise CommandFailure("no certificates are ordered by ACME ([tls.acme])")
        from quicedge.supervisor.acme_plan import AcmeError

        try:
            found = await self._acme.renew(hosts)
        except AcmeError as error:
            raise CommandFailure(str(error)) from error
        return CommandReply(lines=[f"renewing {host}" for host in found], data=found)

    async def _command_stop(self, *, immediate: bool) -> CommandReply:
        self._request_stop("stop-now" if immediate else "stop", immediate=immediate)
        return CommandReply(lines=["stopping"])

    # --- admin.view.EdgeView ------------------------------------------------------------------

    @property
    def state(self) -> EdgeState:
        return self._state

    @property
    def ready(self) -> bool:
        return self._state is EdgeState.RUNNING and self._generations.current.pool.ready

    async def reload(self, read: ReadSettings | None = None) -> list[str]:
        return await self.current.reload(read)

    async def validate(self, read: ReadSettings | None = None) -> list[str]:
        return await self.current.validate(read)

    @property
    def config(self) -> Config:
        return self.current.config

    async def configure(self, document: bytes, *, is_json: bool, dry_run: bool) -> list[str]:
        def read(current: Config) -> Settings:
            return read_document(document, self._config_path, current, is_json=is_json)

        try:
            return await (self.validate(read) if dry_run else self.reload(read))
        except ReloadError as error:
            raise RefusedError(str(error)) from error

    def _refuse_while_leaving(self) -> None:
        """Raise ReloadError; called when it is a reload's turn, which may have waited for an
        upgrade."""
        if self._successor is not None:
            reason = (
                f"process {self._successor.pid} has taken over, with the configuration of its "
                "start; try again"
            )
        elif self._stop.is_set():
            reason = "the edge is draining"
        else:
            return
        log.warning("reload refused", reason=reason)
        raise ReloadError(reason)

    async def status(self) -> Status:
        answers = await self._generations.stats()
        now = time.monotonic()
        found = [worker for _, worker, _ in self._generations.workers() if worker is not None]
        alive = [worker for worker in found if worker.is_alive]
        ended = self._tally.totals
        for worker in alive:
            if worker not in answers and worker.counted is not None:
                ended = ended.with_worker(worker.counted)
        workers = [
            WorkerStatus(
                slot=slot,
                state=worker.state if worker else WorkerState.STARTING,
                pid=worker.pid if worker and worker.state is not WorkerState.DEAD else None,
                restarts=pool.restarts[slot],
                uptime_seconds=now - worker.started_at
                if worker and worker.state is not WorkerState.DEAD
                else None,
                stats=answers.get(worker) if worker in alive else None,
            )
            for slot, worker, pool in self._generations.workers()
        ]
        return Status(
            core=native.core,
            version=__version__,
            state=self._state,
            pid=os.getpid(),
            uptime_seconds=now - self._started_at,
            config_path=self._config_path,
            reloads=self.current.reloads,
            last_reload_error=self.current.error,
            connections=sum(answers[worker].connections for worker in alive if worker in answers),
            listeners=self._listeners.status(),
            workers=workers,
            ended=ended,
            certificates=self._certificates.status,
            acme=None if self._acme is None else self._acme.status,
            alt_svc=self._alt_svc.status,
            spans=self._spans.counts,
            fleet=self._fleet.status,
            trace_directory=self.trace_directory,
        )

    async def connections(self, query: ConnectionQuery) -> Connections:
        answers: dict[int, ConnectionPage]
        answers, errors = await self._generations.ask("connections", first_rows(query))
        page = merge(answers.values(), query)
        return Connections(
            total=page.total,
            limit=query.limit,
            offset=query.offset,
            unanswered=sorted(errors),
            connections=page.connections,
        )

    async def comparison(self) -> Comparison:
        answers, _ = await self._generations.ask("samples")
        return compare(answers.values())

    async def connection(self, connection_id: str) -> ConnectionStats | None:
        answers, _ = await self._generations.ask("connection", connection_id)
        return next((found for found in answers.values() if found is not None), None)

    async def close_connection(self, connection_id: str, code: int, reason: str) -> bool:
        command = CloseCommand(connection_id, code, reason)
        answers, _ = await self._generations.ask("close_connection", command)
        return any(answers.values())

    async def update_keys(self, connection_id: str) -> KeyUpdateVerdict:
        answers, _ = await self._generations.ask("update_keys", connection_id)
        found = (one for one in answers.values() if one is not KeyUpdateVerdict.NOT_FOUND)
        return next(found, KeyUpdateVerdict.NOT_FOUND)

    async def set_log_level(self, level: str) -> None:
        logging.getLogger().setLevel(level.upper())
        await self._broadcast("set_log_level", level)

    @property
    def trace_directory(self) -> str | None:
        return trace_directory(self.config.qlog)

    async def trace_connection(self, connection_id: str, action: TraceAction) -> TraceAnswer:
        answers, _ = await self._generations.ask(
            "trace_connection", TraceCommand(connection_id, action)
        )
        return next((one for one in answers.values() if one.found), TraceAnswer(found=False))

    async def follow_connection(
        self, worker: int, connection_id: str, follower: str, level: QlogLevel
    ) -> FollowAnswer:
        command = FollowCommand(connection_id, follower, level)
        try:
            answer: FollowAnswer = await self._generations.ask_one(
                worker, "follow_connection", command
            )
        except ControlError as error:
            log.debug("cannot follow connection", connection=connection_id, error=str(error))
            return FollowAnswer(found=False)
        return answer
