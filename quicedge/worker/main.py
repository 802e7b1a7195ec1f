"""The main function of a worker: an `Edge` on an event loop, driven by the control channel."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import socket
import time
from collections import Counter
from mmap import mmap
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog
import uvloop

from quicedge.config.limits import GC_THRESHOLDS, ORPHAN_PATIENCE
from quicedge.config.tracelimits import OTEL_WORKER_BACKLOG
from quicedge.config.unusable import UnusableError
from quicedge.downstream.http3 import Http3Session
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.fleet_identity import FleetIdentity, instance_of, marks_of, place_of
from quicedge.quic.key_exchange import MLKEM_MISSING
from quicedge.quic.ticket_keys import SharedKeys
from quicedge.quic.tls import CertificateError, CertificateStore
from quicedge.tcp.tls import pass_over_unreadable_names
from quicedge.telemetry.comparison import Samples
from quicedge.telemetry.logs import Logs
from quicedge.telemetry.outcomes import (
    DATAGRAM_DROPS,
    EarlyDataVerdict,
    FleetMessages,
    from_zero,
)
from quicedge.telemetry.spans import Span
from quicedge.telemetry.stats import (
    ConnectionPage,
    ConnectionQuery,
    ConnectionStats,
    FollowAnswer,
    KeyUpdateVerdict,
    TraceAction,
    TraceAnswer,
    WorkerStats,
    select,
)
from quicedge.udp.connection_id_codec import bank_of
from quicedge.udp.connection_id_layout import PLAIN, ConnectionIdLayout, QuicLbLayout
from quicedge.udp.forwarding import Forwarder
from quicedge.udp.socket import UdpSocket
from quicedge.worker.adoption import Adoption, Orphan
from quicedge.worker.control import (
    CloseCommand,
    ControlChannel,
    ControlError,
    DrainOrder,
    FollowCommand,
    Handler,
    Peer,
    Settings,
    StartError,
    TraceCommand,
    WorkerSpec,
    shutdown_order,
)
from quicedge.worker.edge import Edge, load_certificates
from quicedge.worker.memory import release_files, trim, tune_allocator
from quicedge.worker.proposal import Proposal
from quicedge.worker.roster import Roster
from quicedge.worker.snapshots import (
    all_stats,
    counts_by_protocol,
    samples,
    session_of,
    stats_of,
)
from quicedge.worker.tcp_front import TcpSocket

if TYPE_CHECKING:
    from quicedge.udp.fleet import FleetForwarder

log = structlog.get_logger(__name__)


def run(spec: WorkerSpec) -> None:
    """Serve until drained; raises StartError.

    What imports leave behind goes back to the system first. Imported objects are then excluded from
    garbage collection; connections are freed without it, so that it can run rarely.
    """
    gc.collect()
    trim()
    tune_allocator()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    pass_over_unreadable_names()
    uvloop.run(_Worker(spec).serve())


def _open_logs(spec: WorkerSpec) -> Logs:
    """Open the configured logs; a tolerant worker falls back to those that can be opened."""
    config, process = spec.settings.config.log, f"worker {spec.slot}"
    try:
        return Logs(config, process=process)
    except UnusableError as error:
        if not spec.tolerant:
            raise
        problem = error
    for fallback in (
        msgspec.structs.replace(config, access_file=None),
        msgspec.structs.replace(config, access_file=None, file=None),
    ):
        try:
            logs = Logs(fallback, process=process)
        except UnusableError:
            continue
        where = fallback.file or "standard error"
        log.error("cannot open log file", reason=str(problem), fallback=where)
        return logs
    raise problem


def _forwarder(
    spec: WorkerSpec, sockets: list[UdpSocket], layout: ConnectionIdLayout
) -> Forwarder | None:
    if spec.inbox_fd < 0:
        return None
    inbox = socket.socket(fileno=spec.inbox_fd)
    outboxes = {slot: socket.socket(fileno=fd) for slot, fd in spec.outbox_fds.items()}
    return Forwarder(spec.slot, inbox, outboxes, sockets, clock=time.monotonic, layout=layout)


def _fleet(
    spec: WorkerSpec, sockets: list[UdpSocket], local: Forwarder | None
) -> FleetForwarder | None:
    identity = spec.settings.fleet
    if identity is None or identity.secret is None:
        return None
    from quicedge.udp.fleet import FleetForwarder

    return FleetForwarder(
        identity.server_id,
        identity.server_ids(),
        identity.secret,
        instance=instance_of(spec.secret),
        sockets=sockets,
        local=local,
    )


def _roster(spec: WorkerSpec, sockets: list[UdpSocket]) -> Roster | None:
    if spec.roster_fd < 0:
        return None
    return Roster(mmap(spec.roster_fd, 0), sockets)


def _certificates(settings: Settings, known: CertificateStore | None = None) -> CertificateStore:
    """All certificates of the settings; raises CertificateError."""
    tls = settings.config.tls
    managed = settings.managed if tls.acme is not None else None
    return load_certificates(settings.certificates, managed, known, strict=tls.require_server_name)


class _Prepared(NamedTuple):
    """Settings that are ready to be committed."""

    logs: Logs
    proposal: Proposal
    shared_keys: SharedKeys | None
    fleet: FleetIdentity | None


class _Worker:
    """The worker's side of every control method."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._started = time.monotonic()
        self._edge: Edge
        self._prepared: _Prepared | None = None
        self._draining: asyncio.Task[None] | None = None
        self._drain_end = float("inf")
        self._ended = asyncio.Event()
        self._dismissed = asyncio.Event()
        self._channel: ControlChannel
        self._handlers: dict[str, Handler]
        self._patience: asyncio.TimerHandle | None = None
        self._obeying: asyncio.Future[None] | None = None
        self._is_outdated = False
        self._adoption = self._make_adoption()
        self._kept_totals = b""

    def _build(self) -> None:
        spec, settings = self._spec, self._spec.settings
        self._logs = _open_logs(spec)
        sockets = [UdpSocket(socket.socket(fileno=item.fd)) for item in spec.sockets]
        identity = self._identity = settings.fleet
        layout: ConnectionIdLayout
        layout = PLAIN if identity is None else identity.layout(spec.secret)
        self._layout = layout
        self._encoding = None if identity is None else identity.id_keys[0]
        forwarder = _forwarder(spec, sockets, layout)
        self._edge = Edge(
            settings.config,
            sockets,
            [TcpSocket(socket.socket(fileno=item.fd), item.entry) for item in spec.tcp_sockets],
            [
                TcpSocket(socket.socket(fileno=item.fd), item.entry)
                for item in spec.redirect_sockets
            ],
            certificates=_certificates(settings),
            client_auth=settings.client_auth,
            connection_ids=ConnectionIdIssuer(
                slot=spec.slot,
                secret=spec.secret if identity is None else identity.reset_secret(spec.secret),
                layout=layout,
            ),
            secret=spec.secret,
            access_log=self._logs.access,
            forwarder=forwarder,
            fleet=_fleet(spec, sockets, forwarder),
            roster=_roster(spec, sockets),
            tolerant=spec.tolerant,
        )
        usable = self._edge.endpoint.settings.groups
        if spec.slot == 0 and len(usable) < len(settings.config.tls.groups):
            log.warning("no post-quantum key exchange on QUIC", reason=MLKEM_MISSING)
        self._edge.use_shared_keys(settings.shared_keys)

    async def serve(self) -> None:
        """Serve until drained; raises StartError."""
        spec = self._spec
        try:
            self._build()
            await self._edge.start()
        except UnusableError as error:
            raise StartError(str(error)) from error
        except Exception as error:
            raise StartError(f"{type(error).__name__}: {error}") from error
        self._handlers = {
            "connections": self.connections,
            "connection": self.connection,
            "stats": self.stats,
            "samples": self.samples,
            "close_connection": self.close_connection,
            "update_keys": self.update_keys,
            "trace_connection": self.trace_connection,
            "follow_connection": self.follow_connection,
            "drain": self.drain,
            "dismiss": self._dismissed.set,
            "prepare_settings": self.prepare_settings,
            "commit_settings": self.commit_settings,
            "abort_settings": self.abort_settings,
            "set_alt_svc": self._edge.alt_svc.set_states,
            "set_peers": self.set_peers,
            "use_challenges": self._edge.tcp.use_challenges,
            "refuse_names": self._edge.refuse_names,
            "keep_totals": self.keep_totals,
            "kept_totals": lambda: self._kept_totals,
            "leave": self.leave,
            "reopen_logs": self.reopen_logs,
            "set_log_level": self.set_log_level,
        }
        await self._obey(spec.control_fd)
        self._edge.spans.send = self._send_spans
        self._edge.missing_names.send = lambda names: self._channel.notify("names_missing", names)
        self._edge.send_alt_svc = lambda report: self._channel.notify("alt_svc", report)
        self._channel.notify("ready")
        release_files()
        await self._ended.wait()
        self._channel.notify("drained")
        # Our sockets stay open as long as the supervisor: new clients are refused on them until the
        # last worker has drained.
        await self._dismissed.wait()
        if self._adoption is not None:
            self._adoption.close()
        await self._edge.close()
        self._channel.notify("counted", self.stats())
        await self._channel.flush()
        self._channel.close()
        self._logs.close()

    async def _obey(self, control: int | socket.socket) -> None:
        """Take commands on a socket from now on."""
        self._channel = ControlChannel(control, self._handlers, on_lost=self._supervisor_lost)
        await self._channel.start()

    def _send_spans(self, spans: list[Span]) -> bool:
        if self._channel.backlog > OTEL_WORKER_BACKLOG:
            return False
        self._channel.notify("spans", spans)
        return True

    # --- between two supervisors ----------------------------------------------------------------

    def _make_adoption(self) -> Adoption | None:
        spec = self._spec
        if spec.adoption_fd < 0 or spec.estate is None:
            return None
        listening = socket.socket(fileno=spec.adoption_fd)
        return Adoption(listening, spec.owner, self._describe, self._adopted)

    def _supervisor_lost(self) -> None:
        if self._dismissed.is_set():
            return  # this is the end, and nobody has to hear of it
        if self._adoption is None:
            self._give_up()
            return
        log.warning("supervisor lost; serving on", patience=ORPHAN_PATIENCE)
        if self._draining is not None:
            # Nobody may come who would dismiss us.
            self._dismissed.set()
        self._adoption.open()
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(ORPHAN_PATIENCE, self._give_up)

    def _give_up(self) -> None:
        """Nobody takes us on."""
        self.drain(shutdown_order(self._edge.config))
        self._dismissed.set()

    def keep_totals(self, totals: bytes) -> None:
        """Keep what workers that have ended had counted (`supervisor.tally`)."""
        self._kept_totals = totals

    def leave(self) -> None:
        """The supervisor ends, and the next one is to replace us."""
        self._is_outdated = True

    def _describe(self) -> tuple[Orphan, int]:
        spec, forwarder = self._spec, self._edge.forwarder
        assert spec.estate is not None
        orphan = Orphan(
            slot=spec.slot,
            is_active=forwarder is None or forwarder.active == bank_of(spec.slot),
            is_draining=self._draining is not None,
            is_outdated=self._is_outdated,
            secret=spec.secret,
            place=place_of(self._identity),
            id_keys=marks_of(self._identity),
            estate=spec.estate,
            has_roster=spec.roster_fd >= 0,
        )
        return orphan, spec.roster_fd

    def _adopted(self, control: socket.socket) -> None:
        log.info("adopted by another supervisor")
        if self._patience is not None:
            self._patience.cancel()
        self._dismissed.clear()
        self._obeying = asyncio.ensure_future(self._obey(control))

    # --- methods of the control channel ---------------------------------------------------------

    def connections(self, query: ConnectionQuery) -> ConnectionPage:
        now = time.monotonic()
        return select(all_stats(self._edge, worker=self._spec.slot, now=now), query)

    def connection(self, connection_id: str) -> ConnectionStats | None:
        now = time.monotonic()
        return stats_of(self._edge, connection_id, worker=self._spec.slot, now=now)

    def samples(self) -> Samples:
        return samples(self._edge, time.monotonic())

    def close_connection(self, command: CloseCommand) -> bool:
        session = session_of(self._edge, command.connection_id)
        if session is not None:
            session.close(command.code, command.reason)
        return session is not None

    def update_keys(self, connection_id: str) -> KeyUpdateVerdict:
        session = session_of(self._edge, connection_id)
        if session is None:
            return KeyUpdateVerdict.NOT_FOUND
        if not isinstance(session, Http3Session):
            return KeyUpdateVerdict.ON_TCP
        connection = session.connection
        if not connection.handshake_confirmed:
            return KeyUpdateVerdict.NO_HANDSHAKE
        connection.request_key_update()
        # An idle connection would send nothing that says so.
        connection.send_ping(0)
        self._edge.wake(connection)
        return KeyUpdateVerdict.REQUESTED

    def trace_connection(self, command: TraceCommand) -> TraceAnswer:
        tracer = self._edge.tracer
        for session in self._edge.sessions:
            if session.connection.id == command.connection_id:
                act = tracer.start if command.action is TraceAction.START else tracer.stop
                return TraceAnswer(found=True, file=act(session))
        return TraceAnswer(found=False)

    def follow_connection(self, command: FollowCommand) -> FollowAnswer:
        return self._edge.tracer.follow(
            self._edge.sessions, command.connection_id, command.follower, command.level
        )

    def stats(self) -> WorkerStats:
        edge = self._edge
        endpoint, arrivals = edge.endpoint, edge.tcp.arrivals
        network: Counter[str] = Counter()
        for sock in edge.sockets:
            network.update(sock.counters)
        for forwarder in (edge.forwarder, edge.fleet):
            if forwarder is not None:
                network.update(forwarder.counters)
        refused = dict(edge.policy.counters)
        dropped = {
            name: count
            for source in (endpoint.counters, network)
            for name, count in source.items()
            if "dropped" in name
        }
        return WorkerStats(
            slot=self._spec.slot,
            pid=os.getpid(),
            bank=bank_of(self._spec.slot),
            draining=self._draining is not None,
            uptime_seconds=time.monotonic() - self._started,
            resident_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            connections=len(edge.all_sessions),
            handshakes_open=endpoint.admission.connections.half_open,
            requests_active=sum(len(session.streams) for session in edge.all_sessions),
            connections_by_protocol=counts_by_protocol(edge),
            connections_total=endpoint.counters["accepted"] + arrivals.accepted,
            handshakes_completed=edge.handshakes_completed + arrivals.completed,
            handshakes_failed=edge.handshakes_failed + arrivals.failures,
            requests_total=edge.gateway.requests_total,
            retries_sent=endpoint.counters["retries"],
            version_negotiations_sent=endpoint.counters["version_negotiations"],
            stateless_resets_sent=endpoint.counters["stateless_resets"],
            datagrams_received=network["datagrams_received"],
            datagrams_forwarded=network["datagrams_forwarded"],
            fleet_messages={}
            if edge.fleet is None
            else {str(outcome): network[outcome] for outcome in FleetMessages},
            datagrams_sent=network["datagrams_sent"],
            bytes_received=network["bytes_received"],
            bytes_sent=network["bytes_sent"],
            datagrams_dropped=from_zero(DATAGRAM_DROPS, dropped),
            metrics=edge.gateway.metrics,
            servers=edge.gateway.servers(),
            discoveries=edge.gateway.discoveries(),
            upstreams=edge.gateway.upstream_states(),
            tcp_refused=edge.tcp.refused,
            tcp_failed=edge.tcp.failed,
            redirects=from_zero(("308",), edge.tcp.redirects.by_status),
            requests_refused=refused,
            early_data=from_zero(EarlyDataVerdict, edge.early_data.verdicts),
            traces_running=edge.tracer.running,
            trace_writes_dropped=edge.tracer.dropped,
            live_writes_dropped=edge.tracer.live_dropped,
            log_lines_dropped=self._logs.dropped,
            spans_dropped=edge.spans.dropped,
        )

    def drain(self, order: DrainOrder) -> None:
        """Start draining; when called again, the shorter time counts."""
        end = time.monotonic() + max(order.seconds, order.long)
        if end >= self._drain_end:
            return
        self._drain_end = end
        if self._draining is not None:
            self._draining.cancel()
        self._draining = asyncio.ensure_future(self._drain(order))

    async def _drain(self, order: DrainOrder) -> None:
        try:
            await self._edge.drain(order)
            if order.seconds:
                await self._edge.linger()
        except Exception:
            log.exception("drain failed; closing at once")
        self._ended.set()

    async def prepare_settings(self, settings: Settings) -> None:
        self.abort_settings()
        try:
            logs = self._logs.successor(settings.config.log)
            try:
                known = self._edge.endpoint.certificates
                proposal = self._edge.propose(
                    settings.config, _certificates(settings, known), settings.client_auth
                )
            except BaseException:
                self._logs.discard(logs)
                raise
        except (UnusableError, CertificateError) as error:
            raise ControlError(str(error)) from error
        prepared = _Prepared(logs, proposal, settings.shared_keys, settings.fleet)
        self._prepared = prepared
        try:
            await proposal.start()
        except UnusableError as error:
            if self._prepared is prepared:
                self.abort_settings()
            raise ControlError(str(error)) from error

    def commit_settings(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            raise ControlError("no settings are prepared")
        self._edge.adopt(prepared.proposal)
        self._edge.use_shared_keys(prepared.shared_keys)
        self._use_fleet(prepared.fleet)
        self._logs = self._logs.replace_by(prepared.logs)
        self._edge.gateway.access_log = self._logs.access

    def _use_fleet(self, identity: FleetIdentity | None) -> None:
        """Encode server IDs as the new settings say; those of earlier ones are still decoded."""
        if identity is None or not isinstance(self._layout, QuicLbLayout):
            return
        self._identity = identity
        configurations = identity.configurations()
        if identity.id_keys[0] != self._encoding:
            self._encoding = identity.id_keys[0]
            self._layout.use(configurations[0], identity.server_id)
            # The draft, section 3.1: clients are to use IDs of the new configuration.
            self._edge.endpoint.renew_connection_ids()
        if self._edge.fleet is not None:
            self._edge.fleet.use_configurations(configurations)

    def abort_settings(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            prepared.proposal.drop()
            self._logs.discard(prepared.logs)

    def set_peers(self, peers: list[Peer]) -> None:
        if self._edge.fleet is not None:
            self._edge.fleet.use_peers({peer.server_id: (peer.host, peer.port) for peer in peers})

    def set_log_level(self, level: str) -> None:
        logging.getLogger().setLevel(level.upper())

    def reopen_logs(self) -> None:
        try:
            self._logs.reopen()
        except OSError as error:
            raise ControlError(f"cannot reopen log: {error}") from error
