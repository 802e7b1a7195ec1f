"""The batched send path: 1-RTT packets built without aioquic's packet builder.

A connection whose handshake is confirmed and that has nothing unusual to say sends here: ACKs,
flow-control credit and stream data, one record a run of packets. Everything else (control frames,
probes, key updates, unvalidated paths) takes aioquic's general path.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from aioquic import tls
from aioquic.quic.connection import QuicConnectionState, QuicNetworkPath
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.stream import QuicStream

from quicedge.config.limits import MAX_BATCH_PACKETS
from quicedge.quic.adapter.ordering import OrderingConnection
from quicedge.quic.batch import Batch, LonePacket
from quicedge.quic.ecn import NOT_ECT
from quicedge.quic.frames import (
    FRAME_MAX_STREAM_DATA,
    FRAME_PING,
    STREAM_FIN,
    STREAM_LENGTH,
    STREAM_OFFSET,
    encode_ack,
    encode_varint,
)

ONE_RTT = tls.Epoch.ONE_RTT
_TAG = 16
_STREAM = 0x08
_ACK_ROOM = 512
"""Bytes of a packet that an ACK frame may take, so that data still fits beside it."""


class Transmit(NamedTuple):
    """Datagrams for one path: `data` cut every `segment` bytes, the last may be shorter.

    `ecn` is the codepoint of all of them.
    """

    data: bytes
    segment: int
    path: Any
    ecn: int


class SendingConnection(OrderingConnection):
    """See the module."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.stream_bytes_retransmitted = 0

    def transmit(self, now: float) -> list[Transmit]:
        """All that may be sent now; call `get_timer` afterwards."""
        if not self._network_paths:
            return []  # nothing authentic has arrived yet: there is nobody to answer
        self._choose_mark(now)
        self._choose_size(now)
        self._next_number()
        if self._needs_general_path():
            runs = self._transmit_general(now)
        else:
            runs = self._transmit_batched(now)
        for run in runs:
            self.bytes_sent += len(run.data)
        return runs

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        """As aioquic's: single datagrams and where they go."""
        return [
            (run.data[at : at + run.segment], run.path)
            for run in self.transmit(now)
            for at in range(0, len(run.data), run.segment)
        ]

    def _needs_general_path(self) -> bool:
        paths = self._network_paths
        return (
            not self._handshake_confirmed
            or self._state is not QuicConnectionState.CONNECTED
            or self._close_pending
            or self._is_logged_by_aioquic
            or not paths[0].is_validated
            or self._cryptos[ONE_RTT]._update_key_requested
            or self._remote_preferred_address is not None
            or self._has_general_frames()
            or any(
                path.remote_challenges or not (path.is_validated or path.local_challenge_sent)
                for path in paths[1:]
            )
        )

    def _has_general_frames(self) -> bool:
        """Whether a frame that only aioquic's general path writes waits for the path in use."""
        return (
            self._handshake_done_pending
            or self._streams_blocked_pending
            or bool(self._ping_pending)
            or bool(self._retire_connection_ids)
            or bool(self._datagrams_pending)
            or bool(self._network_paths[0].remote_challenges)
            or not self._crypto_streams[ONE_RTT].sender.buffer_is_empty
            or any(not cid.was_sent for cid in self._host_cids)
            or any(
                stream.sender.reset_pending or stream.receiver.stop_pending
                for stream in map(self._streams.get, self._streams.active)
                if stream is not None
            )
        )

    def _has_control_frames(self) -> bool:
        """Whether a control frame waits for the path in use."""
        path = self._network_paths[0]
        return (
            self._has_general_frames()
            or not (path.is_validated or path.local_challenge_sent)
            or bool(self._credited)
            or bool(self._due_connection_limits())
        )

    # --- general ------------------------------------------------------------------------------

    def _transmit_general(self, now: float) -> list[Transmit]:
        self._ready_streams()  # lets go of finished ones, with their priorities
        self._bundle_ack(now)
        if not self._probe_pending:
            return self._build_general(now)
        runs: list[Transmit] = []
        usual = self._max_datagram_size, self.sending_ecn
        for kind in self._probe_kinds():
            # Each asks for a probe; what the anti-amplification limit leaves is for data alone.
            if runs and (len(runs) > 1 or not self._network_paths[0].is_validated):
                break
            self._max_datagram_size, self.sending_ecn = kind
            self._probe_pending = True
            runs += self._build_general(now)
        self._max_datagram_size, self.sending_ecn = usual
        return runs

    def _build_general(self, now: float) -> list[Transmit]:
        first = self._packet_number
        datagrams = super().datagrams_to_send(now)
        if self.sending_ecn:
            self.ecn.on_sent(first, self._packet_number)
        return [Transmit(data, len(data), path, self.sending_ecn) for data, path in datagrams]

    def _send_probing_frames(
        self, network_path: QuicNetworkPath, now: float
    ) -> list[tuple[bytes, Any]]:
        # PATH_CHALLENGE and PATH_RESPONSE are padded to a full datagram: one that every path
        # carries, for nothing is known of this one (RFC 9000 section 8.2.1).
        size, self._max_datagram_size = self._max_datagram_size, self.mtu.base
        try:
            return super()._send_probing_frames(network_path, now)
        finally:
            self._max_datagram_size = size

    def _bundle_ack(self, now: float) -> None:
        """Make a pending ACK of 1-RTT packets due when an ack-eliciting packet is about to leave.

        RFC 9000 section 13.2.1: an endpoint SHOULD send an ACK frame with other frames when there
        are new ack-eliciting packets to acknowledge. aioquic waits for the ACK timer; in Initial
        and Handshake packets it does not.
        """
        space = self._spaces.get(ONE_RTT)
        if space is None or space.ack_at is None or space.ack_at <= now:
            return
        loss = self._loss
        # Control frames wait for the end of the handshake; stream data does not (0.5-RTT).
        if (self._probe_pending and self._handshake_complete) or (
            loss.congestion_window - loss.bytes_in_flight >= self._max_datagram_size
            and (
                (self._handshake_complete and self._has_control_frames())
                or (bool(self._ready_streams()) and loss.pacer.next_send_time(now) is None)
            )
        ):
            # Not before `now`: what is due earlier would also be exempt from pacing.
            space.ack_at = now

    # --- batched ------------------------------------------------------------------------------

    def _transmit_batched(self, now: float) -> list[Transmit]:
        loss = self._loss
        runs: list[Transmit] = []
        if self._probe_pending:
            self._send_probes(runs, now)
        self._probe_mtu(runs, now)
        size = self._max_datagram_size
        self._pacing_at = None
        ready = self._ready_streams()
        room = self._send_room(now, size) if ready else size
        control = self._control_frames(now, data_follows=bool(ready) and room >= size)
        blocked = False
        while control is not None or ready:
            if room < size:
                blocked = bool(ready)
                if control is not None:
                    # ACKs are not congestion controlled; credit is worth its few bytes.
                    runs.append(self._mixed_packet(control, [], now))
                break
            if control is None and (batch := self._batch(ready, room, now)) is not None:
                runs.append(batch)
            else:
                runs.append(self._mixed_packet(control, ready, now))
            control = None
            room = self._send_room(now, size) if ready else size
        loss.app_limited = not blocked
        return runs

    def _send_room(self, now: float, size: int) -> int:
        """Bytes that congestion control and pacing let go; arms the pacing timer when the pacer
        holds back a datagram of `size` bytes."""
        loss = self._loss
        room = loss.congestion_window - loss.bytes_in_flight
        if room >= size:
            budget = loss.pacer.budget(now)
            if budget < size:
                self._pacing_at = loss.pacer.next_send_time(now)
            room = min(room, int(budget))
        return room

    def _probe_kinds(self) -> tuple[tuple[int, int], ...]:
        """Size and mark of the packets that a PTO sends, two of them.

        They differ in what a faulty path may swallow, so that one gets through and shows which it
        is: the first is full-size and unmarked, the second marked and of the base size. When a PTO
        has brought nothing, both are of the base size and unmarked.
        """
        if self._loss.pto_count > 1:
            return (self.mtu.base, NOT_ECT), (self.mtu.base, NOT_ECT)
        return (self._max_datagram_size, NOT_ECT), (self.mtu.base, self.sending_ecn)

    def _send_probes(self, runs: list[Transmit], now: float) -> None:
        """What a PTO sends, whatever congestion control says (RFC 9002 section 7.5)."""
        self._probe_pending = False
        ready = self._ready_streams()
        usual = self._max_datagram_size, self.sending_ecn
        for kind in self._probe_kinds():
            self._max_datagram_size, self.sending_ecn = kind
            control = self._control_frames(now, data_follows=True)
            runs.append(self._mixed_packet(control, ready, now, is_probe=True))
        self._max_datagram_size, self.sending_ecn = usual

    def _choose_size(self, now: float) -> None:
        """Adopt the datagram size of the path in use; fall back when it swallows larger ones."""
        path = self._network_paths[0]
        if path is not self._mtu_path:
            if self._mtu_path is None and not self._handshake_confirmed:
                return  # a handshake keeps to the configured size
            self._mtu_path = path
            self.mtu.reset()
        elif self._loss.large_datagrams.is_black_hole:
            self.mtu.on_black_hole(now)
        else:
            return
        self._loss.large_datagrams.reset()
        self._use_datagram_size(self.mtu.current)

    def _probe_mtu(self, runs: list[Transmit], now: float) -> None:
        """Probe for larger datagrams, one at a time."""
        path = self._network_paths[0]
        size = self.mtu.next_probe(now)
        if size is not None:
            room = size - 1 - len(self._peer_cid.cid) - self._pn_length() - _TAG
            # The pending ACK goes along but stays pending: the probe is likelier to be lost than
            # other packets are (RFC 9000 section 14.4).
            pending = self._spaces[ONE_RTT].ack_at is not None
            ack = self._ack_frame(now)[0] if pending else b""
            payload = (ack + bytes((FRAME_PING,))).ljust(room, b"\0")
            handler = (self._on_mtu_probe_delivery, (size, path))
            runs.append(self._seal_one(payload, [handler], True, now, in_flight=False))

    def _on_mtu_probe_delivery(
        self, delivery: QuicDeliveryState, size: int, path: QuicNetworkPath
    ) -> None:
        if path is self._mtu_path and self.mtu.on_probe(size, delivery == QuicDeliveryState.ACKED):
            self._use_datagram_size(self.mtu.current)

    def _use_datagram_size(self, size: int) -> None:
        self._max_datagram_size = size
        self._loss.controller.max_datagram_size = size
        self._loss.pacer.datagram_size = size

    def _control_frames(
        self, now: float, *, data_follows: bool
    ) -> tuple[list[bytes], list[Any], bool] | None:
        """ACK and flow-control frames to send now: frames, delivery handlers, ack-eliciting.

        A pending ACK that is not due yet still rides on an ack-eliciting packet: one of these
        frames, or of stream data when `data_follows` (RFC 9000 section 13.2.1).
        """
        parts: list[bytes] = []
        handlers: list[Any] = []
        eliciting = False
        for limit in self._due_connection_limits():
            parts.append(encode_varint(limit.frame_type) + encode_varint(limit.value))
            handlers.append((self._on_connection_limit_delivery, (limit,)))
            limit.sent = limit.value
            eliciting = True
        for stream in self._take_due_stream_limits():
            parts.append(
                bytes((FRAME_MAX_STREAM_DATA,))
                + encode_varint(stream.stream_id or 0)
                + encode_varint(stream.max_stream_data_local)
            )
            handlers.append((self._on_max_stream_data_delivery, (stream,)))
            stream.max_stream_data_local_sent = stream.max_stream_data_local
            self._streams.touched[stream.stream_id or 0] = None
            eliciting = True
        space = self._spaces[ONE_RTT]
        if space.ack_at is not None and (space.ack_at <= now or eliciting or data_follows):
            ack, count = self._ack_frame(now)
            parts.insert(0, ack)
            handlers.append((self._on_ack_delivery, (space, space.largest_received_packet)))
            space.ack_at = None
            if count > 1 and self._packet_number % 8 == 0 and not eliciting:
                # Without this the peer never acknowledges our ACKs and the ranges pile up.
                parts.append(bytes((FRAME_PING,)))
                eliciting = True
        return (parts, handlers, eliciting) if parts else None

    def _ack_frame(self, now: float) -> tuple[bytes, int]:
        """An ACK frame of all that was received in 1-RTT packets, and its number of ranges."""
        space = self._spaces[ONE_RTT]
        delay = int((now - (space.largest_received_time or now)) * 1e6)
        return encode_ack(
            space.ack_queue,
            delay >> self._local_ack_delay_exponent,
            _ACK_ROOM,
            self.ecn_marks.counts(space),
        )

    def _mixed_packet(
        self,
        control: tuple[list[bytes], list[Any], bool] | None,
        ready: list[QuicStream],
        now: float,
        *,
        is_probe: bool = False,
    ) -> Transmit:
        """One packet of control frames and of whatever the ready streams still fit into it.

        Streams that have nothing more to send leave `ready`. A probe without any of them is a PING.
        """
        parts, handlers, eliciting = control if control is not None else ([], [], False)
        left = self._payload_room() - sum(map(len, parts))
        while ready:
            stream = ready[0]
            sender = stream.sender
            head = encode_varint(stream.stream_id or 0)
            offset = sender.next_offset
            if offset:
                head += encode_varint(offset)
            left -= len(head) + 3
            if left < 1:
                break
            until = self._sendable_until(stream)
            before = sender.highest_offset
            frame = sender.get_frame(left, until)
            if frame is None:
                ready.pop(0)
                left += len(head) + 3
                continue
            self._remote_max_data_used += sender.highest_offset - before
            self.stream_bytes_retransmitted += max(
                min(before, frame.offset + len(frame.data)) - frame.offset, 0
            )
            length = len(frame.data)
            kind = _STREAM | STREAM_LENGTH
            if offset:
                kind |= STREAM_OFFSET
            if frame.fin:
                kind |= STREAM_FIN
            parts += (bytes((kind,)), head, (length | 0x4000).to_bytes(2, "big"), frame.data)
            handlers.append(
                (sender.on_data_delivery, (frame.offset, frame.offset + length, frame.fin))
            )
            eliciting = True
            left -= length
            if self._sendable_until(stream) is None:
                ready.pop(0)
                if not len(sender._pending) and not sender._pending_eof:
                    sender.buffer_is_empty = True
            else:
                self._take_turn(ready)
                break
        if is_probe and not eliciting:
            parts.append(bytes((FRAME_PING,)))
            eliciting = True
        return self._seal_one(b"".join(parts), handlers, eliciting, now)

    def _payload_room(self) -> int:
        """Bytes of frames that fit into one packet."""
        return self._max_datagram_size - 1 - len(self._peer_cid.cid) - self._pn_length() - _TAG

    def _pn_length(self) -> int:
        """Bytes of a packet number, enough for what is unacknowledged (RFC 9000 appendix A.2)."""
        unacked = self._packet_number - self._spaces[ONE_RTT].largest_acked_packet
        return 2 if unacked < 0x3FFF - MAX_BATCH_PACKETS else 4

    def _first_byte(self, pn_length: int) -> int:
        return 0x40 | self._spin_bit << 5 | self._cryptos[ONE_RTT].key_phase << 2 | (pn_length - 1)

    def _seal_one(
        self,
        payload: bytes,
        handlers: list[Any],
        eliciting: bool,
        now: float,
        in_flight: bool = True,
    ) -> Transmit:
        send = self._cryptos[ONE_RTT].send
        pn_length = self._pn_length()
        # RFC 9001 section 5.4.2: enough bytes for the header protection sample.
        payload = payload.ljust(4 - pn_length, b"\0")
        number = self._packet_number
        header = (
            bytes((self._first_byte(pn_length),))
            + self._peer_cid.cid
            + (number & ((1 << 8 * pn_length) - 1)).to_bytes(pn_length, "big")
        )
        data = send.encrypt_packet(header, payload, number)
        loss = self._loss
        packet = LonePacket(
            epoch=ONE_RTT,
            in_flight=eliciting and in_flight,
            is_ack_eliciting=eliciting,
            is_crypto_packet=False,
            packet_number=number,
            packet_type=QuicPacketType.ONE_RTT,
            sent_time=now,
            sent_bytes=len(data),
            delivery_handlers=handlers,
            delivered=loss.delivered,
            delivered_time=loss.delivered_time or now,
            app_limited=loss.app_limited,
        )
        loss.on_packet_sent(packet=packet, space=self._spaces[ONE_RTT])
        if eliciting:
            loss.pacer.on_sent(len(data))
        return self._sent(data, len(data), 1, eliciting, now)

    def _sent(
        self, data: bytes, segment: int, packets: int, eliciting: bool, now: float
    ) -> Transmit:
        if self.sending_ecn:
            self.ecn.on_sent(self._packet_number, self._packet_number + packets)
        self._packet_number += packets
        self._loss.note_packet_number(self._packet_number)
        path = self._network_paths[0]
        path.bytes_sent += len(data)
        if eliciting and not self._ack_eliciting_sent_since_receipt:
            # RFC 9000 section 10.1: the idle timer restarts with the first such packet.
            self._close_at = now + self._idle_timeout()
            self._ack_eliciting_sent_since_receipt = True
        return Transmit(data, segment, path.addr, self.sending_ecn)

    def _batch(self, ready: list[QuicStream], room: int, now: float) -> Transmit | None:
        """Full packets of the first ready stream, sealed in one pass; None when it has but one.

        `room` is what congestion control and pacing let go, in bytes on the wire.
        """
        stream = ready[0]
        sender = stream.sender
        until = self._sendable_until(stream)
        if until is None or not len(sender._pending):
            return None
        start = sender._pending[0].start
        size = self._max_datagram_size
        stream_id = encode_varint(stream.stream_id or 0)
        # One width of offsets a batch keeps all its packets but the last the same size.
        offset_length, offset_mark = (4, 1 << 31) if until < 1 << 30 else (8, 3 << 62)
        chunk = self._payload_room() - 1 - len(stream_id) - offset_length
        packets = min(-(-(until - start) // chunk), room // size, MAX_BATCH_PACKETS)
        if packets < 2:
            return None
        end = min(until, start + packets * chunk)
        fin = end == sender._buffer_fin

        kind = _STREAM | STREAM_OFFSET
        plain = bytes((kind,)) + stream_id
        last_plain = bytes((kind | STREAM_FIN,)) + stream_id if fin else plain
        base = sender._buffer_start
        with memoryview(sender._buffer) as view:
            payloads = [
                b"".join((
                    plain if at + chunk < end else last_plain,
                    (at | offset_mark).to_bytes(offset_length, "big"),
                    view[at - base : min(at + chunk, end) - base],
                ))
                for at in range(start, end, chunk)
            ]  # fmt: skip
        data, last_size = self._seal_many(payloads)

        sender._pending.subtract(start, end)
        if end > sender.highest_offset:
            self._remote_max_data_used += end - sender.highest_offset
            sender.highest_offset = end
        if fin:
            sender._pending_eof = False
        if not len(sender._pending) and not sender._pending_eof:
            sender.buffer_is_empty = True
        if self._sendable_until(stream) is not None:
            self._take_turn(ready)
        else:
            ready.pop(0)

        loss = self._loss
        batch = Batch(
            first=self._packet_number,
            stop=self._packet_number + packets,
            stream=stream,
            offset=start,
            end=end,
            chunk=chunk,
            fin=fin,
            size=size,
            last_size=last_size,
            sent_time=now,
            delivered=loss.delivered,
            delivered_time=loss.delivered_time or now,
            app_limited=loss.app_limited,
        )
        loss.on_batch_sent(batch)
        return self._sent(data, size, packets, True, now)

    def _seal_many(self, payloads: list[bytes]) -> tuple[bytes, int]:
        """Packets of consecutive numbers: AEAD one by one, header protection in one pass.

        Returns the packets joined and the size of the last one.
        """
        send = self._cryptos[ONE_RTT].send
        assert send.aead is not None
        assert send.hp is not None
        encrypt, iv = send.aead._aead.encrypt, send.aead._iv
        pn_length = self._pn_length()
        mask_number = (1 << 8 * pn_length) - 1
        first_byte = self._first_byte(pn_length)
        cid = self._peer_cid.cid
        prefix = bytes((first_byte,)) + cid
        number = self._packet_number
        sealed = []
        for payload in payloads:
            header = prefix + (number & mask_number).to_bytes(pn_length, "big")
            sealed.append(encrypt((iv ^ number).to_bytes(12, "big"), payload, header))
            number += 1
        # RFC 9001 section 5.4.2: the sample starts four bytes after the packet number does.
        skip = 4 - pn_length
        samples = [body[skip : skip + 16] for body in sealed]
        if send.hp._is_chacha20:
            masks = b"".join(send.hp._mask(sample).ljust(16, b"\0") for sample in samples)
        else:
            masks = send.hp._encryptor.update(b"".join(samples))
        number = self._packet_number
        parts: list[bytes] = []
        at = 0
        for body in sealed:
            mask = int.from_bytes(masks[at + 1 : at + 1 + pn_length], "big")
            parts += (
                bytes((first_byte ^ (masks[at] & 0x1F),)),
                cid,
                ((number & mask_number) ^ mask).to_bytes(pn_length, "big"),
                body,
            )
            number += 1
            at += 16
        return b"".join(parts), 1 + len(cid) + pn_length + len(sealed[-1])
