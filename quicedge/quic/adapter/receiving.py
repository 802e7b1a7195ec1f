"""The short receive path: 1-RTT packets of ACKs and stream data, without aioquic's parser.

A short header packet on the path in use, under the keys in use, is opened and read here; frames
other than ACK, STREAM and PADDING, and packets that are unusual in any way, go to aioquic.
"""

from __future__ import annotations

from typing import Any

from aioquic import tls
from aioquic._crypto import HeaderProtection
from aioquic.quic.connection import (
    QuicConnectionError,
    QuicConnectionState,
    QuicReceiveContext,
)
from aioquic.quic.crypto import CryptoContext
from aioquic.quic.events import QuicEvent, StreamDataReceived
from aioquic.quic.packet import QuicErrorCode, QuicStreamFrame, decode_packet_number
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import FinalSizeError, QuicStream, StreamFinishedError
from cryptography.exceptions import InvalidTag

from quicedge.config.limits import CONNECTION_ID_LENGTH, MAX_ACK_RANGES
from quicedge.quic.adapter.gaps import check_gaps
from quicedge.quic.adapter.keys import PacketKeys
from quicedge.quic.adapter.sending import SendingConnection
from quicedge.quic.ecn import Counts
from quicedge.quic.frames import (
    FRAME_ACK,
    FRAME_ACK_ECN,
    FRAME_PADDING,
    FRAME_STREAM_FIRST,
    FRAME_STREAM_LAST,
    STREAM_FIN,
    STREAM_LENGTH,
    STREAM_OFFSET,
    FrameError,
    decode_ack,
    decode_varint,
)

ONE_RTT = tls.Epoch.ONE_RTT
_PN_AT = 1 + CONNECTION_ID_LENGTH
_SAMPLE_AT = _PN_AT + 4
_MIN_PACKET = _SAMPLE_AT + 16
_MAX_OFFSET = (1 << 62) - 1


