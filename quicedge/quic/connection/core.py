"""A sans-IO QUIC connection, client or server, composed of the parts in this package.

Methods are named by kind. `receive_*` take input from the network, `handle_timeout` from the clock.
After any of them, and after application calls, drain `poll_event`, then call `poll_transmit`, then
`poll_timeout` for the next deadline. Accessors change nothing. Times are in seconds and never
decrease from call to call; addresses are opaque.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from aioquic.quic.configuration import QuicConfiguration

from quicedge.client_auth.rules import ClientAuth
from quicedge.config.limits import (
    ACK_DELAY_EXPONENT,
    CONNECTION_ID_LENGTH,
    EARLY_PACKETS_HELD,
    HANDSHAKE_TIMEOUT,
    MAX_STREAMS_BIDI,
    MAX_STREAMS_UNI,
    MIN_INITIAL_DATAGRAM,
)
from quicedge.qlog.blocked_time import Limit
from quicedge.quic.anti_replay import EarlyDataGuard
from quicedge.quic.blocked_time import LimitClock, main_limit
from quicedge.quic.congestion import make_controller
from quicedge.quic.connection.acks import AckReceiver
from quicedge.quic.connection.closing import State
from quicedge.quic.connection.connection_ids import (
    ConnectionIdSource,
    LocalConnectionIds,
    RemoteConnectionIds,
)
from quicedge.quic.connection.deferred import DeferredPackets
from quicedge.quic.connection.establishment import Establishment, MakeToken
from quicedge.quic.connection.events import EventQueue
from quicedge.quic.connection.first_flight import FirstFlight, NoCommonVersion
from quicedge.quic.connection.flood import FloodGuard
from quicedge.quic.connection.frame_dispatch import FrameDispatch, TokenHandler
from quicedge.quic.connection.handshake import Handshake
from quicedge.quic.connection.idle import IdleTimer
from quicedge.quic.connection.lifecycle import Lifecycle
from quicedge.quic.connection.limiting import note_limits
from quicedge.quic.connection.migration import Migration
from quicedge.quic.connection.observer import Observer
from quicedge.quic.connection.offer import Offer
from quicedge.quic.connection.packer import Packer, Transmit
from quicedge.quic.connection.paths import Path, Paths
from quicedge.quic.connection.receiver import Receiver
from quicedge.quic.connection.recovery import Recovery
from quicedge.quic.connection.signals import ConfirmationSignal, Pings
from quicedge.quic.connection.spaces import NumberSkipper, PacketSpace
from quicedge.quic.connection.stats import ConnectionCounters
from quicedge.quic.connection.streams import Streams
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.ending import Ending
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.events import (
    ConnectionTerminated,
    QuicEvent,
)
from quicedge.quic.frames import (
    ConnectionClose,
    Epoch,
    FrameType,
)
from quicedge.quic.key_exchange import DEFAULT_GROUPS, Group
from quicedge.quic.tickets import Tickets
from quicedge.quic.tls import CertificateStore
from quicedge.quic.tls_client import TicketHandler
from quicedge.quic.transport_parameters import (
    PreferredAddress,
)
from quicedge.shares import Standing
from quicedge.telemetry.trace import Trace

_MIN_PROBE_ROOM = 60
"""Maximum size of an ACK or a probe on an unvalidated path, in bytes."""


class ConnectionHandler(Protocol):
    """The application on a connection, such as an HTTP/3 session."""

    def handle_event(self, event: QuicEvent) -> None:
        """One event, in order. An exception closes this connection alone."""

    def after_transmit(self) -> None:
        """Events were delivered and packets sent: send buffers may have room, or be empty."""


class Connection:
    """One connection.

    A server creates it for a client's first Initial packet and passes that to `receive_datagram`; a
    client calls `connect` first. Once `is_terminated`, the connection ignores all input and sends
    nothing; its last event is ConnectionTerminated.
    """

    __slots__ = (
        "__dict__", "__weakref__", "_acks", "_establishment", "_handshake_deadline",
        "_is_client", "_life", "_migration", "_now", "_observer", "_packer", "_pings", "_random",
        "_receiver", "came_from", "configuration", "counters", "created_at", "deferred", "events",
        "handler", "handshake", "handshake_seconds", "id", "idle", "limits", "local_ids",
        "original_destination_connection_id", "paths", "recovery", "remote_ids", "skipper",
        "spaces", "streams", "token_accepted",
    )  # fmt: skip

    handler: ConnectionHandler

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        now: float,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        certificates: CertificateStore | None = None,
        groups: Sequence[Group] = DEFAULT_GROUPS,
        connection_ids: ConnectionIdSource | None = None,
        max_streams_bidi: int = MAX_STREAMS_BIDI,
        max_streams_uni: int = MAX_STREAMS_UNI,
        mtu_ceiling: int | None = None,
        preferred_address: PreferredAddress | None = None,
        tickets: Tickets | None = None,
        address_validated: bool = False,
        make_token: MakeToken | None = None,
        early_data: tuple[EarlyDataGuard, bytes] | None = None,
        client_auth: ClientAuth | None = None,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
        session_ticket_handler: TicketHandler | None = None,
        token_handler: TokenHandler | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`address_validated`: the first Initial carried a valid token for its source address.
        `make_token` returns the NEW_TOKEN token for a path, a QUIC version and a time.
        `early_data`: the replay guard for 0-RTT data and its stamp in tickets; None rejects 0-RTT.
        """
        self.came_from: Any = None
        """Network path of the first datagram; its address is not validated."""
        self.configuration = configuration
        self._is_client = configuration.is_client
        self._random = random
        self.token_accepted = address_validated
        """Whether the first Initial carried a valid token for its source address."""
        self._now = now

        first_cid = original_destination_connection_id or random(CONNECTION_ID_LENGTH)
        self.original_destination_connection_id = first_cid
        self.id = first_cid.hex()
        self.created_at = now
        self.handshake_seconds: float | None = None
        """From the first packet to a complete handshake; None until then."""
        self._handshake_deadline = now + handshake_timeout
        self._life = Lifecycle()
        self.events = EventQueue()
        self.counters = ConnectionCounters()
        self.flood = FloodGuard(self.counters, now)
        """Its `check_at` is the number of bytes received at which `check_flood` is to be called."""
        self.limits = LimitClock()
        """What has limited the connection, and for how long."""
        self.paths = Paths()
        self.idle = IdleTimer(configuration.idle_timeout)
        self.streams = Streams(
            is_client=self._is_client,
            events=self.events,
            stream_window=configuration.max_stream_data,
            connection_window=configuration.max_data,
            max_bidi=max_streams_bidi,
            max_uni=max_streams_uni,
        )
        self.local_ids = LocalConnectionIds(
            connection_ids or ConnectionIdIssuer(secret=random(32)), self.events
        )
        self.remote_ids = RemoteConnectionIds(first_cid)
        self.spaces = {
            epoch: PacketSpace(epoch) for epoch in (Epoch.INITIAL, Epoch.HANDSHAKE, Epoch.ONE_RTT)
        }
        self.handshake = Handshake(
            configuration,
            version=configuration.original_version or configuration.supported_versions[0],
            original_destination_cid=first_cid,
            retry_source_cid=retry_source_connection_id,
            offer=Offer(
                configuration,
                local_ids=self.local_ids,
                max_streams=(max_streams_bidi, max_streams_uni),
                random=random,
                certificates=certificates,
                groups=groups,
                tickets=tickets,
                early_data=early_data,
                client_auth=client_auth,
                preferred_address=preferred_address,
                ticket_handler=session_ticket_handler,
            ),
        )
        self.recovery = Recovery(
            controller=make_controller(
                configuration.congestion_control_algorithm, configuration.max_datagram_size
            ),
            initial_rtt=configuration.initial_rtt,
            max_datagram_size=configuration.max_datagram_size,
            peer_validated_us=not self._is_client,
            on_stream_data=self.streams.on_data_delivery,
        )
        self.recovery.spaces = list(self.spaces.values())
        self.skipper = NumberSkipper(random)
        confirmation = ConfirmationSignal()
        self._pings = Pings(self.events)
        self._packer = Packer(
            is_client=self._is_client,
            token=configuration.token,
            handshake=self.handshake,
            spaces=self.spaces,
            streams=self.streams,
            recovery=self.recovery,
            paths=self.paths,
            local_ids=self.local_ids,
            remote_ids=self.remote_ids,
            idle=self.idle,
            skipper=self.skipper,
            counters=self.counters,
            confirmation=confirmation,
            pings=self._pings,
            ack_delay_exponent=ACK_DELAY_EXPONENT,
        )
        self._acks = AckReceiver(
            recovery=self.recovery,
            paths=self.paths,
            handshake=self.handshake,
            skipper=self.skipper,
            counters=self.counters,
        )
        self._migration = Migration(
            configuration=configuration,
            mtu_ceiling=mtu_ceiling or configuration.max_datagram_size,
            paths=self.paths,
            local_ids=self.local_ids,
            remote_ids=self.remote_ids,
            handshake=self.handshake,
            recovery=self.recovery,
            counters=self.counters,
        )
        self._establishment = Establishment(
            handshake=self.handshake,
            spaces=self.spaces,
            streams=self.streams,
            recovery=self.recovery,
            acks=self._acks,
            migration=self._migration,
            local_ids=self.local_ids,
            remote_ids=self.remote_ids,
            idle=self.idle,
            events=self.events,
            confirmation=confirmation,
            address_validated=address_validated,
            make_token=make_token,
        )
        self.deferred = DeferredPackets(EARLY_PACKETS_HELD)
        self._receiver = Receiver(
            versions=configuration.supported_versions,
            life=self._life,
            handshake=self.handshake,
            establishment=self._establishment,
            first_flight=self._make_first_flight() if self._is_client else None,
            frames=FrameDispatch(
                is_client=self._is_client,
                datagram_limit=configuration.max_datagram_frame_size,
                life=self._life,
                establishment=self._establishment,
                streams=self.streams,
                paths=self.paths,
                migration=self._migration,
                local_ids=self.local_ids,
                remote_ids=self.remote_ids,
                recovery=self.recovery,
                acks=self._acks,
                events=self.events,
                counters=self.counters,
                token_handler=token_handler,
            ),
            spaces=self.spaces,
            paths=self.paths,
            migration=self._migration,
            local_ids=self.local_ids,
            remote_ids=self.remote_ids,
            recovery=self.recovery,
            acks=self._acks,
            idle=self.idle,
            deferred=self.deferred,
            counters=self.counters,
        )
        self._observer: Observer | None = None

    def _make_first_flight(self) -> FirstFlight:
        return FirstFlight(
            versions=self.configuration.supported_versions,
            original_cid=self.original_destination_connection_id,
            handshake=self.handshake,
            establishment=self._establishment,
            spaces=self.spaces,
            recovery=self.recovery,
            remote_ids=self.remote_ids,
            packer=self._packer,
        )

    def connect(self, address: Any, now: float) -> None:
        """Start the handshake; clients only, once, before any other method."""
        self._now = now
        path = Path(address, validated=True)
        self._migration.start(path, now)
        self.idle.on_received(now)
        self._establishment.start(now)

    # --- input: datagrams -----------------------------------------------------------------------

    def receive_datagram(self, data: bytes, address: Any, now: float, ecn: int = 0) -> None:
        """Process one datagram received on a network path with an ECN codepoint."""
        self.receive_run([data], 0, address, now, ecn)

    def receive_run(
        self, datagrams: list[bytes], at: int, address: Any, now: float, ecn: int = 0
    ) -> int:
        """Process datagrams received together, from index `at`; returns how many were processed.

        Consecutive short header packets are opened in one pass and settled once.
        """
        self._now = now
        observer = self._observer
        if observer is not None:
            observer.trace.now = now
        try:
            processed = self._receiver.receive_run(datagrams, at, address, now, ecn)
        except NoCommonVersion:
            self._fail("Could not find a common protocol version")
            return len(datagrams) - at
        if self.handshake_seconds is None and self.handshake.is_complete:
            self.handshake_seconds = now - self.created_at
        if observer is not None and self._observer is not None:
            observer.look(self)
        return processed

    # --- input: the clock -----------------------------------------------------------------------

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` must be called, or None."""
        life = self._life
        if life.event is not None:
            if life.state is State.TERMINATED:
                return None
            if life.deadline is not None:
                return life.deadline
        paths = self.paths.known
        ack_blocked = probe_blocked = False
        if paths and not paths[0].is_validated:
            ack_blocked, probe_blocked = self._amplification_limits()
        found = self.idle.deadline(self.recovery.probe_timeout())
        # A loop over candidates would cost more steps than it saves: this runs at every wake-up.
        at = self.recovery.timeout(amplification_limited=probe_blocked)
        if at is not None and (found is None or at < found):
            found = at
        at = self._packer.pacing_at
        if at is not None and (found is None or at < found):
            found = at
        if not ack_blocked:
            for space in self.spaces.values():
                at = space.ack_at
                if at is not None and (found is None or at < found):
                    found = at
        if paths:
            at = paths[0].validation_deadline
            if at is not None and (found is None or at < found):
                found = at
        if self.handshake_seconds is None:
            at = self._handshake_deadline
            if found is None or at < found:
                found = at
        return found

    def _amplification_limits(self) -> tuple[bool, bool]:
        """Whether the anti-amplification limit blocks an ACK and a probe (RFC 9002 section
        6.2.2.1)."""
        known = self.paths.known
        if not known or known[0].is_validated:
            return False, False
        room = known[0].room()
        # Before the handshake completes, a probe may be an Initial packet.
        least = _MIN_PROBE_ROOM if self.handshake.is_complete else MIN_INITIAL_DATAGRAM
        return room < _MIN_PROBE_ROOM, room < least

    def handle_timeout(self, now: float) -> None:
        """Run what is due; call it at or after the time that `poll_timeout` returned."""
        self._now = now
        if self._observer is not None:
            self._observer.trace.now = now
        if self.state is State.TERMINATED:
            return
        self._acks.settle()
        if self._life.deadline is not None:
            if now >= self._life.deadline and self.close_event is not None:
                self.close_silently(self.close_event)
            return
        if self.handshake_seconds is None and now >= self._handshake_deadline:
            # Silently, as an idle timeout (RFC 9000 section 10.1): the address is not validated.
            self._fail("Handshake timeout", ending=Ending.HANDSHAKE_TIMEOUT)
            return
        at = self.idle.deadline(self.recovery.probe_timeout())
        if at is not None and now >= at:
            self._fail("Idle timeout", ending=Ending.IDLE_TIMEOUT)
            return
        recovery = self.recovery
        at = recovery.timeout(amplification_limited=self._amplification_limits()[1])
        if at is not None and now >= at:
            recovery.handle_timeout(now)
        if not self._migration.handle_timeout(now):
            self._fail("No validated network path", ErrorCode.NO_VIABLE_PATH)

    def _fail(
        self,
        reason: str,
        code: ErrorCode = ErrorCode.INTERNAL_ERROR,
        ending: Ending = Ending.ABORTED,
    ) -> None:
        """Terminate without notifying the peer."""
        self.close_silently(
            ConnectionTerminated(
                error_code=code, frame_type=FrameType.PADDING, reason_phrase=reason
            ),
            ending,
        )

    # --- output ---------------------------------------------------------------------------------

    def poll_event(self) -> QuicEvent | None:
        """The next event, or None."""
        return self.events.pop()

    def poll_transmit(self, now: float) -> list[Transmit]:
        """All datagrams that may be sent now; call `poll_timeout` afterwards."""
        self._now = now
        if self._observer is not None:
            self._observer.trace.now = now
        if not self.paths.known:
            return []  # no authentic packet received yet
        if self._acks.pending is not None:
            self._acks.settle()
        if self._life.event is not None:
            return self._begin_closing(now) if self._life.is_close_due else self._close_again()
        recovery = self.recovery
        if recovery.newly_lost or recovery.large_datagrams.is_black_hole:
            self._migration.look_for_black_holes(now)
        try:
            runs = self._packer.pack(now, self._random)
        except TransportError as error:
            self._life.close_for(error)
            return self._begin_closing(now)
        observer = self._observer
        if observer is not None:
            observer.look_at_keys(self.handshake.phases.updates)
        if (
            self._is_client
            and Epoch.INITIAL in self.spaces
            and self.spaces[Epoch.HANDSHAKE].next_number
        ):
            # RFC 9001 section 4.9.1: with the first Handshake packet that a client sends.
            self._establishment.discard(Epoch.INITIAL)
        mtu = self.paths.known[0].mtu
        assert mtu is not None
        note_limits(
            self.limits,
            now,
            handshake=not self.handshake.is_complete,
            recovery=recovery,
            streams=self.streams,
            datagram_size=mtu.current,
            paced=self._packer.pacing_at is not None,
            waiting=self._packer.waiting,
        )
        if observer is not None:
            observer.look(self)
        return runs

    def stays_held(self, until: float) -> bool:
        """Whether nothing need be done before `until`: what was received since `poll_transmit` has
        brought no events, and not the room that data waits for."""
        return (
            self._packer.stays_held(until)
            and not self.events
            and self._life.event is None
            and self.counters.bytes_received < self.flood.check_at
        )

    # --- closing --------------------------------------------------------------------------------

    def close(
        self,
        error_code: int = ErrorCode.NO_ERROR,
        frame_type: int | None = None,
        reason_phrase: str = "",
    ) -> None:
        """Close with CONNECTION_CLOSE; without `frame_type`, an application close."""
        self._life.close(
            ConnectionTerminated(
                error_code=error_code, frame_type=frame_type, reason_phrase=reason_phrase
            )
        )

    def _begin_closing(self, now: float) -> list[Transmit]:
        event = self.close_event
        assert event is not None
        frame = ConnectionClose(event.error_code, event.frame_type, event.reason_phrase.encode())
        datagrams = self._packer.pack_close(frame, now)
        self._life.begin_closing(datagrams, now + 3 * self.recovery.probe_timeout())
        if self._observer is not None:
            self._observer.look(self)
        address = self.paths.known[0].address
        return [Transmit(data, len(data), address, 0) for data in datagrams]

    def _close_again(self) -> list[Transmit]:
        datagrams, stray = self._life.take_closing()
        if stray is not None:
            self.counters.bytes_sent += sum(map(len, datagrams))
            return [Transmit(data, len(data), stray, 0) for data in datagrams]
        path = self.paths.known[0]
        sent = []
        for data in datagrams:
            if path.is_validated or path.room() >= len(data):
                path.bytes_sent += len(data)
                self.counters.bytes_sent += len(data)
                sent.append(Transmit(data, len(data), path.address, 0))
        return sent

    def close_silently(self, event: ConnectionTerminated, ending: Ending = Ending.ABORTED) -> None:
        """Terminate immediately without sending; an earlier close reason is kept."""
        life = self._life
        if life.state is State.TERMINATED:
            return
        event = life.terminate(event, ending)
        if self._observer is not None:
            self._observer.closed(event, life.ending or ending)
        self.stop_trace()
        for epoch in list(self.spaces):
            self._establishment.discard(epoch)
        self.handshake.close()
        self.limits.stop(self._now)
        self.deferred.take()
        self.events.append(event)

    def check_flood(self, now: float) -> Standing:
        """Check the share of received bytes that is overhead; closes on a hostile peer."""
        standing = self.flood.assess(self.streams.bytes_total, now)
        if standing is Standing.HOSTILE:
            self.close(
                error_code=ErrorCode.PROTOCOL_VIOLATION,
                reason_phrase="flood",
                frame_type=FrameType.PADDING,
            )
        return standing

    # --- application calls ----------------------------------------------------------------------

    def get_next_available_stream_id(self, is_unidirectional: bool = False) -> int:
        """The ID of the next local stream; sending on it opens it."""
        return self.streams.next_id(unidirectional=is_unidirectional)

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Send data on a stream; raises ValueError if the stream cannot send."""
        self.streams.write(stream_id, data, end_stream)

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Reset the sending half of a stream."""
        self.streams.reset(stream_id, error_code)

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        """Send STOP_SENDING; raises ValueError if the stream has no receiving half."""
        self.streams.stop(stream_id, error_code)

    def consume(self, stream_id: int, nbytes: int) -> None:
        """Return flow-control credit for `nbytes` that the application has consumed.

        RFC 9000 section 4.2 leaves it to the receiver when to extend its limits; extending them
        only here keeps at most one window of bytes in memory, however slow the origin.
        """
        self.streams.consume(stream_id, nbytes)

    def prioritize(self, stream_id: int, urgency: int, incremental: bool) -> None:
        """Set the priority of a peer-initiated stream (RFC 9218).

        Urgency ranges from 0 (first) to 7. A priority for a stream that is not open yet is kept if
        the stream is within the stream limit.
        """
        self.streams.prioritize(stream_id, urgency, incremental)

    def send_ping(self, uid: int) -> None:
        """Send a PING; a PingAcknowledged event with `uid` follows."""
        self._pings.add(uid)

    def renew_connection_ids(self) -> None:
        """Have the peer use other connection IDs of ours from now on."""
        if self.handshake_complete and self.is_alive:
            self.local_ids.renew()

    def request_key_update(self) -> None:
        """Update the 1-RTT keys as soon as permitted (RFC 9001 section 6.1)."""
        self.handshake.phases.requested = True

    def change_connection_id(self) -> None:
        """Switch to a spare connection ID of the peer, if there is one."""
        self.remote_ids.change()

    # --- accessors ------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._life.state

    @property
    def close_event(self) -> ConnectionTerminated | None:
        """Why the connection closed, once it is closing."""
        return self._life.event

    @property
    def ending(self) -> Ending | None:
        """What ended the connection; None while it is alive."""
        return self._life.ending

    @property
    def is_alive(self) -> bool:
        """Neither closing, draining nor terminated."""
        return self._life.event is None

    @property
    def is_terminated(self) -> bool:
        return self._life.state is State.TERMINATED

    @property
    def handshake_complete(self) -> bool:
        return self.handshake.is_complete

    @property
    def handshake_confirmed(self) -> bool:
        return self.handshake.is_confirmed

    @property
    def validated_path(self) -> Any | None:
        """The active path once its address is validated, else the last validated one.

        Access rules and logs use this one, because the source address of a packet may be spoofed
        (RFC 9000 section 9.3). None before the handshake is complete: until then the client's
        first flight, with its token and early data, may be a replay from another host.
        """
        if not self.handshake.is_complete:
            return None
        known = self.paths.known
        path = known[0] if known and known[0].is_validated else self.paths.validated()
        return path.address if path is not None else None

    @property
    def max_datagram_size(self) -> int:
        """Maximum UDP payload of datagrams sent on the active path, in bytes."""
        known = self.paths.known
        mtu = known[0].mtu if known else None
        return mtu.current if mtu is not None else self.configuration.max_datagram_size

    def limited_by(self, now: float) -> Limit | None:
        """What limited the main direction for most of its active time."""
        limits = self.limits
        return main_limit(
            limits.received(now) if self.streams.mostly_receives else limits.sent(now)
        )

    # --- the trace ------------------------------------------------------------------------------

    @property
    def trace(self) -> Trace | None:
        """The trace that events are written to, if any."""
        return self._observer.trace if self._observer is not None else None

    def start_trace(self, trace: Trace) -> None:
        """Write events from now on; the trace is closed with the connection, or by `stop_trace`."""
        self.stop_trace()
        observer = Observer(trace, ACK_DELAY_EXPONENT)
        observer.remote_exponent = self._acks.exponent
        self._use_observer(observer)
        self.trace_opening()

    def trace_opening(self) -> None:
        """Write the opening events of a trace and all values otherwise logged on change."""
        assert self._observer is not None
        self._observer.open(self)

    def stop_trace(self) -> None:
        observer = self._observer
        if observer is not None:
            self._use_observer(None)
            observer.close()

    def _use_observer(self, observer: Observer | None) -> None:
        self._observer = self._packer.observer = observer
        self._receiver.observer = self._establishment.observer = observer
        self.recovery.on_packets_lost = observer.packets_lost if observer is not None else None
