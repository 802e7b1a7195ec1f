"""Packs frames into packets, and packets into datagrams and runs.

Each part reports whether it has frames (`has_frames`) and writes those that fit (`write_frames`).
Once the handshake is confirmed, stream data is sent in runs of full packets that are sealed in one
pass and recorded as one in `Recovery.runs`; everything else is sent in single packets, together
with a pending ACK and the stream data that fits. An ACK that is not due yet lets a run go first if
data remains after it. Before that, packets of several epochs share datagrams.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from quicedge.config.limits import (
    ACK_ROOM,
    HOLD_IN_FLIGHT,
    MAX_BATCH_PACKETS,
    MIN_INITIAL_DATAGRAM,
    MTU_PROBE_AFTER,
    PTO_PROBES,
)
from quicedge.quic.connection.connection_ids import LocalConnectionIds, RemoteConnectionIds
from quicedge.quic.connection.draft import Draft
from quicedge.quic.connection.handshake import Handshake
from quicedge.quic.connection.idle import IdleTimer
from quicedge.quic.connection.observer import Observer
from quicedge.quic.connection.paths import Path, Paths
from quicedge.quic.connection.recovery import Recovery
from quicedge.quic.connection.sent_packets import Delivery, SentPacket
from quicedge.quic.connection.signals import ConfirmationSignal, CryptoFrames, PathFrames, Pings
from quicedge.quic.connection.spaces import NumberSkipper, PacketSpace
from quicedge.quic.connection.stats import ConnectionCounters
from quicedge.quic.connection.stream import Stream
from quicedge.quic.connection.streams import Streams
from quicedge.quic.ecn import NOT_ECT
from quicedge.quic.frames import (
    ConnectionClose,
    Epoch,
    FrameType,
    encode_varint,
)
from quicedge.quic.packet import PacketKind, long_header
from quicedge.quic.packet_cipher import TAG_LENGTH
from quicedge.quic.protection import PacketKeys

_KINDS = {
    Epoch.INITIAL: PacketKind.INITIAL,
    Epoch.ZERO_RTT: PacketKind.ZERO_RTT,
    Epoch.HANDSHAKE: PacketKind.HANDSHAKE,
}
_EPOCHS = tuple(Epoch)
_MIN_SHORT = 40
"""Minimum size of a datagram worth sending, in bytes."""
_PING = bytes((FrameType.PING,))
_SMALL_OVERHEAD = 1 + 4 + TAG_LENGTH + ACK_ROOM + 1 + 8 + 8 + 2
"""Bytes that a packet with an ACK and data of one stream has at most beside the data and the
connection ID: its header and tag, and those of the frames."""


class Transmit(NamedTuple):
    """Datagrams for one path: `data` in segments of `segment` bytes, the last may be shorter."""

    data: bytes
    segment: int
    path: Any
    ecn: int


class FrameSource(Protocol):
    """A part with frames for 1-RTT packets."""

    @property
    def has_frames(self) -> bool: ...

    def write_frames(self, draft: Draft) -> bool:
        """Add the frames that fit; returns whether all did."""


class Packer:
    """Builds datagrams from the parts of a connection.

    Call `pack` when the connection is alive and `pack_close` once when it closes. Invariant: every
    packet sealed is recorded in `recovery` and every datagram in its path's `bytes_sent`.
    """

    def __init__(
        self,
        *,
        is_client: bool,
        token: bytes,
        handshake: Handshake,
        spaces: dict[Epoch, PacketSpace],
        streams: Streams,
        recovery: Recovery,
        paths: Paths,
        local_ids: LocalConnectionIds,
        remote_ids: RemoteConnectionIds,
        idle: IdleTimer,
        skipper: NumberSkipper,
        counters: ConnectionCounters,
        confirmation: ConfirmationSignal,
        pings: Pings,
        ack_delay_exponent: int,
    ) -> None:
        self._is_client = is_client
        self.token = token
        """Token in a client's Initial packets."""
        self._handshake = handshake
        self._spaces = spaces
        self._space = spaces[Epoch.ONE_RTT]
        self._streams = streams
        self._recovery = recovery
        self._paths = paths
        self._local_ids = local_ids
        self._remote_ids = remote_ids
        self._idle = idle
        self._skipper = skipper
        self._counters = counters
        self._exponent = ack_delay_exponent
        self._confirmation = confirmation
        self._pings = pings
        self._path_frames = PathFrames()
        self._sources: tuple[FrameSource, ...] = (
            confirmation,
            self._path_frames,
            remote_ids,
            local_ids,
            CryptoFrames(spaces[Epoch.ONE_RTT]),
            streams,
            pings,
        )
        """In the order in which they write; `_has_frames` must know all of them."""
        self._is_drained = False
        """Whether the last packet took all that there was to send."""
        self.observer: Observer | None = None
        self.pacing_at: float | None = None
        """When pacing permits the next packet; None if pacing blocks nothing."""
        self.waiting: bool | None = None
        """Whether `pack` left data that flow control permits to send; None: it did not ask."""
        self.ecn = NOT_ECT
        """ECN codepoint of datagrams on the active path."""

    def pack(self, now: float, challenge: Any) -> list[Transmit]:
        """All datagrams that may be sent now. `challenge(n)` returns n random bytes.

        Raises TransportError when no key may seal them.
        """
        runs: list[Transmit] = []
        path = self._paths.known[0]
        self._recovery.is_held = False
        is_confirmed = self._handshake.is_confirmed
        if is_confirmed and self._is_quiet(path, now):
            self.pacing_at = None
            self.waiting = False
            self._recovery.app_limited = True
            return runs
        if self._path_frames.path is not path:
            self._path_frames.use(path, challenge)
        self.ecn = path.ecn.codepoint(self._recovery.pto_count) if path.ecn else NOT_ECT
        self.pacing_at = self.waiting = None
        if is_confirmed:
            phases = self._handshake.phases
            if phases.wants_update:
                phases.update(now)
            self._pack_application(runs, path, now)
        else:
            self._pack_handshake(runs, path, now)
        if len(self._paths.known) > 1 and self._handshake.is_complete:
            for other in self._paths.probing():
                self._pack_probe(runs, other, now, challenge)
        return runs

    def _is_quiet(self, path: Path, now: float) -> bool:
        """Whether there is nothing to do, as after most requests and ACKs."""
        space = self._space
        assert path.mtu is not None
        return not (
            self._streams.scheduler.ready
            or space.probes
            or (space.ack_at is not None and space.ack_at <= now)
            or (path.bytes_sent >= MTU_PROBE_AFTER and path.mtu.may_probe(now))
            or self._handshake.phases.requested
            or len(self._paths.known) > 1
            or self._has_frames(path)
        )

    # --- 1-RTT packets --------------------------------------------------------------------------

    def _pack_application(self, runs: list[Transmit], path: Path, now: float) -> None:
        recovery, streams = self._recovery, self._streams
        space = self._space
        mtu = path.mtu
        assert mtu is not None
        is_validated = path.is_validated
        if space.probes:
            self._pack_probes(runs, path, space, now)
        if (
            is_validated
            and path.bytes_sent >= MTU_PROBE_AFTER
            and mtu.may_probe(now)
            and (size := mtu.next_probe(now)) is not None
        ):
            self._probe_mtu(runs, path, size, now)
        blocked = False
        has_frames = self._has_frames(path)
        while True:
            size = mtu.current
            if not is_validated:
                size = min(size, path.room())
                if size < _MIN_SHORT:
                    break
            ack_due = space.ack_at is not None and space.ack_at <= now
            sendable = streams.next_sendable() if streams.scheduler.ready else None
            has_frames = has_frames or streams.has_blocked_frames
            if sendable is None and not (has_frames or ack_due):
                self.waiting = False
                break
            room = recovery.controller.congestion_window - recovery.bytes_in_flight
            if (
                # What is left after a run waits only if it is little.
                size <= room < (recovery.pacer.worth // 4 if runs else recovery.pacer.worth)
                and sendable is not None
                and not (has_frames or ack_due)
                and recovery.bytes_in_flight >= HOLD_IN_FLIGHT
                and _exceeds(*sendable, room)
            ):
                # ACKs of what is in flight are about to make room for a longer run.
                room = 0
            elif room >= size:
                budget = recovery.pacer.budget(now)
                if budget < size:
                    self.pacing_at = recovery.pacer.next_send_time(now)
                room = min(room, int(budget))
            if room < size:
                self.waiting = blocked = sendable is not None
                if ack_due or has_frames:
                    # ACKs are not congestion controlled; control frames are small and urgent.
                    self._pack_packet(runs, path, size, now, data=False)
                break
            if sendable is not None and not has_frames and is_validated:
                if (
                    space.ack_at is None or (not ack_due and _exceeds(*sendable, room))
                ) and self._pack_run(runs, path, *sendable, room, now):
                    continue
                if self._pack_small(runs, path, *sendable, size, now):
                    self.waiting = False
                    break
            if not self._pack_packet(runs, path, size, now, data=True) or self._is_drained:
                break
            has_frames = self._has_frames(path)
        recovery.app_limited = not blocked
        recovery.is_held = blocked and self.pacing_at is None and is_validated

    def stays_held(self, until: float) -> bool:
        """Whether, after what was received since `pack`, there is still nothing to do before
        `until`: data waits for room, and there is not enough of it yet."""
        recovery, space = self._recovery, self._space
        if not recovery.is_held:
            return False
        in_flight = recovery.bytes_in_flight - recovery.unsettled
        return (
            in_flight >= HOLD_IN_FLIGHT
            and recovery.controller.congestion_window - in_flight < recovery.pacer.worth
            and (space.ack_at is None or space.ack_at >= until)
            and (space.loss_time is None or space.loss_time >= until)
            and not space.probes
            and len(self._paths.known) == 1
            and not self._has_frames(self._paths.known[0])
        )

    def _has_frames(self, path: Path) -> bool:
        """Whether any part has control frames: `has_frames` of each, in few steps."""
        return bool(
            self._streams.has_frames
            or path.challenge_due
            or path.responses
            or self._confirmation.has_frames
            or self._local_ids.unannounced
            or self._remote_ids.to_retire
            or self._pings.due
            or self._space.crypto_out.pending is not None
        )

    def _pack_probes(
        self, runs: list[Transmit], path: Path, space: PacketSpace, now: float
    ) -> None:
        """Send PTO probes regardless of the congestion window (RFC 9002 section 7.5).

        The two packets differ in what a faulty path may drop, so that one arrives and shows which:
        the first is full-size and unmarked, the second of the base size and marked. From the
        second consecutive PTO on, both are of the base size and unmarked.
        """
        assert path.mtu is not None
        usual = self.ecn
        kinds = (path.mtu.current, NOT_ECT), (path.mtu.base, usual)
        if self._recovery.pto_count > 1:
            kinds = ((path.mtu.base, NOT_ECT),) * PTO_PROBES
        for size, mark in kinds:
            self.ecn = mark
            if not path.is_validated:
                size = min(size, path.room())
            if size < _MIN_SHORT or not space.probes:
                break
            self._pack_packet(runs, path, size, now, data=True)
        self.ecn = usual
        space.probes = 0

    def _pack_packet(
        self, runs: list[Transmit], path: Path, size: int, now: float, *, data: bool
    ) -> bool:
        """Send one packet; returns whether there was anything to send."""
        space = self._spaces[Epoch.ONE_RTT]
        keys = self._prepare_short(space)
        cid = self._remote_ids.current.cid
        pn_length = _pn_length(space)
        overhead = 1 + len(cid) + pn_length + TAG_LENGTH
        draft = Draft(Epoch.ONE_RTT, size - overhead)
        self._write_application(draft, space, now, data=data)
        if not draft.parts:
            return False
        least = MIN_INITIAL_DATAGRAM - overhead if draft.expand else 4 - pn_length
        payload = b"".join(draft.parts)
        payload = payload.ljust(min(least, size - overhead), b"\0")
        packet = self._seal_short(keys, cid, space, pn_length, payload)
        self._sent_packet(space, draft, len(packet), now)
        if self.observer is not None:
            self.observer.packet_sent(Epoch.ONE_RTT, space.next_number - 1, payload, len(packet))
        self._emit(runs, path, packet, now, draft.eliciting)
        return True

    def _pack_small(
        self, runs: list[Transmit], path: Path, stream: Stream, until: int, size: int, now: float
    ) -> bool:
        """Send all that there is in one packet, if it is the data of one stream and a pending ACK,
        as most responses are. The same as `_pack_packet`, in few steps; False if it is more."""
        streams, space = self._streams, self._space
        assert stream.send is not None
        buffer = stream.send.buffer
        pending = buffer.pending
        if pending is None or until != buffer.end or len(streams.scheduler.ready) > 1:
            return False
        cid = self._remote_ids.current.cid
        if until - pending[0] > size - len(cid) - _SMALL_OVERHEAD:
            return False
        recovery = self._recovery
        parts: tuple[bytes, ...] = ()
        deliveries: list[Delivery] = []
        if space.ack_at is not None:
            if space.acks.starts:
                parts = (space.encode_ack(now, self._exponent, ACK_ROOM)[0],)
                deliveries.append((space.on_ack_delivery, (space.largest_received,)))
            else:
                space.ack_at = None
        keys = self._prepare_short(space)
        frame, fin = streams.take_frame(stream, pending[0], until)
        deliveries.append((streams.on_data_delivery, (stream, pending[0], until, fin)))
        payload = b"".join((*parts, *frame))
        number, pn_length = space.next_number, _pn_length(space)
        space.next_number = number + 1
        packet = keys.cipher.seal_short(self._first_byte(pn_length), cid, number, payload)
        length = len(packet)
        self._counters.packets_sent += 1
        recovery.on_sent(
            SentPacket(
                number, length, now, True, True, deliveries, recovery.delivered,
                recovery.delivered_time or now, recovery.app_limited,
            ),
            space,
        )  # fmt: skip
        if self.ecn and path.ecn is not None:
            path.ecn.on_sent(space.epoch, number, number + 1)
        if self.observer is not None:
            self.observer.packet_sent(Epoch.ONE_RTT, number, payload, length)
        self._emit(runs, path, packet, now, eliciting=True)
        return True

    def _write_application(
        self, draft: Draft, space: PacketSpace, now: float, *, data: bool
    ) -> None:
        """Add ACK, control frames, data, and a PING if a probe would not be ack-eliciting."""
        ranges = 0
        if space.ack_at is not None:
            room = draft.room
            ranges = self._write_ack(draft, space, now, room if room < ACK_ROOM else ACK_ROOM)
        drained = data
        if self._has_frames(self._paths.known[0]):
            for source in self._sources:
                if source.has_frames and not source.write_frames(draft):
                    drained = False
                    break
        if data:
            self._write_data(draft)
        self._is_drained = drained and not self._streams.has_output
        if not draft.eliciting and (
            space.probes
            # Otherwise the peer never acknowledges our ACKs, and ranges accumulate.
            or (ranges > 1 and space.next_number % 8 == 0)
        ):
            draft.add(_PING)
        if draft.eliciting and space.probes:
            space.probes -= 1

    def _write_data(self, draft: Draft) -> None:
        streams = self._streams
        ready = streams.scheduler.ready
        while ready and (sendable := streams.next_sendable()) is not None:
            if not streams.write_data(draft, *sendable):
                break

    def _write_ack(self, draft: Draft, space: PacketSpace, now: float, room: int) -> int:
        """Add the ACK frame of a space; returns its number of ranges."""
        if not space.acks:
            space.ack_at = None
            return 0
        frame, ranges = space.encode_ack(now, self._exponent, room)
        draft.add(frame, space.on_ack_delivery, (space.largest_received,), eliciting=False)
        return ranges

    def _prepare_short(self, space: PacketSpace, packets: int = 1) -> PacketKeys:
        if self._handshake.is_confirmed:
            self._skipper.advance(space)
        phases = self._handshake.phases
        phases.prepare_send(space.next_number, packets)
        assert phases.send is not None
        return phases.send

    def _first_byte(self, pn_length: int) -> int:
        spin, phase = self._remote_ids.spin, self._handshake.phases.phase
        return 0x40 | spin << 5 | phase << 2 | (pn_length - 1)

    def _seal_short(
        self, keys: PacketKeys, cid: bytes, space: PacketSpace, pn_length: int, payload: bytes
    ) -> bytes:
        number = space.next_number
        space.next_number += 1
        return keys.cipher.seal_short(self._first_byte(pn_length), cid, number, payload)

    def _sent_packet(
        self, space: PacketSpace, draft: Draft, size: int, now: float, *, in_flight: bool = True
    ) -> None:
        """Record the packet with the last number assigned."""
        recovery = self._recovery
        number = space.next_number - 1
        self._counters.packets_sent += 1
        recovery.on_sent(
            SentPacket(
                number, size, now, draft.eliciting, draft.in_flight and in_flight,
                draft.deliveries, recovery.delivered, recovery.delivered_time or now,
                recovery.app_limited,
            ),
            space,
        )  # fmt: skip
        if self.ecn and (ecn := self._paths.known[0].ecn) is not None:
            ecn.on_sent(space.epoch, number, number + 1)

    def _emit(
        self, runs: list[Transmit], path: Path, datagram: bytes, now: float, eliciting: bool
    ) -> None:
        path.bytes_sent += len(datagram)
        self._counters.bytes_sent += len(datagram)
        if eliciting and not self._idle.sent_since:
            self._idle.on_sent_eliciting(now)
        ecn = self.ecn if path is self._paths.known[0] else NOT_ECT
        runs.append(Transmit(datagram, len(datagram), path.address, ecn))

    # --- runs -----------------------------------------------------------------------------------

    def _pack_run(
        self, runs: list[Transmit], path: Path, stream: Stream, until: int, room: int, now: float
    ) -> bool:
        """Send packets of a stream, sealed in one pass; False if they would not fill even one.

        `room`: bytes on the wire that congestion control and pacing permit.
        """
        send, mtu = stream.send, path.mtu
        assert send is not None
        assert mtu is not None
        size = mtu.current
        space = self._space
        recovery = self._recovery
        phases = self._handshake.phases
        assert phases.send is not None
        self._skipper.advance(space)
        number = space.next_number
        # Few steps: this runs for each run of a transfer.
        sent = recovery.runs.send(
            phases.send.cipher, self._first_byte(_pn_length(space)),
            self._remote_ids.current.cid, number, stream, stream.id, send.buffer, until, size,
            min(room // size, MAX_BATCH_PACKETS), now, recovery.delivered,
            recovery.delivered_time or now, recovery.app_limited,
        )  # fmt: skip
        if sent is None:
            return False
        data, packets, start, end, fin, chunk, last_size, fresh, again, more = sent
        nbytes = len(data)
        space.next_number = stop = number + packets
        phases.prepare_send(number, packets)
        self._streams.sent(stream, fresh, again, more=more)
        recovery.on_run_sent(nbytes, now, space)
        counters = self._counters
        counters.packets_sent += packets
        counters.bytes_sent += nbytes
        path.bytes_sent += nbytes
        if self.ecn and path.ecn is not None:
            path.ecn.on_sent(space.epoch, number, stop)
        if self.observer is not None:
            self.observer.run_sent(
                number, packets, stream.id, start, end, chunk, fin, size, last_size
            )
        if not self._idle.sent_since:
            self._idle.on_sent_eliciting(now)
        address, ecn = path.address, self.ecn
        if runs:
            before = runs[-1]
            if (
                before.segment == size
                and before.ecn == ecn
                and before.path is address
                and not len(before.data) % size
                and len(before.data) + nbytes <= MAX_BATCH_PACKETS * size
            ):
                # What was lost and what is new, in one system call.
                runs[-1] = Transmit(before.data + data, size, address, ecn)
                return True
        runs.append(Transmit(data, size, address, ecn))
        return True

    # --- MTU and path probes --------------------------------------------------------------------

    def _probe_mtu(self, runs: list[Transmit], path: Path, size: int, now: float) -> None:
        """Send a probe of `size` bytes."""
        space = self._spaces[Epoch.ONE_RTT]
        keys = self._prepare_short(space)
        cid = self._remote_ids.current.cid
        pn_length = _pn_length(space)
        draft = Draft(Epoch.ONE_RTT, size)
        draft.add(_PING, self._on_mtu_probe, (path, size))
        ack = b""
        if space.ack_at is not None and space.acks:
            # Include the pending ACK but keep it pending: a probe is more likely to be lost than
            # other packets (RFC 9000 section 14.4).
            due = space.ack_at
            ack, _ = space.encode_ack(now, self._exponent, ACK_ROOM)
            space.ack_at = due
        payload = (ack + _PING).ljust(size - 1 - len(cid) - pn_length - TAG_LENGTH, b"\0")
        packet = self._seal_short(keys, cid, space, pn_length, payload)
        # Its loss indicates its size, not congestion (RFC 9000 section 14.4).
        self._sent_packet(space, draft, len(packet), now, in_flight=False)
        if self.observer is not None:
            self.observer.packet_sent(
                Epoch.ONE_RTT, space.next_number - 1, payload, len(packet), mtu_probe=True
            )
        self._emit(runs, path, packet, now, eliciting=True)

    def _on_mtu_probe(self, delivered: bool, path: Path, size: int) -> None:
        assert path.mtu is not None
        if path.mtu.on_probe(size, delivered) and path is self._paths.active:
            self._recovery.use_datagram_size(path.mtu.current)

    def _pack_probe(self, runs: list[Transmit], path: Path, now: float, challenge: Any) -> None:
        """Send probing frames on an inactive path, with a connection ID of its own (RFC 9000
        section 9.5)."""
        if path.remote_cid is None:
            if not self._remote_ids.spare:
                return
            path.remote_cid = self._remote_ids.spare.pop(0)
        size = MIN_INITIAL_DATAGRAM
        # A client probes the server's preferred address before receiving anything from it.
        if not path.is_validated and not (self._is_client and not path.bytes_sent):
            size = min(size, path.room())
        space = self._spaces[Epoch.ONE_RTT]
        cid = path.remote_cid.cid
        pn_length = _pn_length(space)
        overhead = 1 + len(cid) + pn_length + TAG_LENGTH
        if size < overhead + 9:
            return
        draft = Draft(Epoch.ONE_RTT, size - overhead)
        frames = PathFrames()
        frames.use(path, challenge)
        frames.write_frames(draft)
        if draft.is_empty:
            return
        keys = self._prepare_short(space)
        payload = b"".join(draft.parts).ljust(size - overhead, b"\0")
        packet = self._seal_short(keys, cid, space, pn_length, payload)
        # Not in flight: congestion control covers the active path only.
        ecn, self.ecn = self.ecn, NOT_ECT
        self._sent_packet(space, draft, len(packet), now, in_flight=False)
        self.ecn = ecn
        if self.observer is not None:
            self.observer.packet_sent(Epoch.ONE_RTT, space.next_number - 1, payload, len(packet))
        self._emit(runs, path, packet, now, eliciting=True)

    # --- the handshake --------------------------------------------------------------------------

    def _pack_handshake(self, runs: list[Transmit], path: Path, now: float) -> None:
        """Send datagrams with packets of several epochs."""
        while self._pack_datagram(runs, path, now):
            pass

    def _pack_datagram(self, runs: list[Transmit], path: Path, now: float) -> bool:
        recovery, handshake = self._recovery, self._handshake
        assert path.mtu is not None
        size = path.mtu.current
        if not path.is_validated:
            size = min(size, path.room())
            if size < _MIN_SHORT:
                return False
        window = recovery.congestion_window - recovery.bytes_in_flight
        drafts: list[tuple[PacketSpace, Draft, PacketKeys]] = []
        left = size
        expand = False
        for epoch in _EPOCHS:
            keys = handshake.write_keys(epoch)
            if keys is None:
                continue
            space = self._spaces[Epoch.ONE_RTT if epoch is Epoch.ZERO_RTT else epoch]
            room = left - self._overhead(epoch, space)
            if room < 4:
                break
            draft = Draft(epoch, room)
            may_send = window >= size or bool(space.probes)
            if epoch is Epoch.INITIAL:
                # RFC 9000 section 14.1: ack-eliciting Initial packets need a full datagram.
                self._write_handshake(
                    draft,
                    space,
                    now,
                    data=size >= MIN_INITIAL_DATAGRAM and self._may_send_crypto(space, may_send),
                )
                expand |= draft.eliciting or (self._is_client and not draft.is_empty)
            elif epoch is Epoch.HANDSHAKE:
                self._write_handshake(
                    draft, space, now, data=self._may_send_crypto(space, may_send)
                )
            elif epoch is Epoch.ZERO_RTT:
                if may_send:
                    self._write_early(draft)
            elif may_send or space.ack_at is not None:
                self._write_application(draft, space, now, data=may_send)
            if draft.is_empty:
                continue
            left = draft.room
            expand |= draft.expand
            drafts.append((space, draft, keys))
        if not drafts:
            return False
        self._seal_datagram(runs, path, drafts, left if expand else 0, now)
        return True

    def _may_send_crypto(self, space: PacketSpace, may_send: bool) -> bool:
        """Handshake data may exceed the window if nothing in flight would trigger it later."""
        return may_send or not space.eliciting_in_flight

    def _overhead(self, epoch: Epoch, space: PacketSpace) -> int:
        cid = self._remote_ids.current.cid
        fixed = _pn_length(space) + TAG_LENGTH
        if epoch is Epoch.ONE_RTT:
            return 1 + len(cid) + fixed
        head = 7 + len(cid) + len(self._local_ids.initial) + 2
        if epoch is Epoch.INITIAL:
            head += len(encode_varint(len(self.token))) + len(self.token)
        return head + fixed

    def _write_handshake(self, draft: Draft, space: PacketSpace, now: float, *, data: bool) -> None:
        crypto = CryptoFrames(space)
        if space.probes and not crypto.has_frames:
            # A second probe repeats the data as well, as either may be lost.
            space.crypto_out.repeat()
        sends = data and (crypto.has_frames or space.probes)
        if space.ack_at is not None and (space.ack_at <= now or sends):
            self._write_ack(draft, space, now, min(ACK_ROOM, draft.room))
        if data:
            crypto.write_frames(draft)
            if space.probes:
                if not draft.eliciting:
                    draft.add(_PING)
                space.probes -= 1

    def _write_early(self, draft: Draft) -> None:
        """Add 0-RTT frames: stream data and flow control."""
        if self._streams.has_frames:
            self._streams.write_frames(draft)
        self._write_data(draft)

    def _seal_datagram(
        self,
        runs: list[Transmit],
        path: Path,
        drafts: list[tuple[PacketSpace, Draft, PacketKeys]],
        padding: int,
        now: float,
    ) -> None:
        """Seal coalesced packets into one datagram; `padding` is added to the last one."""
        parts = []
        eliciting = False
        cid = self._remote_ids.current.cid
        for index, (space, draft, keys) in enumerate(drafts):
            pn_length = _pn_length(space)
            payload = b"".join(draft.parts)
            least = 4 - pn_length
            if index == len(drafts) - 1 and padding:
                least = max(least, len(payload) + padding)
                draft.in_flight = True
            payload = payload.ljust(least, b"\0")
            if draft.epoch is Epoch.ONE_RTT:
                keys = self._prepare_short(space)
                number = space.next_number
                packet = self._seal_short(keys, cid, space, pn_length, payload)
            else:
                number = space.next_number
                space.next_number += 1
                header = long_header(
                    _KINDS[draft.epoch], self._handshake.version, cid, self._local_ids.initial,
                    self.token, pn_length + len(payload) + TAG_LENGTH, number, pn_length,
                )  # fmt: skip
                packet = keys.cipher.seal_one(header, payload, number)
            self._sent_packet(space, draft, len(packet), now)
            if self.observer is not None:
                self.observer.packet_sent(draft.epoch, number, payload, len(packet))
            eliciting |= draft.eliciting
            parts.append(packet)
        self._emit(runs, path, b"".join(parts), now, eliciting)

    # --- closing --------------------------------------------------------------------------------

    def pack_close(self, close: ConnectionClose, now: float) -> list[bytes]:
        """Datagrams with CONNECTION_CLOSE in every epoch that the peer may be able to read."""
        path = self._paths.active
        assert path.mtu is not None
        size = path.mtu.current
        if not path.is_validated:
            size = min(size, path.room())
        drafts: list[tuple[PacketSpace, Draft, PacketKeys]] = []
        left = size
        for epoch in (Epoch.INITIAL, Epoch.HANDSHAKE, Epoch.ONE_RTT):
            keys = self._handshake.write_keys(epoch)
            if keys is None:
                continue
            space = self._spaces[epoch]
            room = left - self._overhead(epoch, space)
            frame = _fitted(close, epoch, room)
            if frame is None:
                continue
            draft = Draft(epoch, room)
            draft.add(frame, eliciting=False)
            left = draft.room
            drafts.append((space, draft, keys))
        if not drafts:
            return []
        runs: list[Transmit] = []
        self.ecn = NOT_ECT
        pads = self._is_client and drafts[0][1].epoch is Epoch.INITIAL
        self._seal_datagram(runs, path, drafts, left if pads else 0, now)
        return [run.data for run in runs]


def _fitted(close: ConnectionClose, epoch: Epoch, room: int) -> bytes | None:
    """CONNECTION_CLOSE as permitted in an epoch, its reason truncated to fit."""
    if close.frame_type is None and epoch is not Epoch.ONE_RTT:
        # RFC 9000 section 10.2.3: no application error details before 1-RTT.
        close = ConnectionClose(0x0C, FrameType.PADDING, b"")
    frame = close.encode()
    over = len(frame) - room
    if over > 0:
        if over > len(close.reason):
            return None
        kept = close.reason[: len(close.reason) - over].decode("utf-8", "ignore").encode()
        frame = ConnectionClose(close.error_code, close.frame_type, kept).encode()
    return frame


def _exceeds(stream: Stream, until: int, room: int) -> bool:
    """Whether a stream has more than `room` bytes to send: later packets can take an ACK along."""
    assert stream.send is not None
    return until - stream.send.buffer.highest > room


def _pn_length(space: PacketSpace) -> int:
    """Encoded length of a packet number (RFC 9000 appendix A.2)."""
    unacked = space.next_number - space.largest_acked
    return 2 if unacked < 0x3FFF - MAX_BATCH_PACKETS else 4
