"""Connections from accept to the end of the handshake: limits first, then TLS, then a session."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import structlog

from quicedge.client_auth.verdict import RefusedError
from quicedge.config.acmelimits import ON_DEMAND_HELD
from quicedge.config.host_port import HostPort
from quicedge.config.limits import HANDSHAKE_GRACE, REFUSAL_LOG_INTERVAL
from quicedge.shares import Client
from quicedge.shares.connections import AdmissionReason, Connections
from quicedge.shares.prefixes import packed, prefix_of
from quicedge.tcp.attaching import attach
from quicedge.tcp.connection import TcpConnection
from quicedge.tcp.listener import Listener
from quicedge.tcp.plain import proxy_refusal, refusal
from quicedge.tcp.proxy_protocol import ProxyHeader
from quicedge.tcp.sockets import reset
from quicedge.tcp.tls import ACME_TLS
from quicedge.tcp.transport import HandshakeFailure, Session, TlsTransport
from quicedge.telemetry.bounded_log import BoundedLog

log = structlog.get_logger("quicedge.tcp")

MakeSession = Callable[[TcpConnection], Session | None]
"""Makes the session of an established connection; None: there is no protocol in common."""

OnRefused = Callable[[RefusedError, HostPort, str | None], None]
"""Told why a client's certificate was not accepted, with its address and the name it asked for."""

AnswerPlain = Callable[[bytes], bytes | None]
"""What to answer to a client that begins with these bytes instead of TLS; None: nothing."""


class _Arrival(NamedTuple):
    """A connection that is counted, and until its handshake is complete may give way to others."""

    remote: HostPort
    local: HostPort | None
    """The address that it connected to, as a proxy says."""
    listener: Listener
    share: Client
    at: float


_UNKNOWN = Client(b"", b"")
"""What connections are counted as until their PROXY header says who the client is."""


