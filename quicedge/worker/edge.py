"""A worker's edge: sockets, the QUIC endpoint, sessions and upstreams on one event loop."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import structlog

from quicedge.config.limits import DRAIN_NOTICE, PROGRESS_INTERVAL
from quicedge.config.schema import Config
from quicedge.http.checks import MessageError, MessageLimits
from quicedge.http.dates import CurrentDate
from quicedge.http.errors import H3ErrorCode
from quicedge.http.forwarding import Reserved
from quicedge.http.h3 import H3Settings
from quicedge.http.hq import ALPN_HQ
from quicedge.http.message import Field, Request, Response
from quicedge.http.semantics import EdgeContext
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.ownanswers import OwnAnswer, own_answer
from quicedge.proxy.passing import (
    DROPPED_WITH_TRACE_CONTEXT,
    TRANSPORT_FIELDS,
    SpanContext,
    server_timing,
    trace_context,
    transport_fields,
)
from quicedge.proxy.router import host_of
from quicedge.quic.cids import ConnectionIds
from quicedge.quic.connection import Connection
from quicedge.quic.endpoint import Endpoint, EndpointSettings
from quicedge.quic.preferred import PreferredAddress
from quicedge.quic.sealing import Fleet
from quicedge.quic.settings import ALPN_H3
from quicedge.quic.sharedkeys import SharedKeys
from quicedge.quic.tls import CertificatePem, CertificateStore, parse_certificate
from quicedge.telemetry.access import AccessLog
from quicedge.telemetry.metrics import Metrics
from quicedge.telemetry.outcomes import Outcome
from quicedge.udp.address import FourTuple, format_address
from quicedge.udp.forwarding import Forwarder
from quicedge.udp.socket import UdpSocket
from quicedge.worker.closing import close_reason
from quicedge.worker.early import EarlyData, early_data_terms
from quicedge.worker.losses import LossReport
from quicedge.worker.policy import Policy
from quicedge.worker.proposal import AnyUpstream, Proposal
from quicedge.worker.records import (
    access_record,
    count_connection,
    count_exchange,
    count_rejected,
    expect_series,
    rejected_record,
    route_label,
    transport_of,
)
from quicedge.worker.roster import Roster
from quicedge.worker.session import RequestStream, Session
from quicedge.worker.spans import SpanRecorder
from quicedge.worker.tracing import Tracer

log = structlog.get_logger(__name__)


class _Network:
    """Sends on the socket that a path belongs to (`quic.endpoint.Network`)."""

    def send(self, datagrams: list[bytes], path: FourTuple, ecn: int = 0) -> None:
        path.socket.send(datagrams, path, ecn)

    def send_segments(self, data: bytes, segment: int, path: FourTuple, ecn: int = 0) -> None:
        path.socket.send_segments(data, segment, path, ecn)


def store_of(certificates: Iterable[CertificatePem]) -> CertificateStore:
    """What to serve, from what the supervisor read; raises CertificateError."""
    default = None
    loaded = []
    for item in certificates:
        certificate = parse_certificate(item)
        loaded.append(certificate)
        if item.default:
            default = certificate
    return CertificateStore(loaded, default)


def _timing(exchange: Exchange, connection: Connection) -> bytes:
    """What clients are told of an exchange whose response head has just come."""
    origin, rtt = exchange.origin, connection.recovery.rtt
    total = (exchange.first_byte_at or exchange.started_at) - exchange.started_at
    # Until a connection to the origin is there, the time is ours.
    ours = (origin.queue_seconds or 0.0) if origin is not None else 0.0
    return server_timing(total - ours, ours, rtt.smoothed if rtt.initialized else None)


class Edge:
    """Everything between the sockets of one worker and its origins.

    Datagrams of one wake-up are all handled before anything is sent; what origins bring in
    between is sent once a turn of the loop, however many exchanges wrote.
    """

    def __init__(
        self,
        config: Config,
        sockets: list[UdpSocket],
        *,
        certificates: CertificateStore,
        connection_ids: ConnectionIds,
        secret: bytes,
        access_log: AccessLog | None,
        alpn_protocols: Sequence[str] = (ALPN_H3,),
        forwarder: Forwarder | None = None,
        roster: Roster | None = None,
        tolerant: bool = False,
    ) -> None:
        """Raises UnusableError; `tolerant` as in `Proposal`.

        `alpn_protocols`: what is offered; HTTP/3 alone but for interop tests.
        """
        self._loop = asyncio.get_running_loop()
        # Not the loop's time: uvloop's has whole milliseconds and stands still within a turn.
        self._clock: Callable[[], float] = time.monotonic
        self.date = CurrentDate(time.time)
        self.sockets = sockets
        self._connection_ids = connection_ids
        self._secret = secret
        self._alpn_protocols = alpn_protocols
        self._flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._drained: asyncio.Future[None] | None = None
        self.access_log = access_log
        self.sessions: set[Session] = set()
        self.requests_total = 0
        self.metrics = Metrics()
        self.handshakes_completed = 0
        self.handshakes_failed = 0
        self._upstreams: dict[str, AnyUpstream] = {}
        proposal = Proposal(
            config, certificates, alpn_protocols, tolerant=tolerant, loop=self._loop
        )
        self._use(proposal)
        self.tracer = Tracer(config.qlog, self._clock)
        self.spans = SpanRecorder(config.otel, self._clock)
        self.policy = Policy(config, self._clock)
        for sock in sockets:
            self.metrics.listener(format_address(sock.address))
        self._losses = LossReport()
        self._ticker = self._loop.call_later(PROGRESS_INTERVAL, self._tick)
        self.endpoint = Endpoint(
            EndpointSettings(
                configuration=proposal.quic,
                handshake_timeout=config.quic.handshake_timeout,
                max_streams=config.quic.max_streams,
                max_datagram_size=config.quic.max_datagram_size,
                early_data_terms=early_data_terms(config),
                preferred_address=self._preferred_address,
            ),
            admission=self.policy.admission,
            certificates=certificates,
            connection_ids=connection_ids,
            secret=secret,
            network=_Network(),
            accept=self._accept,
            forward=forwarder.forward if forwarder is not None else None,
            roster=roster,
        )
        self.early_data = EarlyData(self.endpoint.early_data_guard, config)
        self.forwarder = forwarder
        if forwarder is not None:
            self._loop.add_reader(forwarder.fileno(), self._forwarded)
        for sock in sockets:
            sock.on_blocked = lambda sock=sock: self._loop.add_writer(
                sock.fileno(), self._writable, sock
            )
            self._loop.add_reader(sock.fileno(), self._readable, sock)

    # --- configuration ------------------------------------------------------------------------

    def propose(self, config: Config, certificates: CertificateStore) -> Proposal:
        """Build what a configuration needs beside what runs; raises UnusableError.

        `adopt` it, or `drop` it.
        """
        return Proposal(
            config,
            certificates,
            self._alpn_protocols,
            running=self.config,
            upstreams=self._upstreams,
            loop=self._loop,
        )

    def adopt(self, proposal: Proposal) -> None:
        """Use a configuration from now on; connections and exchanges that live keep theirs."""
        config = proposal.config
        self._use(proposal)
        self.policy.configure(config)
        self.tracer.configure(config.qlog)
        self.spans.configure(config.otel)
        self.endpoint.certificates = proposal.certificates
        settings = self.endpoint.settings
        settings.configuration = proposal.quic
        settings.handshake_timeout = config.quic.handshake_timeout
        settings.max_streams = config.quic.max_streams
        settings.max_datagram_size = config.quic.max_datagram_size
        settings.early_data_terms = early_data_terms(config)
        self.early_data.configure(config)

    def _use(self, proposal: Proposal) -> None:
        config = self.config = proposal.config
        self.router = proposal.router
        expect_series(self.metrics, config)
        self.h3_settings = H3Settings(
            qpack_max_table_capacity=config.http3.qpack_max_table_capacity,
            qpack_blocked_streams=config.http3.qpack_blocked_streams,
            max_field_section_size=config.http3.max_field_section_size,
            max_fields=config.http3.max_fields,
        )
        self.message_limits = MessageLimits(
            max_size=config.http3.max_field_section_size, max_fields=config.http3.max_fields
        )
        replaced, self._upstreams = self._upstreams, proposal.upstreams
        for name, upstream in replaced.items():
            if self._upstreams.get(name) is not upstream:
                upstream.retire()

    def use_shared_keys(self, shared: SharedKeys | None) -> None:
        """Tickets and tokens of a fleet from now on; None: of this host alone."""
        self.endpoint.use_keys(
            None if shared is None else Fleet(shared.keys, lambda: time.time() - self._clock())
        )

    def _preferred_address(self, path: FourTuple) -> PreferredAddress | None:
        """Where a client should move to, if the operator prefers an address."""
        found: dict[str, tuple[str, int]] = {}
        for text in self.config.quic.preferred_address:
            host, _, port = text.rpartition(":")
            host = host.strip("[]")
            family = "ipv6" if ":" in host else "ipv4"
            if ipaddress.ip_address(host).is_unspecified:
                # Only the family that the client came by is known of a wildcard.
                if (":" in path.local_host) != (":" in host) or not path.local_host:
                    continue
                host = path.local_host
            found[family] = host, int(port)
        return PreferredAddress(**found) if found else None

    def now(self) -> float:
        """Seconds on the clock that connections and exchanges are timed by."""
        return self._clock()

    # --- the loop -------------------------------------------------------------------------------

    def _readable(self, sock: UdpSocket) -> None:
        sock.receive(self._received)
        self._flush()

    def _received(self, datagrams: list[bytes], path: FourTuple, ecn: int) -> None:
        self.endpoint.receive_run(datagrams, path, self._clock(), ecn)

    def _forwarded(self) -> None:
        assert self.forwarder is not None
        now = self._clock()
        self.forwarder.receive(lambda data, path, ecn: self.endpoint.receive(data, path, now, ecn))
        self._flush()

    def wake(self, connection: Connection) -> None:
        """Something was written on the connection: send at the end of this turn of the loop."""
        self.endpoint.wake(connection)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._flush_scheduled = False
        self._flush()

    def _flush(self) -> None:
        self.endpoint.flush(self._clock())
        self._arm()

    def _arm(self) -> None:
        """Keep one timer at the endpoint's earliest deadline."""
        deadline = self.endpoint.next_timer()
        if deadline is None or deadline >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        # The loop rounds to whole milliseconds; rounded down, it would spin until the deadline.
        delay = math.ceil((deadline - self._clock()) * 1000) / 1000
        self._timer = self._loop.call_later(max(delay, 0.0), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        self.endpoint.handle_timers(self._clock())
        self._flush()

    def _writable(self, sock: UdpSocket) -> None:
        if sock.flush():
            self._loop.remove_writer(sock.fileno())

    # --- sessions and exchanges -------------------------------------------------------------------

    def _accept(self, connection: Connection) -> Session:
        session = Session(self, connection)
        self.tracer.accepted(session)
        self.sessions.add(session)
        return session

    def session_ended(self, session: Session) -> None:
        """The connection behind a session is over."""
        self.sessions.discard(session)
        if session.connection.handshake_seconds is None:
            self.handshakes_failed += 1
        count_connection(self.metrics, session.connection, self._clock())
        log.debug(
            "connection ended",
            connection=session.connection.id,
            ending=close_reason(session.connection),
        )
        self._check_drained()

    def new_exchange(self, session: Session, stream: RequestStream, request: Request) -> Exchange:
        """An exchange for a request; `start_exchange` sets it going."""
        self.requests_total += 1
        route = self.router.find(request.authority, request.path)
        if route is not None:
            session.routes.add(route_label(route))
        reserved, added, trace_id, span = self._passed_on(session, request)
        context = EdgeContext(
            client_host=session.client_host,
            alt_svc=self._alt_svc(stream),
            version=b"0.9" if session.connection.alpn == ALPN_HQ else b"3",
            early_data=not session.connection.handshake_complete,
            reserved=Reserved(reserved, tell_underscores=self.config.pass_on.underscores),
            added=added,
        )
        exchange = Exchange(
            request,
            stream,
            route,
            context,
            clock=self._clock,
            date=self.date,
            on_done=lambda exchange: self._exchange_done(session, stream, exchange),
        )
        exchange.trace_id = trace_id
        exchange.span = span
        if self.config.pass_on.server_timing:
            exchange.timing = lambda exchange: _timing(exchange, session.connection)
        return exchange

    def _passed_on(
        self, session: Session, request: Request
    ) -> tuple[frozenset[bytes], list[Field], str | None, SpanContext | None]:
        """Request fields that only we may write, ours, the trace's identifier and place in it."""
        options = self.config.pass_on
        reserved: frozenset[bytes] = frozenset()
        added: list[Field] = []
        trace_id = span = None
        if options.transport_headers:
            reserved = TRANSPORT_FIELDS
            added = transport_fields(transport_of(session.connection))
        if self.spans.enabled:
            span = self.spans.begin(request.fields, trusted=options.trace_context)
            fields, trace_id = span.fields, span.trace_id
        elif options.trace_context:
            fields, trace_id = trace_context(request.fields)
        if trace_id is not None:
            reserved |= DROPPED_WITH_TRACE_CONTEXT
            added = added + fields
        return reserved, added, trace_id, span

    def start_exchange(self, session: Session, exchange: Exchange) -> None:
        """Refuse an exchange, answer it, or send it to its upstream; limits come before routes."""
        certificate = session.connection.certificate
        host = host_of(exchange.request.authority)
        if (
            certificate is not None
            and host != (session.connection.server_name or host).lower()
            and not certificate.covers(host)
        ):
            # RFC 9110 section 15.5.20: this connection is not authoritative for that name.
            exchange.refuse(421, Outcome.MISDIRECTED)
        elif self.policy.refuses(exchange, session.client_host):
            return
        elif (own := own_answer(exchange.request)) is not None:
            self._answer(exchange, own)
        elif exchange.route is None:
            exchange.refuse(404, Outcome.NO_ROUTE)
        else:
            exchange.start(self._upstreams[exchange.route.upstream], session.share)

    def _answer(self, exchange: Exchange, own: OwnAnswer) -> None:
        if own is OwnAnswer.OPTIONS:
            exchange.answer(Response(204))
        elif own is OwnAnswer.NOT_SERVED:
            exchange.refuse(501, Outcome.NOT_SERVED, reason="TRACE is not served")
        else:
            exchange.refuse(400, Outcome.MALFORMED, reason="max-forwards is no number")

    def _tick(self) -> None:
        """Once a second: deadlines of progress, memory, and what we lose."""
        self._ticker = self._loop.call_later(PROGRESS_INTERVAL, self._tick)
        now = self._clock()
        contended = [upstream for upstream in self._upstreams.values() if upstream.is_contended]
        self.policy.check(self.sessions, now, contended=bool(contended))
        for upstream in contended:
            upstream.reclaim()
        self._losses.check(self._lost(), now)
        self.tracer.check()

    def _lost(self) -> Counter[str]:
        lost: Counter[str] = Counter()
        for sock in self.sockets:
            for name, count in sock.counters.items():
                if name.startswith("send_dropped"):
                    lost[name] += count
        if self.access_log is not None:
            lost["access_log_lines"] = self.access_log.dropped
        return lost

    def _alt_svc(self, stream: RequestStream) -> bytes | None:
        alt_svc = self.config.alt_svc
        if not alt_svc.enabled:
            return None
        path = stream.session.connection.active_path
        port = alt_svc.port or (path.socket.address[1] if path is not None else None)
        # RFC 7838 section 3; an empty host is the one that was asked.
        return b'h3=":%d"; ma=%d' % (port, alt_svc.max_age) if port else None

    def _exchange_done(self, session: Session, stream: RequestStream, exchange: Exchange) -> None:
        session.exchange_done(stream.stream_id, exchange.outcome is Outcome.COMPLETE)
        count_exchange(self.metrics, exchange)
        self.spans.end(session, stream, exchange)
        if self.access_log is not None:
            self.access_log.log(access_record(session, stream, exchange))
        stream.exchange = None  # they name each other: neither would be freed

    def rejected(
        self,
        session: Session,
        stream_id: int,
        fields: Sequence[Field],
        error: MessageError,
        bytes_sent: int,
    ) -> None:
        """A malformed request was answered without an exchange."""
        self.requests_total += 1
        if self.access_log is not None:
            self.access_log.log(rejected_record(session, stream_id, fields, error, bytes_sent))
        count_rejected(self.metrics, error, bytes_sent)

    # --- the end ----------------------------------------------------------------------------------

    async def drain(self, timeout: float) -> None:
        """Take no new connections, finish what runs, at most `timeout` seconds; then close all."""
        self.policy.drain()
        self._drained = self._loop.create_future()
        for session in list(self.sessions):
            session.announce_drain()
        deadline = self._loop.time() + timeout
        await asyncio.sleep(min(DRAIN_NOTICE, timeout / 2))
        for session in list(self.sessions):
            session.drain()
        self._check_drained()
        try:
            await asyncio.wait_for(self._drained, max(deadline - self._loop.time(), 0))
        except TimeoutError:
            log.warning("drain timed out", connections=len(self.sessions))
        for session in list(self.sessions):
            session.close(H3ErrorCode.NO_ERROR, "shutting down")
        self._flush()

    def _check_drained(self) -> None:
        if (
            self._drained is not None
            and not self._drained.done()
            and not any(session.connection.is_alive for session in self.sessions)
        ):
            self._drained.set_result(None)

    def servers(self) -> dict[str, dict[str, dict[str, int]]]:
        """Gauges and counters by upstream and server (`Upstream.stats`)."""
        return {name: upstream.stats() for name, upstream in self._upstreams.items()}

    async def close(self) -> None:
        """Stop reading and close upstreams; the sockets are the supervisor's."""
        self._ticker.cancel()
        self.policy.close()
        self.early_data.close()
        if self._timer is not None:
            self._timer.cancel()
        for sock in self.sockets:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
        if self.forwarder is not None:
            self._loop.remove_reader(self.forwarder.fileno())
        for upstream in self._upstreams.values():
            await upstream.close()
        self.tracer.close()
        self.spans.flush()
