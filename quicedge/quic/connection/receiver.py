"""The receive path: from datagrams to opened packets.

Packets are attributed to keys, path and packet number space, opened, and their frames dispatched.
What cannot be processed is discarded with a reason, or deferred until its keys are available.
"""

from __future__ import annotations

from typing import Any

from quicedge.config.limits import (
    AEAD_FAILURES,
    MIN_INITIAL_DATAGRAM,
)
from quicedge.quic.connection.acks import AckReceiver
from quicedge.quic.connection.closing import State
from quicedge.quic.connection.connection_ids import LocalConnectionIds, RemoteConnectionIds
from quicedge.quic.connection.deferred import DeferredPackets
from quicedge.quic.connection.drops import Accounted, DropReason, Outcome
from quicedge.quic.connection.establishment import Establishment
from quicedge.quic.connection.first_flight import FirstFlight
from quicedge.quic.connection.frame_dispatch import FrameDispatch, violation
from quicedge.quic.connection.handshake import Handshake
from quicedge.quic.connection.idle import IdleTimer
from quicedge.quic.connection.lifecycle import Lifecycle
from quicedge.quic.connection.migration import Migration
from quicedge.quic.connection.observer import Observer
from quicedge.quic.connection.paths import Path, Paths
from quicedge.quic.connection.recovery import Recovery
from quicedge.quic.connection.spaces import PacketSpace
from quicedge.quic.connection.stats import ConnectionCounters
from quicedge.quic.ecn import CE
from quicedge.quic.ending import Ending
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.events import ConnectionTerminated
from quicedge.quic.frames import Epoch, FrameType
from quicedge.quic.packet import LongPacket, PacketKind, parse_long_packet
from quicedge.quic.packet_cipher import (
    MAX_NUMBER_LENGTH,
    SAMPLE_LENGTH,
    Item,
    Opened,
    is_ack_with_ping,
)
from quicedge.quic.tls_client import ClientTls

INITIAL, ZERO_RTT = Epoch.INITIAL, Epoch.ZERO_RTT
HANDSHAKE, ONE_RTT = Epoch.HANDSHAKE, Epoch.ONE_RTT

_EPOCHS = {
    PacketKind.INITIAL: INITIAL,
    PacketKind.ZERO_RTT: ZERO_RTT,
    PacketKind.HANDSHAKE: HANDSHAKE,
}
_SHORT_RESERVED, _LONG_RESERVED = 0x18, 0x0C
"""Bits of the first byte that must be zero (RFC 9000 section 17)."""
_SPIN = 0x20