class Arrivals:
    """Everything that happens to TCP connections of one worker before they have a session.

    Implements `transport.Owner`. Connections are counted in `connections`, together with those of
    QUIC, from accept until they are gone. Call `check` about once per second.
    """

    def __init__(
        self,
        connections: Connections,
        make_session: MakeSession,
        *,
        plain: AnswerPlain,
        handshake_timeout: float,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
    ) -> None:
        self.handshake_timeout = handshake_timeout
        self.counters: Counter[str] = Counter()
        """`accepted`, `completed`, `validations`, `failed_*`, `refused_*`."""
        self.plain = plain
        self.on_refused: OnRefused = lambda refused, remote, name: None
        self.may_come: Callable[[str], bool] = lambda name: False
        """Whether there may soon be a certificate for a name that has none."""
        self._waiting: dict[TlsTransport, str] = {}
        """The names whose certificates are waited for."""
        self._connections = connections
        self._make_session = make_session
        self._loop = loop
        self._clock = clock
        self._all: dict[TlsTransport, _Arrival] = {}
        """Every connection until it is gone."""
        self._open: dict[TlsTransport, float] = {}
        """Since when handshakes are in progress; oldest first."""
        self._by_prefix: dict[bytes, dict[TlsTransport, None]] = {}
        """Handshakes in progress by network; oldest first."""
        self._refusals: BoundedLog[AdmissionReason] = BoundedLog(_log_refused, REFUSAL_LOG_INTERVAL)

    @property
    def handshakes(self) -> int:
        """Handshakes in progress."""
        return len(self._open)

    @property
    def accepted(self) -> int:
        """Connections that were let in."""
        return self.counters["accepted"]

    @property
    def completed(self) -> int:
        """Handshakes that were completed."""
        return self.counters["completed"]

    @property
    def failures(self) -> int:
        """Connections that ended before they were established."""
        return sum(n for name, n in self.counters.items() if name.startswith("failed_"))

    def accept(self, sock: socket.socket, sockaddr: tuple[Any, ...], listener: Listener) -> None:
        """Take an accepted connection (`listener.Accepted`)."""
        remote = HostPort.of(sockaddr)
        address = packed(remote.host)
        now = self._clock()
        proxies = listener.proxies
        if proxies is None:
            reason = self._refuses(address, now)
            share = Client(address, prefix_of(address))
        else:
            reason = proxy_refusal(self._connections, address, proxies)
            share = _UNKNOWN
        if reason is not None:
            self._count_refusal(reason, now)
            reset(sock)
            return
        assert listener.contexts is not None, "a listener without TLS has PlainArrivals"
        self.counters["accepted"] += 1
        transport = TlsTransport(
            self, listener.contexts, self._loop, sock, proxied=proxies is not None
        )
        self._open[transport] = now
        self._begin(transport, _Arrival(remote, None, listener, share, now))
        attach(self._loop, transport, sock, transport.connection_lost)

    def _begin(self, transport: TlsTransport, arrival: _Arrival) -> None:
        """Count a connection under its client's address."""
        share = arrival.share
        self._all[transport] = arrival
        self._by_prefix.setdefault(share.prefix, {})[transport] = None
        self._connections.note_opened(share.address)

    def _count_refusal(self, reason: AdmissionReason, now: float) -> None:
        self.counters[f"refused_{reason}"] += 1
        self._refusals.note(reason, now)

    def _refuses(self, address: bytes, now: float) -> AdmissionReason | None:
        """Why a client is not let in; None if it is."""
        connections = self._connections
        reason = refusal(connections, address)
        if reason is not None:
            return reason
        if connections.handshakes_crowded(address) and not self._make_room(address, now):
            return AdmissionReason.PREFIX_HALF_OPEN
        return connections.too_fast(address, now)

    def _make_room(self, address: bytes, now: float) -> bool:
        """End the oldest handshake of a network with too many, unless it had no time yet.

        Honest clients need a round trip or two; who opens connections and stays silent gives way
        to them.
        """
        oldest = next(iter(self._by_prefix.get(prefix_of(address), ())), None)
        if oldest is None or now - self._open[oldest] < HANDSHAKE_GRACE:
            return False
        oldest.refuse(HandshakeFailure.CROWDED_OUT)
        return True

    def check(self, now: float) -> None:
        """Cut off slow handshakes."""
        late = now - self.handshake_timeout
        for transport, since in list(self._open.items()):
            if since > late:
                return
            waits = transport in self._waiting
            transport.refuse(HandshakeFailure.UNKNOWN_NAME if waits else HandshakeFailure.TIMEOUT)

    def close(self) -> None:
        """End the handshakes in progress."""
        for transport in list(self._open):
            transport.refuse(HandshakeFailure.GONE)

    # --- transport.Owner --------------------------------------------------------------------------

    def proxied(self, transport: TlsTransport, header: ProxyHeader) -> bool:
        before = self._all[transport]
        remote = header.source or before.remote
        address = packed(remote.host)
        now = self._clock()
        reason = self._refuses(address, now)
        if reason is not None:
            self._count_refusal(reason, now)
            transport.abort()
            return False
        self._forget_prefix(transport, before)
        self._connections.note_handshake_over(before.share.address)
        self._connections.note_closed(before.share.address)
        share = Client(address, prefix_of(address))
        self._begin(
            transport, before._replace(remote=remote, local=header.destination, share=share)
        )
        return True

    def waits(self, transport: TlsTransport, name: str) -> bool:
        if len(self._waiting) >= ON_DEMAND_HELD or not self.may_come(name):
            return False
        self._waiting[transport] = name.lower().rstrip(".")
        return True

    def retry(self) -> None:
        """Certificates have changed: go on with the clients that wait for one."""
        waiting, self._waiting = self._waiting, {}
        for transport in waiting:
            contexts = self._all[transport].listener.contexts
            assert contexts is not None
            transport.retry(contexts)

    def give_up(self, names: Collection[str]) -> None:
        """There will be no certificates for these names."""
        for transport in [one for one, name in self._waiting.items() if name in names]:
            transport.refuse(HandshakeFailure.UNKNOWN_NAME)

    def established(self, transport: TlsTransport) -> None:
        arrival = self._all[transport]
        self._handshake_over(transport, arrival)
        self.counters["completed"] += 1
        connection = TcpConnection(
            transport,
            remote=arrival.remote,
            local=arrival.local,
            listener=arrival.listener.name,
            share=arrival.share,
            created_at=arrival.at,
            clock=self._clock,
        )
        if connection.alpn == ACME_TLS:
            self.counters["validations"] += 1
            transport.dismiss()
            return
        session = self._make_session(connection)
        if session is None:
            self.counters[f"failed_{HandshakeFailure.NO_PROTOCOL.value}"] += 1
            transport.abort()
            return
        transport.start(session)
        session.start()

    def failed(self, transport: TlsTransport, failure: HandshakeFailure) -> None:
        if transport in self._open:
            self.counters[f"failed_{failure.value}"] += 1
            arrival = self._all[transport]
            self._handshake_over(transport, arrival)
            if transport.refused is not None:
                self.on_refused(transport.refused, arrival.remote, transport.tls.server_name)

    def lost(self, transport: TlsTransport) -> None:
        if transport in self._open:  # aborted, and counted by reason
            self._handshake_over(transport, self._all[transport])
        arrival = self._all.pop(transport)
        self._connections.note_closed(arrival.share.address)

    def _handshake_over(self, transport: TlsTransport, arrival: _Arrival) -> None:
        del self._open[transport]
        self._waiting.pop(transport, None)
        self._forget_prefix(transport, arrival)
        self._connections.note_handshake_over(arrival.share.address)

    def _forget_prefix(self, transport: TlsTransport, arrival: _Arrival) -> None:
        prefix = arrival.share.prefix
        of_prefix = self._by_prefix[prefix]
        del of_prefix[transport]
        if not of_prefix:
            del self._by_prefix[prefix]


def _log_refused(reason: AdmissionReason, count: int) -> None:
    log.warning("TCP clients refused", reason=reason, count=count)
