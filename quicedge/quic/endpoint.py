"""A sans-IO QUIC server endpoint: datagrams and time in, datagrams out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import encode_quic_retry, encode_quic_version_negotiation

from quicedge.client_auth.rules import ClientAuth
from quicedge.config import limits
from quicedge.config.schema import Quic
from quicedge.quic.admission import Admission, Decision, Verdict
from quicedge.quic.anti_replay import EarlyDataGuard
from quicedge.quic.connection import Connection, ConnectionHandler
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.errors import ErrorCode
from quicedge.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    OverheadExhausted,
    QuicEvent,
)
from quicedge.quic.frame_turns import FrameTurns, WaitingRun
from quicedge.quic.frames import FrameType
from quicedge.quic.key_exchange import DEFAULT_GROUPS, Group
from quicedge.quic.packet import (
    LONG_HEADER,
    LongHeader,
    initial_close,
    parse_long_header,
    parse_long_packet,
)
from quicedge.quic.stateless_reset import stateless_reset
from quicedge.quic.tickets import Tickets
from quicedge.quic.timers import Deadlines
from quicedge.quic.tls import CertificateStore
from quicedge.quic.token_sealer import FleetKeys
from quicedge.quic.tokens import TokenKeys, is_retry_token
from quicedge.quic.transport_parameters import PreferredAddress
from quicedge.shares import Standing
from quicedge.shares.connections import AdmissionReason
from quicedge.shares.rates import RateLimit
from quicedge.telemetry.bounded_log import BoundedLog

log = structlog.get_logger("quicedge.quic")


class Network(Protocol):
    """Sends datagrams on a path; datagrams that the kernel rejects may be lost."""

    def send(self, datagrams: list[bytes], path: Any, ecn: int = 0) -> None: ...

    def send_segments(self, data: bytes, segment: int, path: Any, ecn: int = 0) -> None:
        """Datagrams of `segment` bytes each, the last may be shorter, end to end."""


class Roster(Protocol):
    """Records client addresses, so that clients can be sent resets if this process dies."""

    def put(self, connection: Connection) -> None:
        """A connection is alive; its path and connection ID may have changed."""

    def remove(self, connection: Connection) -> None:
        """The connection ended; no effect if it is not recorded."""


Accept = Callable[[Connection], ConnectionHandler]
"""Called once for each new connection; returns what handles its events."""

Forward = Callable[[bytes, Any, int], bool]
"""Forwards a datagram of an unknown connection; returns whether another worker owns it."""


@dataclass(slots=True)
class EndpointSettings:
    """Settings of new connections."""

    configuration: QuicConfiguration
    quic: Quic
    groups: Sequence[Group] = DEFAULT_GROUPS
    """Key exchange groups, most preferred first."""
    client_auth: ClientAuth | None = None
    """The hosts that ask clients for certificates; None: none does."""
    early_data_terms: bytes | None = None
    """Digest of all limits that apply to 0-RTT data; None rejects 0-RTT."""
    preferred_address: Callable[[Any], PreferredAddress | None] | None = None
    """The preferred address for clients that connect on a path."""


_FIXED_BIT = 0x40

_FLOOD = Verdict(Decision.REFUSE, AdmissionReason.FLOOD)
_OUTCOMES = {
    Decision.RETRY: "clients sent a Retry",
    Decision.DROP: "clients dropped",
    Decision.REFUSE: "clients refused",
}


def _log_refused(verdict: Verdict, count: int) -> None:
    log.warning(_OUTCOMES[verdict.decision], reason=verdict.reason, count=count)


class _NullHandler:
    """Handler of terminated connections."""

    def handle_event(self, event: QuicEvent) -> None:
        pass

    def after_transmit(self) -> None:
        pass


_NULL_HANDLER = _NullHandler()


class Endpoint:
    """All connections of one worker.

    Per wake-up call `receive_run` for all datagrams, `handle_timers` if due, then `flush` once if
    there is work (`has_work`), and `next_timer` for the next deadline. `wake` marks a connection
    that the application wrote to, for the next `flush`. Invariants: an exception in one connection
    ends that connection only; every connection ID in the routing table belongs to a connection in
    `connections`.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        admission: Admission,
        certificates: CertificateStore,
        connection_ids: ConnectionIdIssuer,
        secret: bytes,
        network: Network,
        accept: Accept,
        forward: Forward | None = None,
        roster: Roster | None = None,
    ) -> None:
        self.settings = settings
        self.admission = admission
        self._refusals = BoundedLog(_log_refused, limits.REFUSAL_LOG_INTERVAL)
        self.certificates = certificates
        self.counters: Counter[str] = Counter()
        self.connections: set[Connection] = set()
        self.half_open: set[Connection] = set()
        self._by_cid: dict[bytes, Connection] = {}
        self._cids: dict[Connection, list[bytes]] = {}
        self._connection_ids = connection_ids
        self._cid_end = 1 + connection_ids.length
        """Where the destination connection ID of a short header ends."""
        self._secret = secret
        self.use_keys(None)
        self.early_data_guard = EarlyDataGuard()
        self._network = network
        self._accept = accept
        self._forward = forward
        self._roster = roster
        self._turns = FrameTurns()
        self.waiting = self._turns.waiting
        """Datagrams that wait for `receive_waiting`, by client; to be read only."""
        self._renewing: list[Connection] = []
        """Connections whose IDs are to be replaced."""
        self._awake: dict[Connection, None] = {}
        self._is_flushing = False
        self._delivering: Connection | None = None
        """The connection that events are delivered for, and that is sent right after."""
        self._deadlines = Deadlines()
        self.next_timer = self._deadlines.next
        """When `handle_timers` must run; infinite: there is nothing to wait for."""
        self._resets = RateLimit(limits.STATELESS_RESETS_PER_SECOND)
        self._closes = RateLimit(limits.REFUSALS_PER_SECOND)
        self._negotiations = RateLimit(limits.VERSION_NEGOTIATIONS_PER_SECOND)

    def use_keys(self, fleet: FleetKeys | None) -> None:
        """Seal tickets and tokens under the keys of a fleet; None: of this host."""
        self._tokens = TokenKeys(self._secret, fleet)
        self._tickets = Tickets(self._secret, fleet)

    # --- input ----------------------------------------------------------------------------------

    def receive_run(self, datagrams: list[bytes], path: Any, now: float, ecn: int = 0) -> None:
        """Process datagrams received together on one path; never raises for peer input.

        Datagrams of a client that has used its share of this turn wait (`receive_waiting`).
        """
        client = path.remote[0]
        turns = self._turns
        # At first everybody may.
        if (turns.spent or turns.waiting) and not turns.may_work(client):
            self._wait(client, WaitingRun(datagrams, path, ecn))
            return
        count = len(datagrams)
        if count == 1:
            turns.worked(client, *self._receive_some(datagrams, path, now, ecn))
            return
        most = turns.run_length(client)
        at = 0
        while at < count:
            handled, frames = self._receive_some(datagrams[at : at + most], path, now, ecn)
            at += handled
            if not turns.worked(client, handled, frames) and at < count:
                self._wait(client, WaitingRun(datagrams[at:], path, ecn))
                return
            most = turns.run_length(client)

    def receive_waiting(self, now: float) -> None:
        """Start a turn and process waiting datagrams."""
        self._turns.begin()
        for client, runs in self._turns.take():
            while runs and self._turns.may_work(client):
                run = runs.popleft()
                self.receive_run(run.datagrams, run.path, now, run.ecn)
            for run in runs:
                self._wait(client, run)

    def _wait(self, client: str, run: WaitingRun) -> None:
        if not self._turns.wait(client, run):
            self.counters["dropped_busy"] += len(run.datagrams)

    def _receive_some(
        self, datagrams: list[bytes], path: Any, now: float, ecn: int
    ) -> tuple[int, int]:
        """Process a prefix of the datagrams; returns the numbers of datagrams and frames
        processed."""
        data = datagrams[0]
        connection = None
        if data and not data[0] & LONG_HEADER:
            connection = self._by_cid.get(data[1 : self._cid_end])
        if connection is None:
            return 1, self._receive_one(data, path, now, ecn)
        before = connection.counters.frames_received
        try:
            handled = connection.receive_run(datagrams, 0, path, now, ecn)
            # Half of a fast download's ACKs make no room for a run that is worth sending.
            is_held = connection.recovery.is_held
            until = self._deadlines.of(connection) if is_held else None
            if until is None or not connection.stays_held(until):
                self._awake[connection] = None
        except Exception:
            self._fail(connection, "datagram", now)
            handled = 1
        return handled, connection.counters.frames_received - before

    def receive(self, data: bytes, path: Any, now: float, ecn: int = 0) -> None:
        """Process one datagram with its ECN codepoint; never raises for peer input."""
        self.receive_run([data], path, now, ecn)

    def _receive_one(self, data: bytes, path: Any, now: float, ecn: int) -> int:
        """Process a datagram that is not part of a run; returns its number of frames."""
        if not data:
            self.counters["dropped_empty"] += 1
            return 0
        header: LongHeader | None = None
        if data[0] & LONG_HEADER:
            header = parse_long_header(data)
            if header is None:
                self.counters["dropped_header"] += 1
                return 0
            connection = self._by_cid.get(header.destination_cid)
        else:
            connection = self._by_cid.get(data[1 : self._cid_end])
        if connection is None:
            if self._forward is not None and self._forward(data, path, ecn):
                return 0
            if header is None:
                self._reset_unknown(data, path, now)
                return 0
            connection = self._first_packet(data, header, path, now)
            if connection is None:
                return 0
        before = connection.counters.frames_received
        try:
            connection.receive_datagram(data, path, now, ecn)
        except Exception:
            self._fail(connection, "datagram", now)
            return 0
        if connection.counters.packets_received:
            self._awake[connection] = None
        else:
            # No packet in it was authentic, so there is no client.
            self.counters["dropped_undecryptable"] += 1
            self._end(connection, ErrorCode.NO_ERROR, "no authentic packet")
        return connection.counters.frames_received - before

    def wake(self, connection: Connection) -> bool:
        """The application has written to, reset or closed something on the connection.

        Returns whether `flush` must be called for it: one that is running sends it by itself.
        """
        if connection is not self._delivering:
            self._awake[connection] = None
        return not self._is_flushing

    def renew_connection_ids(self) -> None:
        """Replace all connection IDs, a few connections per call of `renew_some`."""
        self._renewing = list(self.connections)

    def renew_some(self) -> None:
        """Go on replacing connection IDs; call `flush` afterwards."""
        some = self._renewing[-limits.RENEWALS_PER_TICK :]
        del self._renewing[-limits.RENEWALS_PER_TICK :]
        for connection in some:
            if connection in self.connections:
                connection.renew_connection_ids()
                self._awake[connection] = None

    @property
    def is_renewing(self) -> bool:
        return bool(self._renewing)

    def handle_timers(self, now: float) -> bool:
        """Run what is due; returns whether `flush` must be called."""
        for connection in self._deadlines.due(now):
            timer = connection.poll_timeout()
            if timer is None or timer > now:
                # What it was armed for has been done, or has moved.
                self._deadlines.arm(connection, timer)
                continue
            self._awake[connection] = None
            try:
                connection.handle_timeout(now)
            except Exception:
                self._fail(connection, "timer", now)
        return bool(self._awake)

    # --- output ---------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """Whether there are connections to `flush`, or datagrams that wait for
        `receive_waiting`, which follows it."""
        return bool(self._awake or self.waiting)

    def flush(self, now: float) -> None:
        """Deliver events, transmit, arm timers."""
        if self._turns.spent:
            self._turns.begin()
        self._is_flushing = True
        try:
            while self._awake:
                awake, self._awake = self._awake, {}
                for connection in awake:
                    try:
                        self._pump(connection, now)
                    except Exception:
                        self._fail(connection, "application", now)
        finally:
            self._is_flushing = False
            self._delivering = None

    def _pump(self, connection: Connection, now: float) -> None:
        event = connection.events.pop()
        if event is not None:
            self._delivering = connection
            self._deliver(connection, event)
            self._delivering = None
        if self.half_open and connection.handshake_complete:
            self._handshake_over(connection)
        if self._transmit(connection, now) and (event := connection.events.pop()) is not None:
            # Sending issues connection IDs; they must be known before the peer uses them.
            self._deliver(connection, event)
        connection.handler.after_transmit()
        is_alive = connection.is_alive
        if is_alive and connection.counters.bytes_received >= connection.flood.check_at:
            self._check_flood(connection, now)
            is_alive = connection.is_alive
        if not is_alive and connection.is_terminated:
            self._forget(connection)
            return
        self._deadlines.arm(connection, connection.poll_timeout())
        roster = self._roster
        if roster is not None and connection.handshake_complete:
            if is_alive:
                roster.put(connection)
            else:
                roster.remove(connection)

    def _check_flood(self, connection: Connection, now: float) -> None:
        standing = connection.check_flood(now)
        if standing is Standing.EXHAUSTED:
            connection.handler.handle_event(OverheadExhausted())
        elif standing is Standing.HOSTILE:
            self.counters["floods_closed"] += 1
            self._refusals.note(_FLOOD, now)
        self._transmit(connection, now)

    def _transmit(self, connection: Connection, now: float) -> bool:
        """Send pending datagrams of the connection; returns whether there were any."""
        runs = connection.poll_transmit(now)
        if not runs:
            return False
        singles: list[bytes] = []
        path: Any = None
        ecn = 0
        for run in runs:
            single = len(run.data) <= run.segment
            if singles and (not single or run.path is not path or run.ecn != ecn):
                self._network.send(singles, path, ecn)
                singles = []
            if single:
                singles.append(run.data)
                path, ecn = run.path, run.ecn
            else:
                self._network.send_segments(run.data, run.segment, run.path, run.ecn)
        if singles:
            self._network.send(singles, path, ecn)
        return True

    def _deliver(self, connection: Connection, event: QuicEvent | None) -> None:
        """Deliver an event and those that follow it."""
        events = connection.events
        while event is not None:
            if isinstance(event, ConnectionIdIssued):
                self._learn(connection, event.connection_id)
            elif isinstance(event, ConnectionIdRetired):
                self._by_cid.pop(event.connection_id, None)
                self._cids[connection].remove(event.connection_id)
            else:
                connection.handler.handle_event(event)
            event = events.pop()

    # --- new connections ------------------------------------------------------------------------

    def _first_packet(
        self, data: bytes, header: LongHeader, path: Any, now: float
    ) -> Connection | None:
        """Process a long header packet of an unknown connection."""
        # RFC 9000 section 5.2.2: servers MUST drop smaller packets that specify unsupported
        # versions, and section 14.1 says the same of Initial packets.
        if len(data) < limits.MIN_INITIAL_DATAGRAM:
            self.counters["dropped_short"] += 1
            return None
        if header.version not in self.settings.configuration.supported_versions:
            self._negotiate_version(header, path, now)
            return None
        if not header.is_initial:
            self.counters["dropped_unknown_connection"] += 1
            return None
        # RFC 9000 section 7.2: this Destination Connection ID MUST be at least 8 bytes in length.
        if len(header.destination_cid) < limits.MIN_INITIAL_DCID:
            self.counters["dropped_dcid_length"] += 1
            return None
        packet = parse_long_packet(data, 0)
        if packet is None:
            self.counters["dropped_header"] += 1
            return None
        token = packet.token

        retried = None
        validated = False
        from_retry = is_retry_token(token)
        if from_retry:
            retried = self._tokens.open_retry(token, path.remote[:2], header.destination_cid, now)
            validated = retried is not None
        elif token:
            # RFC 9000 section 8.1.3: an invalid token is ignored.
            validated = self._tokens.open_new(token, path.remote[0], header.version, now)
            self.counters["new_tokens_accepted" if validated else "new_tokens_ignored"] += 1
        verdict = self.admission.decide(path.remote[0], address_validated=validated, now=now)
        decision, reason = verdict
        if reason is not None:
            self._refusals.note(verdict, now)
        if decision in (Decision.DROP, Decision.REFUSE):
            self.counters[f"dropped_{reason}"] += 1
            if decision is Decision.REFUSE:
                self._refuse(header, ErrorCode.CONNECTION_REFUSED, path, now)
            return None
        if decision is Decision.RETRY:
            if from_retry:
                # RFC 9000 section 8.1.2: a client ignores a second Retry.
                self.counters["refused_token"] += 1
                self._refuse(header, ErrorCode.INVALID_TOKEN, path, now)
            else:
                self._send_retry(header, path, now)
            return None
        original_cid = retried.original_destination_cid if retried else None
        return self._open(header, path, now, original_cid, validated)

    def _open(
        self,
        header: LongHeader,
        path: Any,
        now: float,
        original_cid: bytes | None,
        address_validated: bool,
    ) -> Connection:
        settings = self.settings
        guard, terms = self.early_data_guard, settings.early_data_terms
        # The IPv6 header is 20 bytes longer than that of IPv4.
        mtu_ceiling = settings.quic.max_datagram_size - (20 if ":" in path.remote[0] else 0)
        connection = Connection(
            configuration=settings.configuration,
            now=now,
            handshake_timeout=settings.quic.handshake_timeout,
            certificates=self.certificates,
            groups=settings.groups,
            client_auth=settings.client_auth,
            tickets=self._tickets,
            address_validated=address_validated,
            make_token=self._make_token,
            early_data=(guard, guard.stamp(terms)) if terms is not None else None,
            connection_ids=self._connection_ids,
            max_streams_bidi=settings.quic.max_streams,
            mtu_ceiling=mtu_ceiling,
            preferred_address=settings.preferred_address(path)
            if settings.preferred_address is not None
            else None,
            original_destination_connection_id=original_cid or header.destination_cid,
            retry_source_connection_id=header.destination_cid if original_cid else None,
        )
        connection.came_from = path
        self.connections.add(connection)
        self.half_open.add(connection)
        self.admission.note_opened(path.remote[0], address_validated=address_validated)
        self._cids[connection] = []
        # Until the client receives our first packet, it uses the ID that it chose.
        self._learn(connection, header.destination_cid)
        for cid in connection.local_ids.active:
            self._learn(connection, cid)
        self.counters["accepted"] += 1
        connection.handler = self._accept(connection)
        return connection

    def _learn(self, connection: Connection, cid: bytes) -> None:
        self._by_cid[cid] = connection
        self._cids[connection].append(cid)

    def _negotiate_version(self, header: LongHeader, path: Any, now: float) -> None:
        # RFC 9000 section 6.1: MUST NOT respond to a Version Negotiation packet (version 0) with
        # another one.
        if header.version == 0 or not self._negotiations.allow(now):
            self.counters["dropped_version"] += 1
            return
        self.counters["version_negotiations"] += 1
        answer = encode_quic_version_negotiation(
            source_cid=header.destination_cid,
            destination_cid=header.source_cid,
            supported_versions=self.settings.configuration.supported_versions,
        )
        self._network.send([answer], path)

    def _send_retry(self, header: LongHeader, path: Any, now: float) -> None:
        self.counters["retries"] += 1
        source_cid = self._connection_ids.new()
        token = self._tokens.seal_retry(path.remote[:2], header.destination_cid, source_cid, now)
        answer = encode_quic_retry(
            version=header.version,
            source_cid=source_cid,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )
        self._network.send([answer], path)

    def _refuse(self, header: LongHeader, code: int, path: Any, now: float) -> None:
        """Send CONNECTION_CLOSE for a refused connection, within a rate limit."""
        if self._closes.allow(now):
            self.counters["refusals_sent"] += 1
            self._network.send([initial_close(header, code)], path)

    def _make_token(self, path: Any, version: int, now: float) -> bytes:
        return self._tokens.seal_new(path.remote[0], version, now)

    def _reset_unknown(self, data: bytes, path: Any, now: float) -> None:
        """Send a stateless reset for a short header packet of an unknown connection."""
        if not data[0] & _FIXED_BIT:
            # Not a QUIC packet: MUST be discarded (RFC 9000 section 17.3.1).
            self.counters["dropped_header"] += 1
            return
        token = self._connection_ids.reset_token(data[1 : self._cid_end])
        reset = stateless_reset(len(data), token)
        if reset is None or not self._resets.allow(now):
            self.counters["dropped_unknown_connection"] += 1
            return
        self.counters["stateless_resets"] += 1
        self._network.send([reset], path)

    # --- termination ----------------------------------------------------------------------------

    def _fail(self, connection: Connection, where: str, now: float) -> None:
        """Contain an internal exception to its connection."""
        self.counters["internal_errors"] += 1
        log.exception("connection failed", where=where, connection=connection.id)
        try:
            connection.close(error_code=ErrorCode.INTERNAL_ERROR, frame_type=FrameType.PADDING)
            self._transmit(connection, now)
        except Exception:
            log.exception("closing a failed connection failed", connection=connection.id)
        self._end(connection, ErrorCode.INTERNAL_ERROR, "internal error")

    def _end(self, connection: Connection, code: ErrorCode, reason: str) -> None:
        """Remove a connection without notifying its peer, and notify its handler."""
        connection.close_silently(
            ConnectionTerminated(
                error_code=code, frame_type=FrameType.PADDING, reason_phrase=reason
            )
        )
        handler = connection.handler
        self._forget(connection)
        try:
            while (event := connection.poll_event()) is not None:
                if isinstance(event, ConnectionTerminated):
                    handler.handle_event(event)
        except Exception:
            log.exception("ending a failed connection failed", connection=connection.id)

    def _handshake_over(self, connection: Connection) -> None:
        if connection in self.half_open:
            self.half_open.discard(connection)
            self.admission.note_handshake_over(
                connection.came_from.remote[0], address_validated=connection.token_accepted
            )

    def _forget(self, connection: Connection) -> None:
        self._handshake_over(connection)
        if connection in self.connections:
            self.connections.discard(connection)
            self.admission.note_closed(connection.came_from.remote[0])
        self._awake.pop(connection, None)
        self._deadlines.discard(connection)
        if self._roster is not None:
            self._roster.remove(connection)
        for cid in self._cids.pop(connection, ()):
            if self._by_cid.get(cid) is connection:
                del self._by_cid[cid]
        connection.handler = _NULL_HANDLER  # breaks the reference cycle
