"""Wires one worker together: sockets, QUIC endpoint, sessions, gateway and telemetry."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, inf
from types import MappingProxyType
from typing import TYPE_CHECKING

import structlog

from quicedge.acme.challenge import self_signed
from quicedge.client_auth.journal import Journal
from quicedge.client_auth.material import ClientAuthPem
from quicedge.client_auth.rules import ClientAuth
from quicedge.config.host_port import HostPort
from quicedge.config.limits import (
    CLIENT_REVIEW_SECONDS,
    CLOSING_LINGER,
    PROGRESS_INTERVAL,
    TIMER_SLACK,
    TUNNEL_DRAIN_SPREAD,
)
from quicedge.config.schema import Config
from quicedge.downstream.close_reason import close_reason
from quicedge.downstream.early_data import EarlyData, early_data_terms
from quicedge.downstream.http3 import Codec, CodecFactory, Http3Session
from quicedge.downstream.session import Session
from quicedge.http.dates import CurrentDate
from quicedge.http.errors import H3ErrorCode
from quicedge.http.h3 import H3Connection, H3Settings
from quicedge.http.known_sections import KnownSections
from quicedge.proxy.alt_svc import AltSvcBoard, AltSvcReport, QuicCounts
from quicedge.proxy.gateway import Gateway
from quicedge.proxy.policy import Policy
from quicedge.proxy.spans import SpanRecorder
from quicedge.quic.connection import Connection
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.endpoint import Endpoint, EndpointSettings
from quicedge.quic.settings import ALPN_H3
from quicedge.quic.ticket_keys import SharedKeys
from quicedge.quic.tls import (
    CertificatePem,
    CertificateStore,
    ServerCertificate,
    parse_certificate,
)
from quicedge.quic.token_sealer import FleetKeys
from quicedge.quic.transport_parameters import PreferredAddress
from quicedge.tcp.connection import TcpConnection
from quicedge.tcp.ticket_keys import FleetTicketKeys, HostKeys
from quicedge.tcp.tls import Validations, shared_tickets
from quicedge.telemetry.access import AccessLog
from quicedge.telemetry.comparison import RecentConnections
from quicedge.telemetry.protocols import TransportKind, http_protocol
from quicedge.udp.forwarding import Forwarder
from quicedge.udp.socket import FourTuple, UdpSocket
from quicedge.worker.control import DrainOrder
from quicedge.worker.losses import LossReport
from quicedge.worker.missing_names import MissingNames
from quicedge.worker.overload import Overload
from quicedge.worker.proposal import AnyUpstream, Proposal
from quicedge.worker.quic_snapshots import count_quic, quic_sample
from quicedge.worker.roster import Roster
from quicedge.worker.socket_reader import SocketReader
from quicedge.worker.tcp_front import TcpFront, TcpSession, TcpSocket
from quicedge.worker.tcp_snapshots import count_tcp, tcp_sample
from quicedge.worker.tracing import Tracer

if TYPE_CHECKING:
    # Only hosts of a fleet need it.
    from quicedge.udp.fleet import FleetForwarder

log = structlog.get_logger(__name__)


class _Network:
    """Sends on the socket that a path belongs to (`quic.endpoint.Network`)."""

    def send(self, datagrams: list[bytes], path: FourTuple, ecn: int = 0) -> None:
        path.socket.send(datagrams, path, ecn)

    def send_segments(self, data: bytes, segment: int, path: FourTuple, ecn: int = 0) -> None:
        path.socket.send_segments(data, segment, path, ecn)


def load_certificates(
    certificates: Iterable[CertificatePem],
    managed: Iterable[CertificatePem] | None = None,
    known: CertificateStore | None = None,
    *,
    strict: bool = False,
) -> CertificateStore:
    """Load certificates that the supervisor has read; raises CertificateError.

    `managed`, `strict`: as in `CertificateStore`. Those that are in `known` are not parsed again.
    """
    parsed = {}
    if known is not None:
        parsed = {(item.chain_pem, item.key_pem): item for item in known.certificates()}

    def load(pem: CertificatePem) -> ServerCertificate:
        return parsed.get((pem.cert, pem.key)) or parse_certificate(pem)

    default = None
    loaded = []
    for item in certificates:
        certificate = load(item)
        loaded.append(certificate)
        if item.default:
            default = certificate
    return CertificateStore(
        loaded,
        default,
        managed=None if managed is None else [load(item) for item in managed],
        strict=strict,
    )


def _client_auth(
    entries: Sequence[ClientAuthPem], known: ClientAuth | None = None
) -> ClientAuth | None:
    """The rules on clients' certificates; None: there are none."""
    return ClientAuth(entries, known) if entries else None


