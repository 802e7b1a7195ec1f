"""The TCP side of one worker: listeners, TLS, and the sessions of HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from quicedge.acme.challenge import Challenges
from quicedge.client_auth.journal import Journal
from quicedge.client_auth.rules import ClientAuth
from quicedge.client_auth.verdict import RefusedError
from quicedge.config.host_port import HostPort
from quicedge.config.limits import DRAIN_NOTICE
from quicedge.config.listeners import HTTPS_PORT, listeners, redirecting
from quicedge.config.schema import Config
from quicedge.downstream.http1 import Http1Session
from quicedge.downstream.http2 import Http2Session
from quicedge.downstream.redirect import CHALLENGE_PATH, Answered, RedirectSession, RedirectSite
from quicedge.downstream.tcp_client import TcpClient
from quicedge.http.h1_head import HeadReader
from quicedge.http.h2_types import H2Settings
from quicedge.http.plain_http import answer_plain_http
from quicedge.proxy.accounting import plain_record
from quicedge.proxy.alt_svc import AltSvcBoard
from quicedge.proxy.gateway import Gateway
from quicedge.quic.tls import CertificateStore
from quicedge.shares.connections import AdmissionReason, Connections
from quicedge.shares.prefixes import Networks
from quicedge.tcp.arrivals import Arrivals
from quicedge.tcp.connection import TcpConnection
from quicedge.tcp.listener import Listener
from quicedge.tcp.openssl import SharedTickets
from quicedge.tcp.plain import PlainArrivals
from quicedge.tcp.tls import ServerContexts, Validations
from quicedge.tcp.transport import HandshakeFailure
from quicedge.telemetry.protocols import TransportKind

TcpSession: TypeAlias = Http1Session | Http2Session

HTTP_1_1, HTTP_2 = "http/1.1", "h2"
"""ALPN names."""

TCP_REFUSALS = frozenset(AdmissionReason) - {AdmissionReason.HALF_OPEN, AdmissionReason.FLOOD}
"""Why a connection on TCP may not be let in."""

Contexts: TypeAlias = Mapping[int, ServerContexts]
"""TLS contexts by index in `listen`; none for those without a protocol on TCP."""


class TcpSocket(NamedTuple):
    """A listening socket, and its index in `listen` or, for plain HTTP, in `redirecting`."""

    sock: socket.socket
    entry: int


def build_contexts(
    config: Config,
    store: CertificateStore,
    keylog: str | None,
    running: Contexts,
    tickets: SharedTickets | None,
    validations: Validations | None,
    client_auth: ClientAuth | None,
) -> Contexts:
    """The TLS contexts of all listeners; raises TlsError.

    Contexts of `running` that are still right are kept.
    """
    by_alpn: dict[tuple[str, ...], ServerContexts] = {}
    found = {}
    for entry, listening in enumerate(listeners(config)):
        alpn = listening.tcp_protocols
        if not alpn:
            continue
        if alpn not in by_alpn:
            by_alpn[alpn] = ServerContexts(
                store,
                alpn,
                keylog,
                running.get(entry),
                tickets=tickets,
                validations=validations,
                groups=config.tls.groups,
                policy=config.tls.policy,
                client_auth=client_auth,
            )
        found[entry] = by_alpn[alpn]
    return found


class TcpFront:
    """All TCP connections of one worker.

    Implements `Host` of `downstream.http1` and `downstream.http2`. Call `check` about once per
    second; at the end `stop`, then `close`.
    """

    def __init__(
        self,
        config: Config,
        sockets: Sequence[TcpSocket],
        contexts: Contexts,
        redirects: Sequence[TcpSocket] = (),
        *,
        gateway: Gateway,
        alt_svc: AltSvcBoard,
        connections: Connections,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        validations: Validations,
        journal: Journal,
        on_ended: Callable[[TcpSession, TcpConnection], None],
    ) -> None:
        """`on_ended` is called after the end of each session. `validations`: those of
        `contexts`."""
        self.loop = loop
        self.sessions: dict[TcpSession, TcpConnection] = {}
        self._activate(contexts)
        self._validations = validations
        self._gateway = gateway
        self._alt_svc = alt_svc
        self._journal = journal
        self._configure(config)
        self._on_ended = on_ended
        self._draining = False
        self.arrivals = Arrivals(
            connections,
            self._make_session,
            plain=answer_plain_http,
            handshake_timeout=config.limits.handshake_timeout,
            loop=loop,
            clock=clock,
        )
        self.arrivals.on_refused = self._client_refused
        ports = [item.sock.getsockname()[1] for item in sockets]
        self.redirects = RedirectSite(
            self._plain_heads(),
            HTTPS_PORT if HTTPS_PORT in ports or not ports else ports[0],
            header_timeout=config.limits.header_timeout,
            date=gateway.date,
            clock=clock,
            loop=loop,
            on_answered=self._log_answered,
        )
        self._plain_arrivals = PlainArrivals(
            connections,
            lambda client, lost: RedirectSession(self.redirects, client, lost),
            header_timeout=config.limits.handshake_timeout,
            loop=loop,
            clock=clock,
        )
        self._plain = [
            (item.entry, Listener(item.sock, None, loop, self._plain_arrivals.accept, clock))
            for item in redirects
        ]
        self._listeners = [
            (
                item.entry,
                Listener(item.sock, contexts[item.entry], loop, self.arrivals.accept, clock),
            )
            for item in sockets
        ]
        self._trust_proxies(config)

    def _activate(self, contexts: Contexts) -> None:
        self.contexts = contexts
        for item in contexts.values():
            item.activate()

    def adopt(self, config: Config, contexts: Contexts) -> None:
        """Apply a configuration to new connections."""
        self._activate(contexts)
        timeout = config.limits.handshake_timeout
        self.arrivals.handshake_timeout = self._plain_arrivals.header_timeout = timeout
        self._configure(config)
        self._trust_proxies(config)
        self.redirects.configure(self._plain_heads(), config.limits.header_timeout)
        for entry, listener in self._listeners:
            listener.contexts = contexts[entry]
        self.arrivals.retry()

    def use_challenges(self, challenges: Challenges) -> None:
        """Answer these to issuers of certificates, and no others."""
        self._validations.replace({item.name: item for item in challenges.tls})
        by_path = {
            CHALLENGE_PATH + token.encode(): content.encode()
            for token, content in challenges.http.items()
        }
        self.redirects.challenge = by_path.get

    def _trust_proxies(self, config: Config) -> None:
        for ours, entries in (
            (self._listeners, [item.proxy_protocol for item in listeners(config)]),
            (self._plain, [item.proxy_protocol for item in redirecting(config)]),
        ):
            for entry, listener in ours:
                proxies = entries[entry]
                listener.proxies = None if proxies is None else Networks(proxies)

    def _plain_heads(self) -> HeadReader:
        return HeadReader(self._gateway.message_limits, b"http")

    def _log_answered(self, answered: Answered) -> None:
        """Log a request on port 80."""
        if self._gateway.access_log is not None:
            record = plain_record(
                str(answered.client), answered.request, answered.status, answered.reason,
                answered.bytes_sent,
            )  # fmt: skip
            self._gateway.access_log.log(record)

    def _configure(self, config: Config) -> None:
        self.heads = HeadReader(self._gateway.message_limits)
        self.h2_settings = H2Settings(
            max_streams=config.quic.max_streams,
            stream_window=config.quic.max_stream_data,
            connection_window=config.quic.max_data,
            max_field_section_size=config.http3.max_field_section_size,
            max_fields=config.http3.max_fields,
            extended_connect=True,
        )

    def _make_session(self, connection: TcpConnection) -> TcpSession | None:
        alt_svc = self._alt_svc.of_tcp(connection.listener)
        session: TcpSession
        if connection.alpn == HTTP_2:
            client = TcpClient(connection, b"2", alt_svc)
            session = Http2Session(connection, client, self._gateway, self)
        elif connection.alpn is not None or HTTP_1_1 in connection.transport.alpn_offered:
            client = TcpClient(connection, b"1.1", alt_svc)
            authority = connection.server_name or connection.local.url_host
            session = Http1Session(connection, client, self._gateway, self, authority.encode())
        else:
            return None
        self.sessions[session] = connection
        found = self._gateway.metrics.tls[TransportKind.TCP]
        found.handshake(connection.group, None, retried=connection.hello_retried)
        if connection.identity is not None:
            has_certificate = connection.identity.certificate is not None
            self._journal.passed(TransportKind.TCP, has_certificate=has_certificate)
        if self._draining:
            session.announce_drain()
            self.loop.call_later(DRAIN_NOTICE, self._drain_late, session)
        return session

    def _client_refused(
        self, refused: RefusedError, remote: HostPort, server_name: str | None
    ) -> None:
        self._journal.refused(
            TransportKind.TCP, refused, client=str(remote), server_name=server_name
        )

    def _drain_late(self, session: TcpSession) -> None:
        """A client that came as the drain began had its time for a request."""
        if session in self.sessions:
            session.drain()

    def session_ended(self, session: TcpSession) -> None:
        """The session's connection has ended."""
        connection = self.sessions.pop(session, None)
        if connection is not None:
            self._on_ended(session, connection)

    @property
    def refused(self) -> dict[str, int]:
        """Connections that were not let in, those of port 80 included, by reason."""
        counters = self.arrivals.counters + self._plain_arrivals.counters
        return {str(reason): counters[f"refused_{reason}"] for reason in TCP_REFUSALS}

    @property
    def failed(self) -> dict[str, int]:
        """Connections that ended before a session began, by reason."""
        counters = self.arrivals.counters + self._plain_arrivals.counters
        return {one.value: counters[f"failed_{one.value}"] for one in HandshakeFailure}

    def check(self, now: float) -> None:
        """Cut off slow handshakes."""
        self.arrivals.check(now)
        self.redirects.check(now)
        self._plain_arrivals.check(now)

    @property
    def is_idle(self) -> bool:
        """Whether there is neither a session nor a handshake."""
        return not self.sessions and not self.arrivals.handshakes

    def _all_listeners(self) -> Iterator[Listener]:
        yield from (listener for _, listener in self._listeners)
        yield from (listener for _, listener in self._plain)

    def stop(self) -> None:
        """Refuse new clients from now on; those that the kernel has accepted are still served."""
        self._draining = True
        for listener in self._all_listeners():
            listener.stop()
        self.redirects.drain()

    def leave(self) -> None:
        """Leave the listening sockets, and all that waits in them, to the successor."""
        self._draining = True
        for listener in self._all_listeners():
            listener.close()
        self.redirects.drain()

    def close(self) -> None:
        """Stop reading the listening sockets, and end handshakes in progress."""
        for listener in self._all_listeners():
            listener.close()
        self.arrivals.close()