class ReceivingConnection(SendingConnection):
    """See the module."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._chunks: list[bytes] = []
        """In-order data of `_chunks_stream`, not made an event yet."""
        self._held_ack: tuple[list[tuple[int, int]], int, Counts | None] | None = None
        self._chunks_stream = -1
        self._reordered = 0
        """Packets that came after one with a higher number."""

    def next_event(self) -> QuicEvent | None:
        if self._chunks:
            self._flush_chunks()
        return super().next_event()

    def _flush_chunks(self) -> None:
        """Make one event of the data gathered in a row."""
        if self._chunks:
            data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks = []
            self._events.append(
                StreamDataReceived(data=data, end_stream=False, stream_id=self._chunks_stream)
            )

    # --- runs of packets ------------------------------------------------------------------------

    def receive_run(self, datagrams: list[bytes], at: int, addr: Any, now: float) -> int:
        """Handle datagrams from index `at` on that came together; returns how many it handled.

        Short header packets of this connection are opened one after the other and settled once.
        """
        run = self._short_run(datagrams, at, addr)
        if not run:
            self.receive_datagram(datagrams[at], addr, now)
            return 1
        handled = self._receive_shorts(run, now)
        if not handled:
            self._flush_chunks()
            super().receive_datagram(run[0], addr, now)
            return 1
        return handled

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """Handle one datagram of this connection; `addr` is an opaque network path."""
        run = self._short_run([data], 0, addr)
        if not run or not self._receive_shorts(run, now):
            self._flush_chunks()
            super().receive_datagram(data, addr, now)

    def _why_dropped(self, data: bytes, addr: Any) -> str:
        # The general path was taken because the short one could not open the packet.
        is_ours = bool(self._short_run([data], 0, addr))
        return "decryption_failure" if is_ours else super()._why_dropped(data, addr)

    def _short_run(self, datagrams: list[bytes], at: int, addr: Any) -> list[bytes]:
        """The datagrams from `at` on that the short path may handle, up to the first other one."""
        if (
            not self._handshake_confirmed
            or self._state is not QuicConnectionState.CONNECTED
            or self._close_pending
            or self._is_logged_by_aioquic
            or addr != self._network_paths[0].addr
            or not self._network_paths[0].is_validated
        ):
            return []
        cid = self.host_cid
        stop = at
        for data in datagrams[at:] if at else datagrams:
            if len(data) < _MIN_PACKET or data[0] & 0x80 or data[1:_PN_AT] != cid:
                break
            stop += 1
        return datagrams[at:stop]

    def _receive_shorts(self, run: list[bytes], now: float) -> int:
        """Handle packets; stops at one for the general path, which starts afresh with it."""
        recv = self._cryptos[ONE_RTT].recv
        if recv.hp is None or recv.aead is None:
            return 0
        self._tend_keys(now)
        space = self._spaces[ONE_RTT]
        masks = self._masks(recv.hp, run)
        path = self._network_paths[0]
        handled = counted = 0
        first = stop = -1
        eliciting = False
        try:
            for data in run:
                opened = self._open_short(recv, space, data, masks[16 * handled : 16 * handled + 5])
                if opened is None:
                    break
                number, payload = opened
                handled += 1
                self.bytes_received += len(data)
                path.bytes_received += len(data)
                # RFC 9000 section 12.3: a receiver MUST discard a newly unprotected packet unless
                # it is certain that it has not processed another with the same packet number.
                if first <= number < stop or number in space.received_packets:
                    self.packets_dropped["duplicate"] += 1
                    self.bytes_dropped += len(data)
                    continue
                counted += 1
                if number != stop:
                    self._record_received(space, first, stop, now)
                    first = number
                stop = number + 1
                eliciting |= self._read_frames(payload, now)
                if self._state is not QuicConnectionState.CONNECTED or self._close_pending:
                    return len(run)
            self._settle_ack(now)
        except QuicConnectionError as error:
            self.close(
                error_code=error.error_code,
                frame_type=error.frame_type,
                reason_phrase=error.reason_phrase,
            )
            return len(run)
        if counted:
            self._record_received(space, first, stop, now)
            self.received_at = now
            if self.received_ecn:
                self._count_mark(space, counted)
            if eliciting and space.ack_at is None:
                space.ack_at = now + self._ack_delay
            self._close_at = now + self._idle_timeout()
            self._ack_eliciting_sent_since_receipt = False
        return handled

    @staticmethod
    def _masks(hp: HeaderProtection, run: list[bytes]) -> bytes:
        """Header protection masks of packets, 16 bytes each (RFC 9001 section 5.4)."""
        samples = [data[_SAMPLE_AT:_MIN_PACKET] for data in run]
        if hp._is_chacha20:
            return b"".join(hp._mask(sample).ljust(16, b"\0") for sample in samples)
        masks: bytes = hp._encryptor.update(b"".join(samples))
        return masks

    def _open_short(
        self, recv: CryptoContext, space: QuicPacketSpace, data: bytes, mask: bytes
    ) -> tuple[int, bytes] | None:
        """Packet number and payload of a packet; None when the general path must see it."""
        first = data[0] ^ (mask[0] & 0x1F)
        if first & 0x18:
            return None  # reserved bits: an error
        pn_length = (first & 0x03) + 1
        pn_end = _PN_AT + pn_length
        truncated = int.from_bytes(data[_PN_AT:pn_end], "big") ^ int.from_bytes(
            mask[1 : 1 + pn_length], "big"
        )
        expected = space.expected_packet_number
        number = decode_packet_number(truncated, 8 * pn_length, expected)
        header = bytes((first,)) + data[1:_PN_AT] + truncated.to_bytes(pn_length, "big")
        keys = self._cryptos[ONE_RTT]
        assert isinstance(keys, PacketKeys)
        aead = recv.aead
        if (first >> 2) & 1 != recv.key_phase:
            if not keys.is_of_previous_phase(first, number):
                return None  # a key update (RFC 9001 section 6)
            aead = keys.previous
        assert aead is not None
        try:
            payload: bytes = aead._aead.decrypt(
                (aead._iv ^ number).to_bytes(12, "big"), data[pn_end:], header
            )
        except InvalidTag:
            return None
        if aead is recv.aead and number < keys.phase_start:
            keys.note_opened(number)
        if number >= expected:
            space.expected_packet_number = number + 1
            self._spin_bit = bool(first & 0x20)
        return number, payload

    def _record_received(self, space: QuicPacketSpace, first: int, stop: int, now: float) -> None:
        """Packets `first` to `stop - 1` were processed."""
        if stop <= first:
            return
        if first < space.largest_received_packet:
            self._reordered += stop - first
        if stop - 1 > space.largest_received_packet:
            space.largest_received_packet = stop - 1
            space.largest_received_time = now
        space.ack_queue.add(first, stop)
        space.received_packets._received.update(range(first, stop - 1))
        space.received_packets.add(stop - 1)
        if len(space.ack_queue) > MAX_ACK_RANGES:
            space.ack_queue.shift()

    def _read_frames(self, payload: bytes, now: float) -> bool:
        """Handle the frames of a packet; returns whether it elicits an ACK."""
        self.packets_received += 1
        end = len(payload)
        at = 0
        eliciting = False
        kind = 0
        try:
            while at < end:
                kind = payload[at]
                if FRAME_STREAM_FIRST <= kind <= FRAME_STREAM_LAST:
                    at = self._read_stream_frame(payload, at, kind)
                    eliciting = True
                elif kind in (FRAME_ACK, FRAME_ACK_ECN):
                    at = self._read_ack_frame(payload, at, kind, now)
                elif kind == FRAME_PADDING:
                    at = end - len(payload[at:].lstrip(b"\0"))
                else:
                    self._flush_chunks()
                    self._settle_ack(now)
                    # It counts packets and marks, as we do.
                    ecn, self.received_ecn = self.received_ecn, 0
                    rest, _ = self._payload_received(self._context(now), payload[at:])
                    self.received_ecn = ecn
                    self.packets_received -= 1
                    return eliciting or rest
        except FrameError as error:
            raise QuicConnectionError(
                error_code=QuicErrorCode.FRAME_ENCODING_ERROR,
                frame_type=kind,
                reason_phrase=str(error),
            ) from error
        if not end:
            # RFC 9000 section 12.4: an endpoint MUST treat receipt of a packet containing no
            # frames as a connection error of type PROTOCOL_VIOLATION.
            raise QuicConnectionError(
                error_code=QuicErrorCode.PROTOCOL_VIOLATION,
                frame_type=FRAME_PADDING,
                reason_phrase="Packet contains no frames",
            )
        return eliciting

    def _context(self, now: float) -> QuicReceiveContext:
        return QuicReceiveContext(
            epoch=ONE_RTT,
            host_cid=self.host_cid,
            network_path=self._network_paths[0],
            quic_logger_frames=[] if self._quic_logger is not None else None,
            time=now,
            version=None,
        )

    def _read_ack_frame(self, payload: bytes, at: int, kind: int, now: float) -> int:
        ranges, delay, at = decode_ack(payload, at + 1)
        counts = None
        if kind == FRAME_ACK_ECN:
            ect0, at = decode_varint(payload, at)
            ect1, at = decode_varint(payload, at)
            ce, at = decode_varint(payload, at)
            counts = ect0, ect1, ce
        self._check_acked(ranges, kind)
        held = self._held_ack
        if held is not None and not _covers(ranges, held[0]):
            self._settle_ack(now)
        self._held_ack = ranges, delay, counts
        return at

    def _settle_ack(self, now: float) -> None:
        """Act on the ACK frame that is held: one that says more, in the same run, replaces it."""
        if self._held_ack is None:
            return
        ranges, delay, counts = self._held_ack
        self._held_ack = None
        space = self._spaces[ONE_RTT]
        largest = space.largest_acked_packet
        self._loss.on_ack_ranges(
            ranges,
            ack_delay=(delay << self._remote_ack_delay_exponent) / 1e6,
            now=now,
            space=space,
        )
        self._heed_marks(space, counts, largest, now)

    def _read_stream_frame(self, payload: bytes, at: int, kind: int) -> int:
        stream_id, at = decode_varint(payload, at + 1)
        offset = 0
        if kind & STREAM_OFFSET:
            offset, at = decode_varint(payload, at)
        if kind & STREAM_LENGTH:
            length, at = decode_varint(payload, at)
            stop = at + length
            if stop > len(payload):
                raise FrameError("STREAM frame is cut short")
        else:
            stop = len(payload)
        data = payload[at:stop]
        fin = bool(kind & STREAM_FIN)
        stream = self._streams.get(stream_id)
        # A stream that data was just taken from may receive more; others are checked.
        if stream is None or not (
            stream_id == self._chunks_stream or self._stream_can_receive(stream_id)
        ):
            self._assert_stream_can_receive(kind, stream_id)
            try:
                stream = self._get_or_create_stream(kind, stream_id)
            except StreamFinishedError:
                return stop
        self._take_stream_data(stream, stream_id, offset, data, fin, kind)
        return stop

    def _take_stream_data(
        self, stream: QuicStream, stream_id: int, offset: int, data: bytes, fin: bool, kind: int
    ) -> None:
        end = offset + len(data)
        receiver = stream.receiver
        if end > _MAX_OFFSET:
            raise FrameError("offset + length cannot exceed 2^62 - 1")
        if end > stream.max_stream_data_local:
            raise _flow_control_error(kind, "Over stream data limit")
        fresh = end - receiver.highest_offset
        if fresh > 0:
            if self._local_max_data.used + fresh > self._local_max_data.value:
                raise _flow_control_error(kind, "Over connection data limit")
            self._local_max_data.used += fresh
        if (
            not fin
            and data
            and offset == receiver._buffer_start
            and not receiver._buffer
            and receiver._final_size is None
            and not receiver.is_finished
        ):
            receiver._buffer_start = end
            receiver.highest_offset = end
            self._streams.touched[stream_id] = None
            if self._chunks_stream != stream_id:
                self._flush_chunks()
                self._chunks_stream = stream_id
            self._chunks.append(data)
            return
        self._flush_chunks()
        try:
            event = receiver.handle_frame(QuicStreamFrame(data=data, fin=fin, offset=offset))
        except FinalSizeError as error:
            raise QuicConnectionError(
                error_code=QuicErrorCode.FINAL_SIZE_ERROR,
                frame_type=kind,
                reason_phrase=str(error),
            ) from error
        check_gaps(stream, kind)
        if event is not None:
            self._events.append(event)


def _flow_control_error(kind: int, reason: str) -> QuicConnectionError:
    return QuicConnectionError(
        error_code=QuicErrorCode.FLOW_CONTROL_ERROR, frame_type=kind, reason_phrase=reason
    )


def _covers(ranges: list[tuple[int, int]], older: list[tuple[int, int]]) -> bool:
    """Whether ranges of an ACK are those of an older one but for a newest one that has grown."""
    (start, stop), (older_start, older_stop) = ranges[-1], older[-1]
    return start <= older_start and stop >= older_stop and ranges[:-1] == older[:-1]