def _is_long_lived(session: Session) -> bool:
    """Whether any of its requests has no end in sight."""
    exchanges = (stream.exchange for stream in session.streams.values())
    return any(exchange is not None and exchange.is_long_lived for exchange in exchanges)


class Edge:
    """Everything between the sockets of one worker and its origins.

    All datagrams of a wake-up are processed before anything is sent; data from origins is sent once
    per event loop iteration, however many exchanges wrote. Settings change by `propose` and
    `adopt`; at the end call `drain`, then `close`.
    """

    def __init__(
        self,
        config: Config,
        sockets: list[UdpSocket],
        tcp_sockets: Sequence[TcpSocket] = (),
        redirect_sockets: Sequence[TcpSocket] = (),
        *,
        certificates: CertificateStore,
        client_auth: Sequence[ClientAuthPem] = (),
        connection_ids: ConnectionIdIssuer,
        secret: bytes,
        access_log: AccessLog | None,
        extra_codecs: Mapping[str, CodecFactory] = MappingProxyType({}),
        forwarder: Forwarder | None = None,
        fleet: FleetForwarder | None = None,
        roster: Roster | None = None,
        tolerant: bool = False,
    ) -> None:
        """Raises UnusableError; `tolerant` as in `Proposal`.

        `extra_codecs`: application protocols beside HTTP/3, by ALPN name, most preferred first;
        each is preferred to HTTP/3.
        """
        self._loop = asyncio.get_running_loop()
        # Not the loop's clock: uvloop's has millisecond resolution and stands still within a turn.
        self._clock: Callable[[], float] = time.monotonic
        self.sockets = sockets
        # A worker may have several sockets of one address.
        addresses = (str(HostPort.of(item.sock.getsockname())) for item in tcp_sockets)
        self._tcp_addresses = list(dict.fromkeys(addresses))
        self._connection_ids = connection_ids
        self._secret = secret
        self._codecs = {**extra_codecs, ALPN_H3: self._make_h3}
        self._known_sections = KnownSections()
        self._flush_scheduled = False
        self._waiting_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._drained: asyncio.Future[None] | None = None
        self.sessions: set[Http3Session] = set()
        self.handshakes_completed = 0
        self.handshakes_failed = 0
        self._upstreams: dict[str, AnyUpstream] = {}
        self.recent = RecentConnections()
        self.alt_svc = AltSvcBoard()
        self.send_alt_svc: Callable[[AltSvcReport], None] = lambda report: None
        """Reports to the supervisor what became of clients that HTTP/3 was advertised to."""
        self.missing_names = MissingNames(config, self._loop, self._clock)
        self.spans = SpanRecorder(config.otel, self._clock)
        self.policy = Policy(config, self._clock)
        self.gateway = Gateway(
            self.policy,
            self.spans,
            access_log,
            clock=self._clock,
            date=CurrentDate(time.time),
        )
        self._validations = Validations()
        self._tcp_tickets = shared_tickets(
            self._host_ticket_keys(), certificates.default or self_signed("localhost")
        )
        proposal = Proposal(
            config,
            certificates,
            tuple(self._codecs),
            tickets=self._tcp_tickets,
            validations=self._validations,
            client_auth=_client_auth(client_auth),
            tolerant=tolerant,
            loop=self._loop,
        )
        self._journal = Journal(self.gateway.metrics.tls, self._clock)
        self._reviewed: list[Session] = []
        """Sessions whose clients must still be judged by new rules on certificates."""
        self._use(proposal)
        self.tracer = Tracer(config.qlog, self._clock)
        self._overload = Overload(config, self.policy)
        for sock in sockets:
            self.gateway.metrics.listener(sock.name, TransportKind.QUIC)
        for address in self._tcp_addresses:
            self.gateway.metrics.listener(address, TransportKind.TCP)
        self._losses = LossReport()
        self._ticker = self._loop.call_later(PROGRESS_INTERVAL, self._tick)
        self.tcp = TcpFront(
            config,
            tcp_sockets,
            proposal.tls,
            redirect_sockets,
            gateway=self.gateway,
            alt_svc=self.alt_svc,
            connections=self._overload.connections,
            loop=self._loop,
            clock=self._clock,
            validations=self._validations,
            journal=self._journal,
            on_ended=self._tcp_ended,
        )
        self.fleet = fleet
        if fleet is not None:
            fleet.deliver = self._from_fleet
        steering = fleet or forwarder
        self.endpoint = Endpoint(
            EndpointSettings(
                configuration=proposal.quic,
                quic=config.quic,
                groups=proposal.groups,
                client_auth=proposal.client_auth,
                early_data_terms=early_data_terms(config),
                preferred_address=self._preferred_address,
            ),
            admission=self._overload.admission,
            certificates=certificates,
            connection_ids=connection_ids,
            secret=secret,
            network=_Network(),
            accept=self._accept,
            forward=steering.forward if steering is not None else None,
            roster=roster,
        )
        self.tcp.arrivals.may_come = self.missing_names.may_come
        self.early_data = EarlyData(self.endpoint.early_data_guard, config)
        self.forwarder = forwarder
        if forwarder is not None:
            self._loop.add_reader(forwarder.fileno(), self._forwarded)
        for sock in sockets:
            sock.on_blocked = lambda sock=sock: self._loop.add_writer(
                sock.fileno(), self._writable, sock
            )
        self._readers = [
            SocketReader(sock, self._loop, self._clock, self._received, self._flush_later)
            for sock in sockets
        ]

    async def start(self) -> None:
        """Wait until the applications of the configuration have started; raises UnusableError."""
        await self._proposal.start()

    # --- configuration ------------------------------------------------------------------------

    def propose(
        self,
        config: Config,
        certificates: CertificateStore,
        client_auth: Sequence[ClientAuthPem] = (),
    ) -> Proposal:
        """Build everything that a configuration needs, beside what runs; raises UnusableError.

        The result must be passed to `adopt`, or its `drop` called.
        """
        return Proposal(
            config,
            certificates,
            tuple(self._codecs),
            running=self.config,
            upstreams=self._upstreams,
            running_tls=self.tcp.contexts,
            tickets=self._tcp_tickets,
            validations=self._validations,
            client_auth=_client_auth(client_auth, self._proposal.client_auth),
            loop=self._loop,
        )

    def adopt(self, proposal: Proposal) -> None:
        """Switch to a configuration; live connections and exchanges keep theirs."""
        config = proposal.config
        before = self._proposal.client_auth
        self.spans.configure(config.otel)
        self._use(proposal)
        self.policy.configure(config)
        self._overload.configure(config)
        self.tracer.configure(config.qlog)
        self.tcp.adopt(config, proposal.tls)
        self.endpoint.certificates = proposal.certificates
        settings = self.endpoint.settings
        settings.configuration = proposal.quic
        settings.quic = config.quic
        settings.groups = proposal.groups
        settings.client_auth = proposal.client_auth
        settings.early_data_terms = early_data_terms(config)
        self.early_data.configure(config)
        if proposal.client_auth is not None and proposal.client_auth is not before:
            self._reviewed = self.all_sessions

    def _use(self, proposal: Proposal) -> None:
        self._proposal = proposal
        config = self.config = proposal.config
        self.missing_names.configure(config)
        proposal.certificates.on_missing = self.missing_names.note
        self.h3_settings = H3Settings(
            qpack_max_table_capacity=config.http3.qpack_max_table_capacity,
            qpack_blocked_streams=config.http3.qpack_blocked_streams,
            max_field_section_size=config.http3.max_field_section_size,
            max_fields=config.http3.max_fields,
            extended_connect=True,
        )
        quic = [sock.name for sock in self.sockets]
        self.alt_svc.configure(config.alt_svc, tcp=self._tcp_addresses, quic=quic)
        replaced, self._upstreams = self._upstreams, proposal.upstreams
        self.gateway.use(config, proposal.router, proposal.upstreams, proposal.route_filters)
        self.gateway.client_auth = proposal.client_auth
        for name, upstream in replaced.items():
            if self._upstreams.get(name) is not upstream:
                upstream.retire()

    def refuse_names(self, names: list[str]) -> None:
        """There are no certificates on demand for these names."""
        self.missing_names.refuse(names)
        self.tcp.arrivals.give_up(names)

    def use_shared_keys(self, shared: SharedKeys | None) -> None:
        """Use the fleet's ticket and token keys from now on; None: keys of this host."""
        self.endpoint.use_keys(
            None if shared is None else FleetKeys(shared.keys, lambda: time.time() - self._clock())
        )
        if self._tcp_tickets is not None:
            self._tcp_tickets.use(
                self._host_ticket_keys() if shared is None else FleetTicketKeys(shared.keys)
            )

    def _host_ticket_keys(self) -> HostKeys:
        return HostKeys(self._secret, self._clock)

    def _preferred_address(self, path: FourTuple) -> PreferredAddress | None:
        """The configured preferred address for a client that connected on `path`, if any."""
        found: dict[str, HostPort] = {}
        for text in self.config.quic.preferred_address:
            address = HostPort.parse(text)
            ip = address.ip
            assert ip is not None, "the configuration is validated"
            if ip.is_unspecified:
                local = HostPort(path.local_host, address.port)
                # A wildcard stands for the address that the client connected to.
                if local.ip is None or local.ip.version != ip.version:
                    continue
                address = local
            found[f"ipv{ip.version}"] = address
        return PreferredAddress(**found) if found else None

    # --- the loop -------------------------------------------------------------------------------

    def _received(self, datagrams: list[bytes], path: FourTuple, ecn: int) -> None:
        self.endpoint.receive_run(datagrams, path, self._clock(), ecn)

    def _forwarded(self) -> None:
        assert self.forwarder is not None
        now = self._clock()
        self.forwarder.receive(lambda data, path, ecn: self.endpoint.receive(data, path, now, ecn))
        self._flush()

    def _from_fleet(self, data: bytes, path: FourTuple, ecn: int) -> None:
        self.endpoint.receive(data, path, self._clock(), ecn)

    def wake(self, connection: Connection) -> None:
        """The connection has something to send: flush at the end of this event loop iteration."""
        if self.endpoint.wake(connection) and not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush_later(self) -> None:
        """Flush at the end of this event loop iteration, so that data from origins that arrives in
        it goes out in the same runs; not at all after an ACK that makes too little room for data
        that waits."""
        if not self._flush_scheduled and self.endpoint.has_work:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        self.endpoint.flush(self._clock())
        if self.endpoint.waiting and not self._waiting_scheduled:
            self._waiting_scheduled = True
            self._loop.call_soon(self._receive_waiting)
        deadline = self.endpoint.next_timer()
        if not self._timer_at <= deadline < self._timer_at + TIMER_SLACK:
            self._arm(deadline)

    def _receive_waiting(self) -> None:
        self._waiting_scheduled = False
        self.endpoint.receive_waiting(self._clock())
        self._flush()

    def _arm(self, deadline: float) -> None:
        """Keep one timer at the endpoint's earliest deadline."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = deadline
        if deadline == inf:
            return
        # The loop has millisecond resolution; rounding down would spin until the deadline.
        delay = ceil((deadline - self._clock()) * 1000) / 1000
        self._timer = self._loop.call_later(delay if delay > 0.0 else 0.0, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._timer_at = inf
        if self.endpoint.handle_timers(self._clock()):
            self._flush_later()
        else:
            self._arm(self.endpoint.next_timer())

    def _writable(self, sock: UdpSocket) -> None:
        if sock.flush():
            self._loop.remove_writer(sock.fileno())

    # --- sessions (downstream.http3.Host) ---------------------------------------------------------

    def _accept(self, connection: Connection) -> Http3Session:
        session = Http3Session(connection, self.gateway, self)
        session.client.alt_svc = self.alt_svc.of_quic(connection.came_from.socket.name)
        self.tracer.accepted(session)
        self.sessions.add(session)
        return session

    @property
    def max_streams(self) -> int:
        """Concurrent requests allowed per connection."""
        return self.config.quic.max_streams

    def make_codec(self, session: Http3Session, alpn: str | None) -> Codec:
        """The codec for the negotiated application protocol."""
        assert alpn is not None, "TLS refuses clients without a protocol in common"
        return self._codecs[alpn](session)

    def _make_h3(self, session: Http3Session) -> Codec:
        return H3Connection(
            session.connection,
            session,
            is_client=False,
            settings=self.h3_settings,
            clock=self._clock,
            sections=self._known_sections,
        )

    def negotiated(self, session: Http3Session) -> None:
        """The session has its codec."""
        self.tracer.negotiated(session)

    def handshake_completed(self, session: Http3Session) -> None:
        self.handshakes_completed += 1
        handshake = session.connection.handshake
        assert handshake.group is not None
        found = self.gateway.metrics.tls[TransportKind.QUIC]
        found.handshake(
            handshake.group.name, handshake.compression, retried=handshake.hello_retried
        )
        if handshake.identity is not None:
            has_certificate = handshake.identity.certificate is not None
            self._journal.passed(TransportKind.QUIC, has_certificate=has_certificate)
        if session.client.alt_svc is not None:
            session.client.alt_svc.arrived(session.client.share.address)

    def session_ended(self, session: Http3Session) -> None:
        """The session's connection has ended."""
        self.sessions.discard(session)
        now = self._clock()
        sample = quic_sample(session, now)
        if sample.handshake_seconds is None:
            self.handshakes_failed += 1
            retried = session.connection.handshake.hello_retried
            self.gateway.metrics.tls[TransportKind.QUIC].hello_retries += retried
            self._count_refused(session)
        else:
            self.recent.ended(http_protocol(session.client.http_version), sample)
        count_quic(self.gateway.metrics, session, sample, now)
        # structlog takes 8 us to find out that nothing is logged.
        if logging.getLogger(__name__).isEnabledFor(logging.DEBUG):
            log.debug(
                "connection ended",
                connection=session.connection.id,
                ending=close_reason(session.connection),
            )
        self._check_drained()

    def _count_refused(self, session: Http3Session) -> None:
        connection = session.connection
        handshake = connection.handshake
        if handshake.refused is not None:
            # `client` has no address before the handshake is complete; but the Handshake packet
            # with the certificate was no replay (RFC 9000 section 8.1).
            path = connection.paths.validated()
            self._journal.refused(
                TransportKind.QUIC,
                handshake.refused,
                client="-" if path is None else str(HostPort.of(path.address.remote)),
                server_name=handshake.server_name,
            )

    def _tcp_ended(self, session: TcpSession, connection: TcpConnection) -> None:
        sample = tcp_sample(connection, session)
        self.recent.ended(http_protocol(session.client.http_version), sample)
        count_tcp(self.gateway.metrics, connection, session, sample, self._clock())
        self._check_drained()

    @property
    def all_sessions(self) -> list[Session]:
        """The sessions of all protocols."""
        return [*self.sessions, *self.tcp.sessions]

    def _tick(self) -> None:
        """Runs once per second: progress deadlines, memory, local losses."""
        self._ticker = self._loop.call_later(PROGRESS_INTERVAL, self._tick)
        now = self._clock()
        contended = self.gateway.is_contended
        self.tcp.check(now)
        if self._tcp_tickets is not None:
            self._tcp_tickets.refresh()
        self._overload.check(self.all_sessions, now, contended=contended)
        if contended:
            self.gateway.reclaim()
        self.gateway.tunnels.check(now)
        self._losses.check(self._lost(), now)
        self.tracer.check()
        self._report_alt_svc()
        if self._reviewed:
            self._review_some()
        if self.endpoint.is_renewing:
            self.endpoint.renew_some()
            self._flush()

    def _review_some(self) -> None:
        """End connections of clients that the rules on certificates admit no longer.

        No request of theirs is accepted any more as it is; what runs is ended, tunnels too.
        """
        auth = self._proposal.client_auth
        if auth is None:
            self._reviewed = []
            return
        until = self._clock() + CLIENT_REVIEW_SECONDS
        while self._reviewed and self._clock() < until:
            session = self._reviewed.pop()
            identity = session.client.identity
            if identity is None:
                # It connected before its host had a rule.
                if auth.rule_for(session.client.tls.server_name) is not None:
                    session.announce_drain()
                    session.drain()
            elif not auth.review(identity):
                session.close(H3ErrorCode.NO_ERROR, "client certificate is no longer accepted")
        self._flush()

    def _report_alt_svc(self) -> None:
        counts = {}
        for sock in self.sockets:
            name = sock.name
            listener = self.gateway.metrics.listener(name, TransportKind.QUIC)
            counts[name] = QuicCounts(
                sock.counters["datagrams_received"], listener.handshakes["failed"]
            )
        report = self.alt_svc.report(counts)
        if report is not None:
            self.send_alt_svc(report)

    def _lost(self) -> Counter[str]:
        lost: Counter[str] = Counter()
        for sock in self.sockets:
            for name, count in sock.counters.items():
                if name.startswith("send_dropped"):
                    lost[name] += count
        if self.gateway.access_log is not None:
            lost["access_log_lines"] = self.gateway.access_log.dropped
        return lost

    # --- the end ----------------------------------------------------------------------------------

    async def drain(self, order: DrainOrder) -> None:
        """Take no new connections, finish exchanges in the time that they have, then close all."""
        started = self._loop.time()
        self._drained = self._loop.create_future()
        if order.succeeded:
            if self.forwarder is not None:
                self._overload.leave(self.forwarder.has_left)
            self.tcp.leave()
        else:
            self._overload.drain()
            self.tcp.stop()
        for session in self.all_sessions:
            session.announce_drain()
        self._check_drained()
        if await self._drained_by(started + order.notice):
            return
        patience = order.seconds - order.notice if order.succeeded else 0.0
        for session in self.all_sessions:
            session.drain(patience)
        # WebSockets that have less time than all others are closed before it is over.
        spread = order.long <= order.seconds and not order.succeeded
        if spread:
            self.gateway.tunnels.drain(order.long, self._clock())
        self._check_drained()
        if await self._drained_by(started + order.seconds):
            return
        long_lived = [item for item in self.all_sessions if _is_long_lived(item)]
        if order.long > order.seconds:
            self._close_sessions(set(self.all_sessions) - set(long_lived))
            self._check_drained()
            if await self._drained_by(started + order.long):
                return
        if not spread:
            # In half of that time, so that the last one can still answer.
            self.gateway.tunnels.drain(TUNNEL_DRAIN_SPREAD, self._clock())
            if await self._drained_by(self._loop.time() + TUNNEL_DRAIN_SPREAD):
                return
        log.warning("drain timed out", connections=len(self.all_sessions))
        self._close_sessions(self.all_sessions)

    async def linger(self) -> None:
        """Repeat CONNECTION_CLOSE to clients that missed it, for their closing periods at most."""
        deadline = self._loop.time() + CLOSING_LINGER
        while self.endpoint.connections and self._loop.time() < deadline:
            await asyncio.sleep(CLOSING_LINGER / 20)

    async def _drained_by(self, deadline: float) -> bool:
        """Wait until all connections are gone, or for the deadline; whether they are."""
        assert self._drained is not None
        await asyncio.wait({self._drained}, timeout=max(deadline - self._loop.time(), 0))
        return self._drained.done()

    def _close_sessions(self, sessions: Iterable[Session]) -> None:
        for session in list(sessions):
            session.close(H3ErrorCode.NO_ERROR, "shutting down")
        self._flush()

    def _check_drained(self) -> None:
        if (
            self._drained is not None
            and not self._drained.done()
            and self.tcp.is_idle
            and not any(session.connection.is_alive for session in self.sessions)
        ):
            self._drained.set_result(None)

    async def close(self) -> None:
        """Stop reading and close the upstreams; the supervisor owns the sockets."""
        self._ticker.cancel()
        self.tcp.close()
        self.policy.close()
        self.early_data.close()
        if self._timer is not None:
            self._timer.cancel()
        for reader in self._readers:
            reader.close()
        for sock in self.sockets:
            self._loop.remove_writer(sock.fileno())
        if self.forwarder is not None:
            self._loop.remove_reader(self.forwarder.fileno())
        if self.fleet is not None:
            self.fleet.close()
        for upstream in self._upstreams.values():
            await upstream.close()
        self.tracer.close()
        self.spans.flush()