class Receiver:
    """Receives the datagrams of one connection.

    Invariants: no packet is processed twice; a TransportError closes the connection and goes no
    further.
    """

    __slots__ = (
        "_acks", "_counters", "_deferred", "_establishment", "_first_flight", "_frames",
        "_handshake", "_holds_early_keys", "_idle", "_is_client", "_is_retrying", "_life",
        "_local_ids", "_migration", "_min_short", "_paths", "_pn_at", "_recovery", "_remote_ids",
        "_secrets_seen", "_spaces", "_spin_number", "_versions", "observer",
    )  # fmt: skip

    def __init__(
        self,
        *,
        versions: list[int],
        life: Lifecycle,
        handshake: Handshake,
        establishment: Establishment,
        first_flight: FirstFlight | None,
        frames: FrameDispatch,
        spaces: dict[Epoch, PacketSpace],
        paths: Paths,
        migration: Migration,
        local_ids: LocalConnectionIds,
        remote_ids: RemoteConnectionIds,
        recovery: Recovery,
        acks: AckReceiver,
        idle: IdleTimer,
        deferred: DeferredPackets,
        counters: ConnectionCounters,
    ) -> None:
        """`versions`: those supported; `first_flight`: of a client."""
        self._is_client = handshake.is_client
        self._versions = versions
        self._life = life
        self._handshake = handshake
        self._establishment = establishment
        self._first_flight = first_flight
        self._frames = frames
        self._spaces = spaces
        self._paths = paths
        self._migration = migration
        self._local_ids = local_ids
        self._pn_at = 1 + local_ids.length
        """Where the packet number of a short header packet starts."""
        self._min_short = self._pn_at + MAX_NUMBER_LENGTH + SAMPLE_LENGTH
        self._remote_ids = remote_ids
        self._recovery = recovery
        self._acks = acks
        self._idle = idle
        self._deferred = deferred
        self._counters = counters
        self.observer: Observer | None = None
        self._holds_early_keys = True
        """Whether there may be keys for 0-RTT packets."""
        self._secrets_seen = 0
        self._is_retrying = False
        self._spin_number = -1

    def receive_run(
        self, datagrams: list[bytes], at: int, address: Any, now: float, ecn: int
    ) -> int:
        """Process datagrams received together, from index `at`; returns how many were processed.

        Consecutive short header packets are opened in one pass and settled once.
        """
        if self._life.event is not None:
            return self._receive_when_over(datagrams, at, address)
        known = self._paths.known
        path = known[0] if known else None
        if path is not None and path.address is not address:
            path = self._paths.find(address)
        establishment = self._establishment
        is_settled = establishment.is_settled
        stop = at
        try:
            if (
                is_settled
                and path is known[0]
                and path.is_validated
                and not datagrams[at][0] & 0x80
            ):
                cid = self._local_ids.latest_used
                phases = self._handshake.phases
                assert phases.recv is not None
                stop, nbytes, items = phases.recv.cipher.open_run(
                    phases.phase, datagrams, at, cid, self._spaces[ONE_RTT].expected,
                    self.observer is None,
                )  # fmt: skip
                if nbytes:
                    self._counters.bytes_received += nbytes
                    path.bytes_received += nbytes
                    self._receive_shorts(items, datagrams, at, cid, path, now, ecn)
            if stop == at:
                stop = at + 1
                self._receive_any(datagrams[at], path, address, now, ecn)
            if self._acks.pending is not None:
                # A closing connection sends no more data; a trace shows the effect of each ACK.
                if self._life.event is None and self.observer is None:
                    self._acks.settle_or_wait()
                else:
                    self._acks.settle()
        except TransportError as error:
            self._life.close_for(error)
        if not is_settled and self._handshake.is_confirmed:
            establishment.settle()
        if self._deferred.held:
            self._receive_deferred(now)
        return stop - at

    def _receive_when_over(self, datagrams: list[bytes], at: int, address: Any) -> int:
        """A closing connection repeats its CONNECTION_CLOSE; others ignore datagrams."""
        for data in datagrams[at:]:
            self._counters.bytes_received += len(data)
            active = self._paths.known[0] if self._paths.known else None
            if active is not None and active.address == address:
                active.bytes_received += len(data)
                self._life.receive_late()
            else:
                self._life.receive_late(address, len(data))
        return len(datagrams) - at

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
        counters = self._counters
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
        if self._idle.restarted_at is None:
            self._idle.on_received(now)
        before = counters.packets_received
        dropped: Outcome = None
        held = False
        at, end = 0, len(data)
        life = self._life
        while at < end and life.event is None:
            if data[at] & 0x80:
                packet, reason = self._long_packet(data, at, now)
                if packet is not None and reason is None:
                    reason = self._receive_long(data, at, packet, path, now, ecn)
                # RFC 9000 section 12.2: coalesced packets are processed individually; discarding
                # one does not discard those that follow.
                at = packet.end if packet is not None else end
            else:
                reason = self._receive_short(data[at:], path, now, ecn)
                at = end
            if reason is Accounted.DEFERRED and not counted and not held:
                held = True
                counters.datagrams_deferred += 1
            if dropped is None or isinstance(reason, Accounted):
                dropped = reason
        if counters.packets_received == before:
            if not isinstance(dropped, Accounted):
                self._drop(end, dropped or DropReason.GENERAL)
        else:
            counters.received_at = now

    def _drop(self, size: int, reason: DropReason) -> None:
        self._counters.packets_dropped[reason] += 1
        self._counters.bytes_dropped += size
        if self.observer is not None:
            self.observer.packet_dropped(size, reason)

    @property
    def _is_first_flight(self) -> bool:
        """Whether no authentic packet was received yet."""
        return self._life.state is State.FIRST_FLIGHT

    def _long_packet(self, data: bytes, at: int, now: float) -> tuple[LongPacket | None, Outcome]:
        """Parse the long header packet at `at`; returns it and why it must be discarded, if so.

        No packet is returned if its end cannot be determined.
        """
        version = int.from_bytes(data[at + 1 : at + 5], "big")
        if version == 0:
            if at == 0 and self._first_flight is not None and self._is_first_flight:
                self._first_flight.receive_version_negotiation(data, now)
            return None, DropReason.GENERAL
        if version not in self._versions:
            return None, DropReason.UNSUPPORTED_VERSION
        packet = parse_long_packet(data, at)
        if packet is None:
            return None, DropReason.INVALID
        if self._establishment.is_settled:
            return packet, DropReason.KEY_UNAVAILABLE  # RFC 9001 section 4.9
        if packet.kind is PacketKind.INITIAL and not self._is_client and (
            len(data) < MIN_INITIAL_DATAGRAM
        ):  # fmt: skip
            return packet, DropReason.INVALID
        if packet.destination_cid not in self._local_ids.active and (
            self._is_client or packet.kind not in (PacketKind.INITIAL, PacketKind.ZERO_RTT)
        ):
            return packet, DropReason.UNKNOWN_CONNECTION_ID
        if packet.kind is PacketKind.RETRY:
            if self._first_flight is not None and self._is_first_flight:
                self._first_flight.receive_retry(data[at:], packet)
            return packet, DropReason.GENERAL
        return packet, None

    def _receive_long(
        self, data: bytes, at: int, packet: LongPacket, path: Path, now: float, ecn: int
    ) -> Outcome:
        """Process an Initial, 0-RTT or Handshake packet."""
        handshake = self._handshake
        epoch = _EPOCHS[packet.kind]
        if (
            self._is_client
            and handshake.remote_source_cid is not None
            and packet.source_cid != handshake.remote_source_cid
        ):
            # RFC 9000 section 7.2: packets with another Source Connection ID MUST be discarded.
            return DropReason.GENERAL
        is_first_flight = self._is_first_flight
        if is_first_flight and not self._is_client:
            if epoch is not INITIAL:
                return DropReason.KEY_UNAVAILABLE
            if handshake.tls is None:
                handshake.version = packet.version
                handshake.start(packet.destination_cid, now)
        keys = handshake.read_keys(epoch, packet.version)
        space = self._spaces.get(ONE_RTT if epoch is ZERO_RTT else epoch)
        if keys is None or space is None:
            return self._defer(data[at : packet.end], path, ecn, epoch)
        opened = keys.cipher.open_one(data[at : packet.end], packet.pn_at - at, space.expected)
        if opened is None or (payload := opened[2]) is None:
            self._count_failure()
            return DropReason.DECRYPTION_FAILURE
        first_byte, number, _ = opened
        if space.is_duplicate(number):
            return DropReason.DUPLICATE
        if first_byte & _LONG_RESERVED:
            raise violation(FrameType.PADDING, "Reserved bits must be zero")
        handshake.packet_version = packet.version
        if is_first_flight:
            self._life.state = State.CONNECTED
            self._establishment.adopt_peer(packet.source_cid, path, now)
        if epoch is HANDSHAKE and not self._is_client:
            self._establishment.discard(INITIAL)  # RFC 9001 section 4.9.1
            self._migration.receive_handshake_packet()
        if self.observer is not None:
            size = packet.end - at
            self.observer.packet_received(epoch, number, payload, size)
        self._frames.enter(path, packet.destination_cid, space, epoch, now)
        # RFC 9000 section 17.2.2: the first packet that a client sends, which is number 0, always
        # includes a CRYPTO frame. After a loss, a later packet may arrive first.
        must_have_crypto = not self._is_client and epoch is INITIAL and number == 0
        eliciting, probing = self._frames.receive(payload, crypto=must_have_crypto)
        if self._life.event is not None:
            return None
        self._packet_done(space, number, eliciting, now, ecn)
        newest = number >= space.largest_received
        self._migration.receive_packet(path, now, changed_cid=None, probing=probing, newest=newest)
        return None

    def _receive_short(self, data: bytes, path: Path, now: float, ecn: int) -> Outcome:
        """Process one 1-RTT packet that is not part of a run."""
        cid = data[1 : self._pn_at]
        if len(data) < self._min_short or not data[0] & 0x40 or cid not in self._local_ids.active:
            return (
                Accounted.COUNTED if self._is_reset(data, now) else DropReason.UNKNOWN_CONNECTION_ID
            )
        phases = self._handshake.phases
        if phases.recv is None:
            return self._defer(data, path, ecn, ONE_RTT)
        _, _, items = phases.recv.cipher.open_run(
            phases.phase, [data], 0, cid, self._spaces[ONE_RTT].expected, False
        )
        self._receive_shorts(items, [data], 0, cid, path, now, ecn)
        return Accounted.COUNTED

    def _receive_shorts(
        self,
        items: list[Item],
        datagrams: list[bytes],
        at: int,
        cid: bytes,
        path: Path,
        now: float,
        ecn: int,
    ) -> None:
        """Process 1-RTT packets to one connection ID on one path: `items` are what the datagrams
        from index `at` on hold."""
        phases = self._handshake.phases
        phase = phases.phase
        space = self._spaces[ONE_RTT]
        counters = self._counters
        frames = self._frames
        observer = self.observer
        # A changing path asks for each packet.
        ordinary = path is self._paths.known[0] and cid == self._local_ids.latest_used
        expected = space.expected
        first = stop = -1
        counted = eliciting = pings = 0
        for number, end, first_byte, content, held, asking in items:
            data = datagrams[at]
            packets = end - number
            at += packets
            if content is None:
                again = self._open_again(data, first_byte, number, phase, now)
                if again is None:
                    if not self._life.is_alive:
                        return
                    continue
                first_byte, number, content = again
                assert content is not None
                end = number + 1
            if first_byte & _SHORT_RESERVED:
                raise violation(FrameType.PADDING, "Reserved bits must be zero")
            # RFC 9000 section 12.3: a receiver MUST discard a newly unprotected packet unless it
            # is certain that it has not processed another with the same packet number.
            if (number < stop and end > first) or (
                number < space.expected and any(map(space.is_duplicate, range(number, end)))
            ):
                for data in datagrams[at - packets : at]:
                    self._drop(len(data), DropReason.DUPLICATE)
                continue
            lowest = phases.first_received
            if (lowest is None or number < lowest) and (first_byte >> 2) & 1 == phases.phase:
                phases.note_received(number, now, self._recovery.probe_timeout())
            if end > self._spin_number + 1:
                self._spin_number = end - 1
                self._remote_ids.spin = bool(first_byte & _SPIN) is not self._is_client
            if number != stop:
                if stop > first:
                    counters.packets_reordered += space.note_received(first, stop, now)
                first = number
            stop = end
            counted += packets
            if isinstance(content, list):
                eliciting += asking
                frames.receive_streams(content, packets, held)
                continue
            if isinstance(content, tuple):
                pings += asking
                counters.packets_received += packets
                counters.frames_received += held
                for fields in content:
                    self._acks.receive(fields, space, now)
                continue
            frames.enter(path, cid, space, ONE_RTT, now)
            if observer is not None:
                observer.packet_received(ONE_RTT, number, content, len(data))
            asks, probing = frames.receive(content)
            if asks and content[-1] <= FrameType.PING and is_ack_with_ping(content):
                pings += 1
            else:
                eliciting += asks
            if not self._life.is_alive:
                return
            if not ordinary:
                changed = cid if cid != self._local_ids.latest_used else None
                newest = number >= space.largest_received
                self._migration.receive_packet(
                    path, now, changed_cid=changed, probing=probing, newest=newest
                )
        if counted:
            counters.packets_reordered += space.note_received(first, stop, now)
            counters.received_at = now
            if ecn:
                space.note_marked(ecn, counted)
                counters.note_marked(ecn, counted)
            if eliciting:
                # Loss, reordering and marks are acknowledged promptly (RFC 9000
                # section 13.2.1).
                space.want_ack_of(eliciting, now, prompt=stop != expected + counted or ecn == CE)
            if pings:
                space.want_ack_of_pings(now)
            self._idle.on_received(now)
            if self._holds_early_keys and not self._is_client:
                self._holds_early_keys = False
                self._handshake.discard_keys(ZERO_RTT)

    def _open_again(
        self, data: bytes, first_byte: int, number: int, phase: int, now: float
    ) -> Opened | None:
        """Retry a packet that the current keys did not open: other key phase, or not authentic."""
        phases = self._handshake.phases
        space = self._spaces[ONE_RTT]
        bit = (first_byte >> 2) & 1
        result = None
        if bit != phases.phase:
            result = phases.open_other(
                data, self._pn_at, number, space.expected, now, self._recovery.probe_timeout()
            )
        elif bit != phase and phases.recv is not None:
            # An earlier packet of this run has updated the keys.
            result = phases.recv.cipher.open_one(data, self._pn_at, space.expected)
        if result is not None and result[2] is not None:
            if self.observer is not None:
                self.observer.look_at_keys(phases.updates)
            return result
        if not self._is_reset(data, now):
            self._count_failure()
            self._drop(len(data), DropReason.DECRYPTION_FAILURE)
        return None

    def _count_failure(self) -> None:
        """Enforce the integrity limit (RFC 9001 section 6.6)."""
        phases = self._handshake.phases
        phases.failures += 1
        if phases.failures > AEAD_FAILURES:
            raise TransportError(
                ErrorCode.AEAD_LIMIT_REACHED, FrameType.PADDING, "Too many forged packets"
            )

    def _is_reset(self, data: bytes, now: float) -> bool:
        """Drain if a packet that cannot be opened is a stateless reset; returns whether it is."""
        if not self._remote_ids.is_stateless_reset(data):
            return False
        self._life.drain(
            ConnectionTerminated(
                error_code=ErrorCode.NO_ERROR,
                frame_type=FrameType.PADDING,
                reason_phrase="Stateless reset",
            ),
            Ending.STATELESS_RESET,
            now + 3 * self._recovery.probe_timeout(),
        )
        return True

    def _packet_done(
        self, space: PacketSpace, number: int, eliciting: bool, now: float, ecn: int
    ) -> None:
        """Account for a processed long header packet."""
        space.note_received(number, number + 1, now)
        if ecn:
            space.note_marked(ecn, 1)
            self._counters.note_marked(ecn, 1)
        if eliciting:
            space.want_ack(now)
        self._idle.on_received(now)

    def _defer(self, packet: bytes, path: Path, ecn: int, epoch: Epoch) -> Outcome:
        """Buffer a packet whose keys may still become available (RFC 9001 section 5.7), or return
        why it is dropped."""
        engine = self._handshake.tls
        if engine is None or self._handshake.is_complete or epoch is INITIAL:
            return DropReason.KEY_UNAVAILABLE
        # After the ClientHello is processed, 0-RTT keys exist or never will.
        if epoch is not ONE_RTT and self._handshake.read_keys(HANDSHAKE, 0) is not None:
            return DropReason.KEY_UNAVAILABLE
        if isinstance(engine, ClientTls) and engine.awaits_server_hello:
            self._establishment.probe_early()  # the server's Initial was probably lost
        if not self._deferred.add(packet, path.address, ecn):
            return DropReason.KEY_UNAVAILABLE
        if self.observer is not None and not self._is_retrying:
            self.observer.packet_buffered(len(packet))
        return Accounted.DEFERRED

    def _receive_deferred(self, now: float) -> None:
        """Process deferred packets again once TLS has provided new keys."""
        secrets = self._handshake.read_secrets
        if secrets == self._secrets_seen:
            return
        self._secrets_seen = secrets
        self._is_retrying = True
        for packet, address, ecn in self._deferred.take():
            if not self._life.is_alive:
                break
            path = self._paths.find(address)
            try:
                self._receive_any(packet, path, address, now, ecn, counted=True)
                self._acks.settle()
            except TransportError as error:
                self._life.close_for(error)
        self._is_retrying = False
        if self._handshake.is_confirmed and not self._establishment.is_settled:
            self._establishment.settle()
