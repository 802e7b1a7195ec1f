"""A sans-IO QUIC connection, client or server, composed of the parts in this package.

Methods are named by kind. `receive_*` take input from the network, `handle_timeout` from the clock.
After any of them, and after application calls, drain `poll_event`, then call `poll_transmit`, then
`poll_timeout` for the next deadline. Accessors change nothing. Times are in seconds and never
decrease from call to call; addresses are opaque.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple, NoReturn, Protocol

from aioquic.quic.configuration import QuicConfiguration

from quicedge.config.limits import (
    ACK_DELAY,
    ACK_DELAY_EXPONENT,
    ACTIVE_CONNECTION_IDS,
    AEAD_FAILURES,
    CONNECTION_ID_LENGTH,
    EARLY_PACKETS_HELD,
    HANDSHAKE_TIMEOUT,
    MAX_ACK_DELAY,
    MAX_CRYPTO_OFFSET,
    MAX_STREAMS_BIDI,
    MAX_STREAMS_UNI,
    MIN_INITIAL_DATAGRAM,
)
from quicedge.qlog.blocked_time import Limit
from quicedge.quic.anti_replay import EarlyDataGuard, EarlyDataUse
from quicedge.quic.blocked_time import LimitClock, main_limit
from quicedge.quic.congestion import make_controller
from quicedge.quic.connection.acks import AckReceiver
from quicedge.quic.connection.assembler import TooManyGaps
from quicedge.quic.connection.closing import State
from quicedge.quic.connection.connection_ids import (
    ConnectionIdSource,
    LocalConnectionIds,
    RemoteConnectionIds,
)
from quicedge.quic.connection.deferred import DeferredPackets
from quicedge.quic.connection.drops import Accounted, DropReason, Outcome
from quicedge.quic.connection.events import EventQueue
from quicedge.quic.connection.flood import FloodGuard
from quicedge.quic.connection.handshake import Handshake
from quicedge.quic.connection.idle import IdleTimer
from quicedge.quic.connection.lifecycle import Lifecycle
from quicedge.quic.connection.limiting import note_limits
from quicedge.quic.connection.migration import Migration
from quicedge.quic.connection.observer import Observer
from quicedge.quic.connection.packer import Packer, Transmit
from quicedge.quic.connection.paths import Path, Paths
from quicedge.quic.connection.recovery import Recovery
from quicedge.quic.connection.send_buffer import SendBuffer
from quicedge.quic.connection.signals import ConfirmationSignal, Pings
from quicedge.quic.connection.spaces import NumberSkipper, PacketSpace
from quicedge.quic.connection.stats import ConnectionCounters
from quicedge.quic.connection.streams import Streams
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.ecn import Counts, EcnState
from quicedge.quic.ending import Delivery, Ending
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.events import (
    ConnectionTerminated,
    DatagramFrameReceived,
    HandshakeCompleted,
    ProtocolNegotiated,
    QuicEvent,
)
from quicedge.quic.frames import (
    FRAME_TYPES,
    Ack,
    ConnectionClose,
    Crypto,
    Datagram,
    Epoch,
    FrameError,
    FrameType,
    NewToken,
    RetireConnectionId,
    decode_varint,
)
from quicedge.quic.frames import Stream as StreamFrame
from quicedge.quic.packet import (
    LongPacket,
    PacketKind,
    parse_long_packet,
    parse_version_negotiation,
)
from quicedge.quic.pmtud import PathMtu
from quicedge.quic.protection import MAX_NUMBER_LENGTH, SAMPLE_LENGTH, open_packet, open_run
from quicedge.quic.retry import is_authentic_retry
from quicedge.quic.tickets import Tickets
from quicedge.quic.tls import CertificateStore, ServerCertificate
from quicedge.quic.tls_client import ClientTls, TicketHandler
from quicedge.quic.tls_server import ServerTls
from quicedge.quic.transport_parameters import (
    PreferredAddress,
    PreferredAddressParameter,
    TransportParameters,
)
from quicedge.shares import Standing
from quicedge.telemetry.trace import Trace

INITIAL, ZERO_RTT = Epoch.INITIAL, Epoch.ZERO_RTT
HANDSHAKE, ONE_RTT = Epoch.HANDSHAKE, Epoch.ONE_RTT

_PN_AT = 1 + CONNECTION_ID_LENGTH
_MIN_SHORT_PACKET = _PN_AT + MAX_NUMBER_LENGTH + SAMPLE_LENGTH
_EPOCHS = {
    PacketKind.INITIAL: INITIAL,
    PacketKind.ZERO_RTT: ZERO_RTT,
    PacketKind.HANDSHAKE: HANDSHAKE,
}
_SHORT_RESERVED, _LONG_RESERVED = 0x18, 0x0C
"""Bits of the first byte that must be zero (RFC 9000 section 17)."""
_SPIN = 0x20
_parse_stream = StreamFrame.parse
_MIN_PROBE_ROOM = 60
"""Maximum size of an ACK or a probe on an unvalidated path, in bytes."""


class ConnectionHandler(Protocol):
    """The application on a connection, such as an HTTP/3 session."""

    def handle_event(self, event: QuicEvent) -> None:
        """One event, in order. An exception closes this connection alone."""

    def after_transmit(self) -> None:
        """Events were delivered and packets sent: send buffers may have room, or be empty."""


class PathView(NamedTuple):
    """A network path and what crossed it, in bytes."""

    address: Any
    validated: bool
    bytes_received: int
    bytes_sent: int


def _streams(method: Callable[[Streams, Any], None]) -> Callable[[Any, Any, int], None]:
    """A receiver that passes the frame to the streams."""
    return lambda connection, frame, kind: method(connection.streams, frame)


class Connection:
    """One connection.

    A server creates it for a client's first Initial packet and passes that to `receive_datagram`; a
    client calls `connect` first. Once `is_terminated`, the connection ignores all input and sends
    nothing; its last event is ConnectionTerminated.
    """

    handler: ConnectionHandler
    came_from: Any = None
    """Network path of the first datagram; its address is not validated."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        now: float,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        certificates: CertificateStore | None = None,
        connection_ids: ConnectionIdSource | None = None,
        max_streams_bidi: int = MAX_STREAMS_BIDI,
        max_streams_uni: int = MAX_STREAMS_UNI,
        mtu_ceiling: int | None = None,
        preferred_address: PreferredAddress | None = None,
        tickets: Tickets | None = None,
        address_validated: bool = False,
        make_token: Callable[[Any, int, float], bytes] | None = None,
        early_data: tuple[EarlyDataGuard, bytes] | None = None,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
        session_ticket_handler: TicketHandler | None = None,
        token_handler: Callable[[bytes], None] | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`address_validated`: the first Initial carried a valid token for its source address.
        `make_token` returns the NEW_TOKEN token for a path, a QUIC version and a time.
        `early_data`: the replay guard for 0-RTT data and its stamp in tickets; None rejects 0-RTT.
        """
        self.configuration = configuration
        self._is_client = configuration.is_client
        self._random = random
        self._certificates = certificates
        self._tickets = tickets
        self._early_data = early_data
        self._preferred_address = preferred_address
        self._address_validated = address_validated
        self._make_token = make_token
        self._ticket_handler = session_ticket_handler
        self._token_handler = token_handler
        self._max_streams = max_streams_bidi, max_streams_uni
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
        self._flood = FloodGuard(self.counters, now)
        self.limits = LimitClock()
        """What has limited the connection, and for how long."""
        self.network_paths = Paths()
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
        self.spaces = {epoch: PacketSpace(epoch) for epoch in (INITIAL, HANDSHAKE, ONE_RTT)}
        self.handshake = Handshake(
            configuration,
            version=configuration.original_version or configuration.supported_versions[0],
            original_destination_cid=first_cid,
            retry_source_cid=retry_source_connection_id,
            make_tls=self._make_tls,
            make_parameters=self._make_parameters,
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
        self._confirmation = ConfirmationSignal()
        self._pings = Pings(self.events)
        self._packer = Packer(
            is_client=self._is_client,
            token=configuration.token,
            handshake=self.handshake,
            spaces=self.spaces,
            streams=self.streams,
            recovery=self.recovery,
            paths=self.network_paths,
            local_ids=self.local_ids,
            remote_ids=self.remote_ids,
            idle=self.idle,
            skipper=self.skipper,
            counters=self.counters,
            confirmation=self._confirmation,
            pings=self._pings,
            ack_delay_exponent=ACK_DELAY_EXPONENT,
        )
        self._acks = AckReceiver(
            recovery=self.recovery,
            paths=self.network_paths,
            handshake=self.handshake,
            skipper=self.skipper,
            counters=self.counters,
        )
        self._migration = Migration(
            configuration=configuration,
            mtu_ceiling=mtu_ceiling or configuration.max_datagram_size,
            paths=self.network_paths,
            local_ids=self.local_ids,
            remote_ids=self.remote_ids,
            handshake=self.handshake,
            recovery=self.recovery,
            counters=self.counters,
        )
        self.deferred = DeferredPackets(EARLY_PACKETS_HELD)
        self._observer: Observer | None = None
        self.datagrams_held = 0
        """Datagrams deferred so far because their keys were missing."""
        self._secrets_seen = 0
        self._is_retrying = False
        self._parameters_applied = False
        self._is_settled = False
        self._retried = False
        self._resent_early = False
        self._spin_number = -1
        self._key_updates_seen = 0
        # context of the packet being processed
        self._path: Path
        self._cid = b""
        self._space: PacketSpace = self.spaces[INITIAL]
        self._epoch = INITIAL

    # --- setup ----------------------------------------------------------------------------------

    def _make_tls(self, hooks: Handshake) -> ServerTls | ClientTls:
        configuration = self.configuration
        if self._is_client:
            return ClientTls(hooks, configuration, hooks.encode_parameters(), self._ticket_handler)
        assert self._certificates is not None
        return ServerTls(
            hooks,
            certificates=self._certificates,
            alpn_protocols=configuration.alpn_protocols or [],
            cipher_suites=configuration.cipher_suites,
            random=self._random,
            tickets=self._tickets,
            early_data=self._early_data,
        )

    def _make_parameters(self) -> TransportParameters:
        """Our transport parameters, without those that `Handshake` fills in."""
        configuration = self.configuration
        window = configuration.max_stream_data
        parameters = TransportParameters(
            max_idle_timeout=int(configuration.idle_timeout * 1000),
            initial_max_data=configuration.max_data,
            initial_max_stream_data_bidi_local=window,
            initial_max_stream_data_bidi_remote=window,
            initial_max_stream_data_uni=window,
            initial_max_streams_bidi=self._max_streams[0],
            initial_max_streams_uni=self._max_streams[1],
            ack_delay_exponent=ACK_DELAY_EXPONENT,
            max_ack_delay=MAX_ACK_DELAY,
            active_connection_id_limit=ACTIVE_CONNECTION_IDS,
            max_datagram_frame_size=configuration.max_datagram_frame_size,
            initial_source_connection_id=self.local_ids.initial,
        )
        if self._is_client:
            return parameters
        parameters.stateless_reset_token = self.local_ids.reset_token(self.local_ids.initial)
        if self._preferred_address is not None:
            # RFC 9000 section 5.1.1: the sequence number of this connection ID is 1.
            cid = self.local_ids.issue_unframed()
            parameters.preferred_address = PreferredAddressParameter(
                *self._preferred_address, cid, self.local_ids.reset_token(cid)
            )
        return parameters

    def connect(self, address: Any, now: float) -> None:
        """Start the handshake; clients only, once, before any other method."""
        self._now = now
        path = Path(address, validated=True)
        self._migration.start(path, now)
        self.idle.on_received(now, self.recovery.probe_timeout())
        self._start_client(now)

    def _start_client(self, now: float) -> None:
        self.handshake.start(self.remote_ids.current.cid, now)
        if self.handshake.remembered is not None:
            self._apply_limits(self.handshake.remembered)
        self._take_output()

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
        if not self._life.is_alive:
            return self._receive_when_over(datagrams, at, address)
        path = self.network_paths.find(address)
        run: list[bytes] = []
        if path is not None and self._is_settled and not datagrams[at][0] & 0x80:
            run = self._short_run(datagrams, at, path)
        try:
            if run:
                assert path is not None
                size = sum(map(len, run))
                self.counters.bytes_received += size
                path.bytes_received += size
                self._receive_shorts(run, path, now, ecn)
            else:
                self._receive_any(datagrams[at], path, address, now, ecn)
            self._acks.settle(now)
        except TransportError as error:
            self._close_for(error)
        if self.handshake.is_confirmed and not self._is_settled:
            self._settle()
        if self.deferred.held:
            self._receive_deferred(now)
        if self.handshake_seconds is None and self.handshake.is_complete:
            self.handshake_seconds = now - self.created_at
        if observer is not None and self._observer is not None:
            observer.look(self)
        return len(run) or 1

    def _receive_when_over(self, datagrams: list[bytes], at: int, address: Any) -> int:
        """A closing connection repeats its CONNECTION_CLOSE; others ignore datagrams."""
        for data in datagrams[at:]:
            self.counters.bytes_received += len(data)
            active = self.network_paths.known[0] if self.network_paths.known else None
            if active is not None and active.address == address:
                active.bytes_received += len(data)
                self._life.receive_late()
        return len(datagrams) - at

    def _short_run(self, datagrams: list[bytes], at: int, path: Path) -> list[bytes]:
        """The leading short header packets to the active connection ID on the active path."""
        if path is not self.network_paths.known[0] or not path.is_validated:
            return []
        cid = self.local_ids.latest_used
        stop = at
        for data in datagrams[at:] if at else datagrams:
            if len(data) < _MIN_SHORT_PACKET or data[0] & 0x80 or data[1:_PN_AT] != cid:
                break
            stop += 1
        return datagrams[at:stop]

    def _receive_any(
        self,
        data: bytes,
        path: Path | None,
        address: Any,
        now: float,
        ecn: int,
        *,
        counted: bool = False,
    ) -> None:
        """Process any datagram; `counted`: it was deferred and is already in the counters."""
        counters = self.counters
        size = 0 if counted else len(data)
        counters.bytes_received += size
        if path is None:
            if self._is_client:
                # RFC 9000 section 9: clients discard packets from unknown server addresses.
                self._drop(len(data), DropReason.GENERAL)
                return
            path = Path(address)
        # Section 8.1: the whole datagram counts, even if its packets are discarded.
        path.bytes_received += size
        if self.idle.deadline is None:
            self.idle.on_received(now, self.recovery.probe_timeout())
        before = counters.packets_received
        dropped: Outcome = None
        held = False
        at = 0
        while at < len(data) and self._life.is_alive:
            if data[at] & 0x80:
                packet, reason = self._long_packet(data, at)
                if packet is not None and reason is None:
                    reason = self._receive_long(data, at, packet, path, now, ecn)
                # RFC 9000 section 12.2: coalesced packets are processed individually; discarding
                # one does not discard those that follow.
                at = packet.end if packet is not None else len(data)
            else:
                reason = self._receive_short(data[at:], path, now, ecn)
                at = len(data)
            if reason is Accounted.DEFERRED and not counted and not held:
                held = True
                self.datagrams_held += 1
            if dropped is None or isinstance(reason, Accounted):
                dropped = reason
        if counters.packets_received == before:
            if not isinstance(dropped, Accounted):
                self._drop(len(data), dropped or DropReason.GENERAL)
        else:
            counters.received_at = now

    def _drop(self, size: int, reason: DropReason) -> None:
        self.counters.packets_dropped[reason] += 1
        self.counters.bytes_dropped += size
        if self._observer is not None:
            self._observer.packet_dropped(size, reason)

    def _long_packet(self, data: bytes, at: int) -> tuple[LongPacket | None, Outcome]:
        """Parse the long header packet at `at`; returns it and why it must be discarded, if so.

        No packet is returned if its end cannot be determined.
        """
        version = int.from_bytes(data[at + 1 : at + 5], "big")
        if version == 0:
            if self._is_client and at == 0 and not self._is_settled:
                self._receive_version_negotiation(data)
            return None, DropReason.GENERAL
        if version not in self.configuration.supported_versions:
            return None, DropReason.UNSUPPORTED_VERSION
        packet = parse_long_packet(data, at)
        if packet is None:
            return None, DropReason.INVALID
        if self._is_settled:
            return packet, DropReason.KEY_UNAVAILABLE  # RFC 9001 section 4.9
        if packet.kind is PacketKind.INITIAL and not self._is_client and (
            len(data) < MIN_INITIAL_DATAGRAM
        ):  # fmt: skip
            return packet, DropReason.INVALID
        if packet.destination_cid not in self.local_ids.active and (
            self._is_client or packet.kind not in (PacketKind.INITIAL, PacketKind.ZERO_RTT)
        ):
            return packet, DropReason.UNKNOWN_CONNECTION_ID
        if packet.kind is PacketKind.RETRY:
            if self._is_client:
                self._receive_retry(data[at:], packet)
            return packet, DropReason.GENERAL
        return packet, None

    def _receive_long(
        self, data: bytes, at: int, packet: LongPacket, path: Path, now: float, ecn: int
    ) -> Outcome:
        """Process an Initial, 0-RTT or Handshake packet."""
        handshake = self.handshake
        epoch = _EPOCHS[packet.kind]
        if (
            self._is_client
            and handshake.remote_source_cid is not None
            and packet.source_cid != handshake.remote_source_cid
        ):
            # RFC 9000 section 7.2: packets with another Source Connection ID MUST be discarded.
            return DropReason.GENERAL
        if self.state is State.FIRST_FLIGHT and not self._is_client:
            if epoch is not INITIAL:
                return DropReason.KEY_UNAVAILABLE
            if handshake.tls is None:
                handshake.version = packet.version
                handshake.start(packet.destination_cid, now)
        keys = handshake.read_keys(epoch, packet.version)
        space = self.spaces.get(ONE_RTT if epoch is ZERO_RTT else epoch)
        if keys is None or space is None:
            return self._defer(data[at : packet.end], path, ecn, epoch)
        opened = open_packet(keys, data[at : packet.end], packet.pn_at - at, space.expected)
        if opened is None or opened.payload is None:
            self._count_failure()
            return DropReason.DECRYPTION_FAILURE
        if space.is_duplicate(opened.number):
            return DropReason.DUPLICATE
        if opened.first_byte & _LONG_RESERVED:
            self._violate(FrameType.PADDING, "Reserved bits must be zero")
        handshake.packet_version = packet.version
        if self.state is State.FIRST_FLIGHT:
            self._on_first_authentic_packet(packet, path, now)
        if epoch is HANDSHAKE and not self._is_client:
            self._discard(INITIAL)  # RFC 9001 section 4.9.1
            self._migration.receive_handshake_packet()
        if self._observer is not None:
            size = packet.end - at
            self._observer.packet_received(epoch, opened.number, opened.payload, size)
        self._set_context(path, packet.destination_cid, space, epoch)
        # RFC 9000 section 17.2.2: the first packet that a client sends, which is number 0, always
        # includes a CRYPTO frame. After a loss, a later packet may arrive first.
        must_have_crypto = not self._is_client and epoch is INITIAL and opened.number == 0
        eliciting, probing = self._receive_frames(opened.payload, crypto=must_have_crypto)
        if not self._life.is_alive:
            return None
        self._packet_done(space, opened.number, eliciting, now, ecn)
        self._note_path(path, space, opened.number, probing, changed_cid=None)
        return None

    def _on_first_authentic_packet(self, packet: LongPacket, path: Path, now: float) -> None:
        """Adopt the peer's connection ID; a server also adopts the path."""
        self._life.state = State.CONNECTED
        self.handshake.remote_source_cid = packet.source_cid
        self.remote_ids.adopt(packet.source_cid)
        if not self._is_client:
            path.is_validated = path.is_validated or self._address_validated
            self._migration.start(path, now)

    def _receive_short(self, data: bytes, path: Path, now: float, ecn: int) -> Outcome:
        """Process one 1-RTT packet that is not part of a run."""
        cid = data[1:_PN_AT]
        if len(data) < _MIN_SHORT_PACKET or not data[0] & 0x40 or cid not in self.local_ids.active:
            return Accounted.COUNTED if self._note_reset(data) else DropReason.UNKNOWN_CONNECTION_ID
        if self.handshake.phases.recv is None:
            return self._defer(data, path, ecn, ONE_RTT)
        self._receive_shorts([data], path, now, ecn)
        return Accounted.COUNTED

    def _receive_shorts(self, run: list[bytes], path: Path, now: float, ecn: int) -> None:
        """Process 1-RTT packets to one connection ID on one path."""
        phases = self.handshake.phases
        space = self.spaces[ONE_RTT]
        counters = self.counters
        recv = phases.recv
        assert recv is not None
        cid = run[0][1:_PN_AT]
        phase = phases.phase
        opened = open_run(recv, phase, run, _PN_AT, space.expected)
        self._set_context(path, cid, space, ONE_RTT)
        observer = self._observer
        ordinary = path is self.network_paths.known[0] and cid == self.local_ids.latest_used
        first = stop = -1
        counted = 0
        eliciting = False
        for data, item in zip(run, opened, strict=True):
            size = len(data)
            if item.payload is None:
                again = self._open_again(data, item, phase, now)
                if again is None:
                    if not self._life.is_alive:
                        return
                    continue
                item = again
            first_byte, number, payload = item
            if first_byte & _SHORT_RESERVED:
                self._violate(FrameType.PADDING, "Reserved bits must be zero")
            # RFC 9000 section 12.3: a receiver MUST discard a newly unprotected packet unless it
            # is certain that it has not processed another with the same packet number.
            if first <= number < stop or space.is_duplicate(number):
                self._drop(size, DropReason.DUPLICATE)
                continue
            lowest = phases.first_received
            if (lowest is None or number < lowest) and (first_byte >> 2) & 1 == phases.phase:
                phases.note_received(number, now, self.recovery.probe_timeout())
            if number > self._spin_number:
                self._spin_number = number
                self.remote_ids.spin = bool(first_byte & _SPIN) is not self._is_client
            if observer is not None:
                observer.packet_received(ONE_RTT, number, payload or b"", size)
            if number != stop:
                if stop > first:
                    self._note_numbers(space, first, stop, now)
                first = number
            stop = number + 1
            counted += 1
            asks, probing = self._receive_frames(payload or b"")
            eliciting |= asks
            if not self._life.is_alive:
                return
            if not ordinary:
                changed = cid if cid != self.local_ids.latest_used else None
                self._note_path(path, space, number, probing, changed_cid=changed)
        if counted:
            self._note_numbers(space, first, stop, now)
            counters.received_at = now
            if ecn:
                space.note_marked(ecn, counted)
                counters.note_marked(ecn, counted)
            if eliciting and space.ack_at is None:
                space.ack_at = now + ACK_DELAY
            self.idle.on_received(now, self.recovery.probe_timeout())
            if not self._is_client:
                self.handshake.discard_keys(ZERO_RTT)

    def _open_again(self, data: bytes, item: Any, phase: int, now: float) -> Any:
        """Retry a packet that the current keys did not open: other key phase, or not authentic."""
        phases = self.handshake.phases
        space = self.spaces[ONE_RTT]
        bit = (item.first_byte >> 2) & 1
        result = None
        if bit != phases.phase:
            result = phases.open_other(
                data, _PN_AT, item, space.expected, now, self.recovery.probe_timeout()
            )
        elif bit != phase and phases.recv is not None:
            # An earlier packet of this run has updated the keys.
            result = open_packet(phases.recv, data, _PN_AT, space.expected)
        if result is not None and result.payload is not None:
            if phases.updates != self._key_updates_seen:
                self._note_key_update()
            return result
        if not self._note_reset(data):
            self._count_failure()
            self._drop(len(data), DropReason.DECRYPTION_FAILURE)
        return None

    def _count_failure(self) -> None:
        """Enforce the integrity limit (RFC 9001 section 6.6)."""
        phases = self.handshake.phases
        phases.failures += 1
        if phases.failures > AEAD_FAILURES:
            raise TransportError(
                ErrorCode.AEAD_LIMIT_REACHED, FrameType.PADDING, "Too many forged packets"
            )

    def _note_key_update(self) -> None:
        phases = self.handshake.phases
        self._key_updates_seen = phases.updates
        if self._observer is not None:
            self._observer.keys_updated(phases.updates)

    def _note_reset(self, data: bytes) -> bool:
        """Drain if a packet that cannot be opened is a stateless reset; returns whether it is."""
        if not self.remote_ids.is_stateless_reset(data):
            return False
        self._drain(
            ConnectionTerminated(
                error_code=ErrorCode.NO_ERROR,
                frame_type=FrameType.PADDING,
                reason_phrase="Stateless reset",
            ),
            Ending.STATELESS_RESET,
        )
        return True

    def _note_numbers(self, space: PacketSpace, first: int, stop: int, now: float) -> None:
        if first < space.largest_received:
            self.counters.packets_reordered += stop - first
        space.note_received(first, stop, now)

    def _note_path(
        self,
        path: Path,
        space: PacketSpace,
        number: int,
        probing: bool,
        *,
        changed_cid: bytes | None,
    ) -> None:
        self._migration.receive_packet(
            path,
            self._now,
            changed_cid=changed_cid,
            probing=probing,
            newest=number >= space.largest_received,
        )

    def _packet_done(
        self, space: PacketSpace, number: int, eliciting: bool, now: float, ecn: int
    ) -> None:
        """Account for a processed long header packet."""
        space.note_received(number, number + 1, now)
        if ecn:
            space.note_marked(ecn, 1)
            self.counters.note_marked(ecn, 1)
        if eliciting:
            space.want_ack(now)
        self.idle.on_received(now, self.recovery.probe_timeout())

    def _defer(self, packet: bytes, path: Path, ecn: int, epoch: Epoch) -> Outcome:
        """Buffer a packet whose keys may still become available (RFC 9001 section 5.7), or return
        why it is dropped."""
        engine = self.handshake.tls
        if engine is None or self.handshake.is_complete or epoch is INITIAL:
            return DropReason.KEY_UNAVAILABLE
        # After the ClientHello is processed, 0-RTT keys exist or never will.
        if epoch is not ONE_RTT and self.handshake.read_keys(HANDSHAKE, 0) is not None:
            return DropReason.KEY_UNAVAILABLE
        if isinstance(engine, ClientTls) and engine.awaits_server_hello and not self._resent_early:
            # RFC 9002 section 6.2.3: the server's Initial was probably lost.
            self._resent_early = True
            self.recovery.probe(self.spaces[INITIAL])
        if not self.deferred.add(packet, path.address, ecn):
            return DropReason.KEY_UNAVAILABLE
        if self._observer is not None and not self._is_retrying:
            self._observer.packet_buffered(len(packet))
        return Accounted.DEFERRED

    def _receive_deferred(self, now: float) -> None:
        """Process deferred packets again once TLS has provided new keys."""
        secrets = self.handshake.read_secrets
        if secrets == self._secrets_seen:
            return
        self._secrets_seen = secrets
        self._is_retrying = True
        for packet, address, ecn in self.deferred.take():
            if not self._life.is_alive:
                break
            path = self.network_paths.find(address)
            try:
                self._receive_any(packet, path, address, now, ecn, counted=True)
                self._acks.settle(now)
            except TransportError as error:
                self._close_for(error)
        self._is_retrying = False
        if self.handshake.is_confirmed and not self._is_settled:
            self._settle()

    # --- input: version negotiation and Retry (clients) -----------------------------------------

    def _receive_version_negotiation(self, data: bytes) -> None:
        """Restart with a common version; only in response to the first flight, and only once (RFC
        9000 section 6.2)."""
        versions = parse_version_negotiation(data)
        handshake = self.handshake
        if (
            self.state is not State.FIRST_FLIGHT
            or handshake.negotiated_incompatibly
            or handshake.version in versions
        ):
            return
        ours = self.configuration.supported_versions
        chosen = next((version for version in ours if version in versions), None)
        if chosen is None:
            self.close_silently(
                ConnectionTerminated(
                    error_code=ErrorCode.INTERNAL_ERROR,
                    frame_type=FrameType.PADDING,
                    reason_phrase="Could not find a common protocol version",
                )
            )
            return
        handshake.negotiated_incompatibly = True
        handshake.version = chosen
        self._resend_first_flight()
        self.spaces[INITIAL].crypto_out = SendBuffer()
        self._start_client(self._now)

    def _receive_retry(self, packet: bytes, header: LongPacket) -> None:
        """Accept at most one Retry, before any other packet (RFC 9000 section 17.2.5.2)."""
        if (
            self.state is not State.FIRST_FLIGHT
            or self._retried
            or header.source_cid == self.remote_ids.current.cid
            or not header.token
            or not is_authentic_retry(
                packet, self.original_destination_connection_id, header.version
            )
        ):
            return
        self._retried = True
        self.handshake.retry_source_cid = header.source_cid
        self.remote_ids.redirect(header.source_cid)
        self._packer.token = header.token
        self.handshake.use_initial_cid(header.source_cid)
        self._resend_first_flight()

    def _resend_first_flight(self) -> None:
        for epoch in (INITIAL, ONE_RTT):
            self.recovery.resend_all(self.spaces[epoch])

    # --- input: frames --------------------------------------------------------------------------

    def _set_context(self, path: Path, cid: bytes, space: PacketSpace, epoch: Epoch) -> None:
        self._path, self._cid, self._space, self._epoch = path, cid, space, epoch

    def _receive_frames(self, payload: bytes, *, crypto: bool = False) -> tuple[bool, bool]:
        """Dispatch the frames of a packet; returns whether it is ack-eliciting and probing."""
        self.counters.packets_received += 1
        end = len(payload)
        at = 0
        eliciting, probing = False, True
        permitted = 1 << self._epoch
        is_application = self._epoch is ONE_RTT
        receive_stream = self.streams.receive_stream
        kind = 0
        frames = 0
        try:
            while at < end:
                frames += 1
                kind = payload[at]
                if is_application and 0x08 <= kind <= 0x0F:
                    frame, at = _parse_stream(payload, at + 1, kind)
                    receive_stream(frame, kind)
                    eliciting, probing = True, False
                    continue
                kind, at = decode_varint(payload, at)
                spec = FRAME_TYPES.get(kind)
                if spec is None:
                    raise FrameError("unknown frame type")
                if not spec.epochs & permitted:
                    # RFC 9000 section 12.4: MUST be treated as PROTOCOL_VIOLATION.
                    self._violate(kind, f"{spec.name} is not permitted in this packet")
                frame, at = spec.parse(payload, at, kind)
                eliciting |= spec.eliciting
                probing = probing and spec.probing
                crypto = crypto and kind != FrameType.CRYPTO
                receive = self._RECEIVERS.get(kind)
                if receive is not None:
                    receive(self, frame, kind)
                    if not self._life.is_alive:
                        return eliciting, probing
        except FrameError as error:
            raise TransportError(ErrorCode.FRAME_ENCODING_ERROR, kind, str(error)) from error
        finally:
            self.counters.frames_received += frames
        if not end:
            # RFC 9000 section 12.4: an endpoint MUST treat receipt of a packet containing no
            # frames as a connection error of type PROTOCOL_VIOLATION.
            self._violate(FrameType.PADDING, "Packet contains no frames")
        if crypto:
            self._violate(FrameType.PADDING, "Packet contains no CRYPTO frame")
        return eliciting, probing

    @staticmethod
    def _violate(kind: int, reason: str) -> NoReturn:
        raise TransportError(ErrorCode.PROTOCOL_VIOLATION, kind, reason)

    def _receive_ack(self, frame: Ack, kind: int) -> None:
        self._acks.receive(frame, kind, self._space, self._now)

    def _receive_crypto(self, frame: Crypto, kind: int) -> None:
        space = self._space
        if frame.offset + len(frame.data) > MAX_CRYPTO_OFFSET:
            raise TransportError(
                ErrorCode.CRYPTO_BUFFER_EXCEEDED, kind, "CRYPTO offset exceeds limit"
            )
        try:
            ready = space.crypto_in.insert(frame.offset, frame.data)
        except TooManyGaps:
            self._violate(kind, "Too many gaps in CRYPTO data")
        if ready:
            was_complete = self.handshake.is_complete
            self.handshake.receive_crypto(self._epoch, ready, self._now)
            self._after_tls()
            if self.handshake.is_complete and not was_complete:
                self._complete()
        elif (
            frame.data
            and frame.offset + len(frame.data) <= space.crypto_in.start
            and self._epoch is INITIAL
            and not self._is_client
            and not self._resent_early
        ):
            # RFC 9002 section 6.2.3: the client has not received what we sent.
            self._resent_early = True
            self.recovery.probe(space)

    def _after_tls(self) -> None:
        """Queue TLS output; apply the peer's transport parameters once they are known."""
        self._take_output()
        handshake = self.handshake
        if handshake.remote is not None and not self._parameters_applied:
            self._apply_parameters(handshake.remote)

    def _take_output(self) -> None:
        for epoch, message in self.handshake.output:
            space = self.spaces.get(epoch)
            if space is not None:
                space.crypto_out.write(message, fin=False)
        self.handshake.output.clear()

    def _apply_parameters(self, remote: TransportParameters) -> None:
        """Apply the peer's validated transport parameters."""
        self._parameters_applied = True
        self._apply_limits(remote)
        if remote.ack_delay_exponent is not None:
            self._acks.exponent = remote.ack_delay_exponent
        if remote.max_ack_delay is not None:
            self.recovery.max_ack_delay = remote.max_ack_delay / 1000
        if remote.max_udp_payload_size is not None:
            self._migration.limit_datagrams(remote.max_udp_payload_size)
        if remote.stateless_reset_token is not None:
            self.remote_ids.use_token(remote.stateless_reset_token)
        if remote.preferred_address is not None:
            preferred = remote.preferred_address
            self.remote_ids.add_preferred(preferred.connection_id, preferred.reset_token)
        observer = self._observer
        if observer is not None:
            observer.remote_exponent = self._acks.exponent
            observer.parameters("remote", self.handshake.remote_raw)
            observer.parameters("local", self.handshake.local)
        self.events.append(ProtocolNegotiated(alpn_protocol=self.alpn))

    def _apply_limits(self, remote: TransportParameters) -> None:
        self.streams.apply_limits(
            max_data=remote.initial_max_data or 0,
            bidi_local=remote.initial_max_stream_data_bidi_local or 0,
            bidi_remote=remote.initial_max_stream_data_bidi_remote or 0,
            uni=remote.initial_max_stream_data_uni or 0,
            max_bidi=remote.initial_max_streams_bidi or 0,
            max_uni=remote.initial_max_streams_uni or 0,
        )
        self.local_ids.peer_limit = remote.active_connection_id_limit or 2
        if remote.max_idle_timeout:
            self.idle.limit(remote.max_idle_timeout / 1000)

    def _complete(self) -> None:
        """The handshake is complete; a server also confirms it (RFC 9001 section 4.1.2)."""
        handshake = self.handshake
        engine = handshake.tls
        assert engine is not None
        if self._is_client and handshake.remembered is not None and not engine.early_data_accepted:
            # RFC 9001 section 4.6.2: the server discarded 0-RTT packets.
            self.recovery.resend_all(self.spaces[ONE_RTT])
        self.local_ids.replenish()
        self.events.append(
            HandshakeCompleted(
                alpn_protocol=engine.alpn,
                early_data_accepted=engine.early_data_accepted,
                session_resumed=engine.resumed,
            )
        )
        if not self._is_client:
            self._confirm()
            token = b""
            if self._make_token is not None:
                token = self._make_token(self._path.address, handshake.version, self._now)
            self._confirmation.announce(token)

    def _confirm(self) -> None:
        self.handshake.is_confirmed = True
        self.recovery.handshake_confirmed = True
        self.recovery.peer_validated_us = True
        self._discard(INITIAL)
        self._discard(HANDSHAKE)
        self._migration.on_confirmed(self._now)

    def _discard(self, epoch: Epoch) -> None:
        """Discard keys and packet number space of an epoch (RFC 9001 section 4.9)."""
        space = self.spaces.get(epoch)
        if space is not None:
            self.handshake.discard_keys(epoch)
            self.recovery.discard(space)
            del self.spaces[epoch]

    def _settle(self) -> None:
        """Release handshake-only state."""
        self._is_settled = True
        self.handshake.settle()
        if self._is_client:
            self._migration.probe_preferred_address()

    def _receive_handshake_done(self, frame: object, kind: int) -> None:
        if not self._is_client:
            self._violate(kind, "Clients must not send HANDSHAKE_DONE frames")
        if not self.handshake.is_confirmed:
            self._confirm()

    def _receive_new_token(self, frame: NewToken, kind: int) -> None:
        if not self._is_client:
            self._violate(kind, "Clients must not send NEW_TOKEN frames")
        if not frame.token:
            raise FrameError("empty token")
        if self._token_handler is not None:
            self._token_handler(frame.token)

    def _receive_close(self, frame: ConnectionClose, kind: int) -> None:
        reason = frame.reason.decode("utf-8", "replace")
        self._drain(
            ConnectionTerminated(
                error_code=frame.error_code, frame_type=frame.frame_type, reason_phrase=reason
            ),
            Ending.PEER_CLOSE,
        )

    def _receive_new_connection_id(self, frame: Any, kind: int) -> None:
        self.remote_ids.receive_new(frame, self.network_paths.reserved_ids)

    def _receive_retire_connection_id(self, frame: RetireConnectionId, kind: int) -> None:
        self.local_ids.receive_retire(frame.sequence_number, self._cid)

    def _receive_path_challenge(self, frame: Any, kind: int) -> None:
        self._path.receive_challenge(frame.data)

    def _receive_path_response(self, frame: Any, kind: int) -> None:
        self._migration.receive_response(frame.data, self._now)

    def _receive_datagram_frame(self, frame: Datagram, kind: int) -> None:
        limit = self.configuration.max_datagram_frame_size
        # RFC 9221 section 3: the limit includes frame type and length.
        if limit is None or len(frame.data) + 1 > limit:
            self._violate(kind, "Unexpected DATAGRAM frame")
        self.events.append(DatagramFrameReceived(data=frame.data))

    # --- input: the clock -----------------------------------------------------------------------

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` must be called, or None."""
        if self.state is State.TERMINATED:
            return None
        if self._life.deadline is not None:
            return self._life.deadline
        times = [self.idle.deadline, self._packer.pacing_at]
        if self.handshake_seconds is None:
            times.append(self._handshake_deadline)
        ack_blocked, probe_blocked = self._amplification_limits()
        if not ack_blocked:
            times += [space.ack_at for space in self.spaces.values()]
        times.append(self.recovery.timeout(amplification_limited=probe_blocked))
        times.append(self.network_paths.deadline())
        return min((time for time in times if time is not None), default=None)

    def _amplification_limits(self) -> tuple[bool, bool]:
        """Whether the anti-amplification limit blocks an ACK and a probe (RFC 9002 section
        6.2.2.1)."""
        known = self.network_paths.known
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
        if self._life.deadline is not None:
            if now >= self._life.deadline and self.close_event is not None:
                self.close_silently(self.close_event)
            return
        if self.handshake_seconds is None and now >= self._handshake_deadline:
            # Silently, as an idle timeout (RFC 9000 section 10.1): the address is not validated.
            self._time_out("Handshake timeout", Ending.HANDSHAKE_TIMEOUT)
            return
        if self.idle.deadline is not None and now >= self.idle.deadline:
            self._time_out("Idle timeout", Ending.IDLE_TIMEOUT)
            return
        recovery = self.recovery
        at = recovery.timeout(amplification_limited=self._amplification_limits()[1])
        if at is not None and now >= at:
            recovery.handle_timeout(now)
        if not self._migration.handle_timeout(now):
            self.close_silently(
                ConnectionTerminated(
                    error_code=ErrorCode.NO_VIABLE_PATH,
                    frame_type=FrameType.PADDING,
                    reason_phrase="No validated network path",
                )
            )

    def _time_out(self, reason: str, ending: Ending) -> None:
        self.close_silently(
            ConnectionTerminated(
                error_code=ErrorCode.INTERNAL_ERROR,
                frame_type=FrameType.PADDING,
                reason_phrase=reason,
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
        if not self.network_paths.known:
            return []  # no authentic packet received yet
        if not self._life.is_alive:
            return self._begin_closing(now) if self._life.is_close_due else self._close_again()
        self._migration.look_for_black_holes(now)
        runs = self._packer.pack(now, self._random)
        phases = self.handshake.phases
        if phases.updates != self._key_updates_seen:
            self._note_key_update()
        if self._is_client and INITIAL in self.spaces and self.spaces[HANDSHAKE].next_number:
            # RFC 9001 section 4.9.1: with the first Handshake packet that a client sends.
            self._discard(INITIAL)
        self._note_limits(now)
        if self._observer is not None:
            self._observer.look(self)
        return runs

    def _note_limits(self, now: float) -> None:
        note_limits(
            self.limits,
            now,
            handshake=not self.handshake.is_complete,
            recovery=self.recovery,
            streams=self.streams,
            datagram_size=self.max_datagram_size,
            paced=self._packer.pacing_at is not None,
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

    def _close_for(self, error: TransportError) -> None:
        self.close(error_code=error.code, frame_type=error.frame_type, reason_phrase=error.reason)

    def _begin_closing(self, now: float) -> list[Transmit]:
        event = self.close_event
        assert event is not None
        frame = ConnectionClose(event.error_code, event.frame_type, event.reason_phrase.encode())
        datagrams = self._packer.pack_close(frame, now)
        self._life.begin_closing(datagrams, now + 3 * self.recovery.probe_timeout())
        if self._observer is not None:
            self._observer.look(self)
        address = self.network_paths.active.address
        return [Transmit(data, len(data), address, 0) for data in datagrams]

    def _close_again(self) -> list[Transmit]:
        path = self.network_paths.active
        sent = []
        for data in self._life.take_closing():
            if path.is_validated or path.room() >= len(data):
                path.bytes_sent += len(data)
                self.counters.bytes_sent += len(data)
                sent.append(Transmit(data, len(data), path.address, 0))
        return sent

    def _drain(self, event: ConnectionTerminated, ending: Ending) -> None:
        self._life.drain(event, ending, self._now + 3 * self.recovery.probe_timeout())

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
            self._discard(epoch)
        self.handshake.close()
        self.limits.stop(self._now)
        self.deferred.take()
        self.events.append(event)

    @property
    def flood_check_at(self) -> int:
        """`bytes_received` from which `check_flood` should be called again."""
        return self._flood.check_at

    def check_flood(self, now: float) -> Standing:
        """Check the share of received bytes that is overhead; closes on a hostile peer."""
        standing = self._flood.judge(self.stream_bytes, now)
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

    def request_key_update(self) -> None:
        """Update the 1-RTT keys as soon as permitted (RFC 9001 section 6.1)."""
        self.handshake.phases.requested = True

    def change_connection_id(self) -> None:
        """Switch to a spare connection ID of the peer, if there is one."""
        self.remote_ids.change()

    # --- the trace ------------------------------------------------------------------------------

    @property
    def trace(self) -> Trace | None:
        """The trace that events are written to, if any."""
        return self._observer.trace if self._observer is not None else None

    def start_trace(self, trace: Trace) -> None:
        """Write events from now on; the trace is closed with the connection, or by `stop_trace`."""
        self.stop_trace()
        self._observer = observer = Observer(trace, ACK_DELAY_EXPONENT)
        observer.remote_exponent = self._acks.exponent
        self._packer.observer = observer
        self.recovery.on_packets_lost = observer.packets_lost
        self.trace_opening()

    def trace_opening(self) -> None:
        """Write the opening events of a trace and all values otherwise logged on change."""
        assert self._observer is not None
        self._observer.open(self)

    def stop_trace(self) -> None:
        observer, self._observer = self._observer, None
        self._packer.observer = None
        self.recovery.on_packets_lost = None
        if observer is not None:
            observer.close()

    # --- accessors: state -----------------------------------------------------------------------

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
        return self._life.is_alive

    @property
    def is_terminated(self) -> bool:
        return self.state is State.TERMINATED

    @property
    def state_name(self) -> str:
        if self.state is State.CONNECTED and not self.handshake.is_complete:
            return "handshake"
        return self.state.value

    @property
    def handshake_complete(self) -> bool:
        return self.handshake.is_complete

    @property
    def handshake_confirmed(self) -> bool:
        return self.handshake.is_confirmed

    @property
    def version(self) -> int:
        return self.handshake.version if self.handshake.remote_source_cid is not None else 0

    @property
    def host_cids(self) -> list[bytes]:
        """Connection IDs issued to the peer and not retired."""
        return list(self.local_ids.active)

    @property
    def host_cid(self) -> bytes:
        """Our connection ID that the peer used last."""
        return self.local_ids.latest_used

    @property
    def peer_cid(self) -> bytes:
        return self.remote_ids.current.cid

    def is_stateless_reset(self, data: bytes) -> bool:
        """Whether a datagram is a stateless reset for this connection (RFC 9000 section 10.3.1)."""
        return self.remote_ids.is_stateless_reset(data)

    # --- accessors: negotiated ------------------------------------------------------------------

    @property
    def server_name(self) -> str | None:
        """Server name in the ClientHello (servers only)."""
        facts = self.handshake.facts
        return facts.server_name if facts is not None else None

    @property
    def certificate(self) -> ServerCertificate | None:
        """The certificate sent on this connection (servers only)."""
        facts = self.handshake.facts
        return facts.certificate if facts is not None else None

    @property
    def alpn(self) -> str | None:
        """The application protocol, once negotiated."""
        facts = self.handshake.facts
        return facts.alpn if facts is not None else None

    @property
    def cipher(self) -> str | None:
        """The cipher suite's name, once negotiated."""
        suite = self.handshake.suite
        return suite.name if suite is not None else None

    @property
    def group(self) -> str | None:
        """TLS name of the key exchange group, once negotiated."""
        facts = self.handshake.facts
        return facts.group if facts is not None else None

    @property
    def resumed(self) -> bool:
        """Whether the session was resumed from a ticket."""
        facts = self.handshake.facts
        return facts.resumed if facts is not None else False

    @property
    def retried(self) -> bool:
        """Whether the client was sent a Retry."""
        return self.handshake.retry_source_cid is not None

    @property
    def early_data_accepted(self) -> bool:
        """Whether 0-RTT data was accepted."""
        facts = self.handshake.facts
        return facts.early_data_accepted if facts is not None else False

    @property
    def early_data_use(self) -> EarlyDataUse | None:
        """The ticket use behind 0-RTT data; None without any or once the handshake is complete."""
        engine = self.handshake.tls
        if self.handshake.is_complete or not isinstance(engine, ServerTls):
            return None
        return engine.early_data_use

    @property
    def local_parameters(self) -> TransportParameters:
        """Transport parameters that we sent."""
        return TransportParameters.decode(self.handshake.local)

    @property
    def remote_parameters(self) -> TransportParameters:
        """Transport parameters of the peer; all unset until received."""
        return self.handshake.remote or TransportParameters()

    @property
    def key_phase(self) -> int:
        return self.handshake.phases.phase

    @property
    def key_updates(self) -> int:
        """Key updates of either side (RFC 9001 section 6)."""
        return self.handshake.phases.updates

    # --- accessors: paths -----------------------------------------------------------------------

    @property
    def active(self) -> Path | None:
        return self.network_paths.known[0] if self.network_paths.known else None

    @property
    def active_path(self) -> Any | None:
        """Address of the active path."""
        active = self.active
        return active.address if active is not None else None

    @property
    def active_path_validated(self) -> bool:
        active = self.active
        return active is not None and active.is_validated

    @property
    def validated_path(self) -> Any | None:
        """The active path once its address is validated, else the last validated one.

        Access rules and logs use this one, because the source address of a packet may be spoofed
        (RFC 9000 section 9.3). None before the handshake is complete: until then the client's
        first flight, with its token and early data, may be a replay from another host.
        """
        if not self.handshake.is_complete:
            return None
        path = self.network_paths.validated()
        return path.address if path is not None else None

    @property
    def paths(self) -> list[PathView]:
        """Known network paths, the active one first."""
        return [
            PathView(path.address, path.is_validated, path.bytes_received, path.bytes_sent)
            for path in self.network_paths.known
        ]

    @property
    def mtu(self) -> PathMtu:
        """Path MTU discovery of the active path."""
        mtu = self.network_paths.active.mtu
        assert mtu is not None
        return mtu

    @property
    def max_datagram_size(self) -> int:
        """Maximum UDP payload of datagrams sent on the active path, in bytes."""
        active = self.active
        if active is None or active.mtu is None:
            return self.configuration.max_datagram_size
        return active.mtu.current

    @property
    def ecn_state(self) -> EcnState:
        """State of ECN validation on the active path."""
        active = self.active
        if active is None or active.ecn is None:
            return EcnState.TESTING
        return active.ecn.state

    @property
    def ecn_congestion_reported(self) -> int:
        """Packets sent that the peer reported as CE-marked."""
        return self.counters.ecn_ce_reported

    @property
    def ecn_received(self) -> Counts:
        """Packets received with ECT(0), ECT(1) and CE."""
        return self.counters.ecn_received

    @property
    def sending_ecn(self) -> int:
        """ECN codepoint of the last datagram sent on the active path."""
        return self._packer.ecn

    # --- accessors: counts ----------------------------------------------------------------------

    @property
    def packets_sent(self) -> int:
        return self.counters.packets_sent

    @property
    def numbers_skipped(self) -> int:
        """Packet numbers skipped so far (optimistic ACK detection)."""
        return self.skipper.count

    @property
    def frames_received(self) -> int:
        """Frames processed; consecutive PADDING counts as one."""
        return self.counters.frames_received

    @property
    def packets_received(self) -> int:
        return self.counters.packets_received

    @property
    def packets_dropped(self) -> Counter[DropReason]:
        return self.counters.packets_dropped

    @property
    def packets_reordered(self) -> int:
        return self.counters.packets_reordered

    @property
    def bytes_sent(self) -> int:
        return self.counters.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self.counters.bytes_received

    @property
    def received_at(self) -> float | None:
        return self.counters.received_at

    @property
    def migrations(self) -> int:
        return self.counters.migrations

    @property
    def stream_bytes_retransmitted(self) -> int:
        return self.streams.bytes_resent

    # --- accessors: streams ---------------------------------------------------------------------

    def can_send_on(self, stream_id: int) -> bool:
        """Whether data written to the stream would still be sent."""
        stream = self.streams.get(stream_id)
        return (
            stream is not None
            and stream.send is not None
            and not stream.send.is_finished
            and stream.send.is_writable
        )

    def can_reset(self, stream_id: int) -> bool:
        """Whether a reset would still have an effect."""
        return self.delivery(stream_id) not in (Delivery.DELIVERED, Delivery.RESET)

    def delivery(self, stream_id: int) -> Delivery:
        """Delivery state of the sending half; closed streams count as delivered."""
        return self.streams.delivery(stream_id)

    def delivered_streams(self, stream_ids: Iterable[int]) -> list[int]:
        """The streams whose `delivery` is DELIVERED; cheap enough to call after each ACK."""
        return self.streams.delivered(stream_ids)

    def is_flow_blocked(self, stream_id: int) -> bool:
        """Whether the peer's stream or connection flow-control limit blocks the stream."""
        return self.streams.is_flow_blocked(stream_id)

    def unacknowledged_bytes(self, stream_id: int) -> int:
        """Bytes written to a stream from the first unacknowledged one on, sent or not."""
        return self.streams.unacknowledged(stream_id)

    def can_receive_on(self, stream_id: int) -> bool:
        """Whether more data of the stream may arrive."""
        stream = self.streams.get(stream_id)
        return stream is not None and stream.receive is not None and not stream.receive.is_finished

    def is_prioritized(self, stream_id: int) -> bool:
        """Whether `prioritize` was called for the stream."""
        return self.streams.is_prioritized(stream_id)

    def unsent_bytes(self, stream_id: int) -> int:
        """Bytes written to a stream and not yet sent."""
        return self.streams.unsent(stream_id)

    def acknowledged_bytes(self, stream_id: int) -> int:
        """Length of the acknowledged prefix of a stream, in bytes."""
        stream = self.streams.get(stream_id)
        return stream.send.buffer.base if stream is not None and stream.send is not None else 0

    @property
    def streams_open(self) -> int:
        """Peer-initiated bidirectional streams that are open."""
        return self.streams.peer_bidi_open

    def streams_without_beginning(self) -> list[int]:
        """Peer-initiated bidirectional streams with data but without their first byte."""
        return self.streams.without_beginning()

    @property
    def streams_total(self) -> int:
        """Peer-initiated bidirectional streams opened so far."""
        return self.streams.peer_bidi.opened

    @property
    def streams_allowed(self) -> int:
        """Limit on peer-initiated bidirectional streams opened so far (MAX_STREAMS)."""
        return self.streams.peer_bidi.granted

    @property
    def responses_delivered(self) -> bool:
        """Whether everything sent on peer-initiated bidirectional streams is acknowledged."""
        return self.streams.responses_delivered

    @property
    def receive_window(self) -> int:
        """Connection flow-control credit of the peer, in bytes."""
        return self.streams.window.granted - self.streams.window.used

    @property
    def send_window(self) -> int:
        """Our connection flow-control credit, in bytes."""
        return self.streams.send_credit

    @property
    def send_buffered(self) -> int:
        """Bytes written to all streams and not yet sent."""
        return self.streams.unsent_total

    @property
    def mostly_receives(self) -> bool:
        """Whether more stream data was received than sent."""
        return self.streams.window.used > self.streams.send_used

    def limited_by(self, now: float) -> Limit | None:
        """What limited the main direction for most of its active time."""
        limits = self.limits
        return main_limit(limits.received(now) if self.mostly_receives else limits.sent(now))

    @property
    def token_accepted(self) -> bool:
        """Whether the first Initial carried a valid token for its source address."""
        return self._address_validated

    @property
    def stream_bytes(self) -> int:
        """Stream bytes in both directions, without retransmissions."""
        return self.streams.window.used + self.streams.send_used

    _RECEIVERS: ClassVar[dict[int, Callable[[Any, Any, int], None]]] = {
        FrameType.ACK: _receive_ack,
        FrameType.ACK_ECN: _receive_ack,
        FrameType.RESET_STREAM: _streams(Streams.receive_reset),
        FrameType.STOP_SENDING: _streams(Streams.receive_stop_sending),
        FrameType.CRYPTO: _receive_crypto,
        FrameType.NEW_TOKEN: _receive_new_token,
        **{
            kind: lambda connection, frame, kind: connection.streams.receive_stream(frame, kind)
            for kind in range(FrameType.STREAM, FrameType.STREAM_LAST + 1)
        },
        FrameType.MAX_DATA: _streams(Streams.receive_max_data),
        FrameType.MAX_STREAM_DATA: _streams(Streams.receive_max_stream_data),
        FrameType.MAX_STREAMS_BIDI: _streams(Streams.receive_max_streams_bidi),
        FrameType.MAX_STREAMS_UNI: _streams(Streams.receive_max_streams_uni),
        FrameType.STREAM_DATA_BLOCKED: _streams(Streams.receive_stream_data_blocked),
        FrameType.NEW_CONNECTION_ID: _receive_new_connection_id,
        FrameType.RETIRE_CONNECTION_ID: _receive_retire_connection_id,
        FrameType.PATH_CHALLENGE: _receive_path_challenge,
        FrameType.PATH_RESPONSE: _receive_path_response,
        FrameType.TRANSPORT_CLOSE: _receive_close,
        FrameType.APPLICATION_CLOSE: _receive_close,
        FrameType.HANDSHAKE_DONE: _receive_handshake_done,
        FrameType.DATAGRAM: _receive_datagram_frame,
        FrameType.DATAGRAM_WITH_LENGTH: _receive_datagram_frame,
    }
    """Handlers by frame type; types without one need no action."""
