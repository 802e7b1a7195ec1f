"""The short receive path: 1-RTT packets of ACKs and stream data, without aioquic's parser.

A short header packet on the path in use, under the keys in use, is opened and read here; frames
other than ACK, STREAM and PADDING, and packets that are unusual in any way, go to aioquic.
"""

from __future__ import annotations

from typing import Any

from aioquic import tls
from aioquic.quic.connection import (
    QuicConnectionError,
    QuicConnectionState,
    QuicReceiveContext,
)
from aioquic.quic.events import QuicEvent, StreamDataReceived
from aioquic.quic.packet import QuicErrorCode, QuicStreamFrame, decode_packet_number
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import FinalSizeError, QuicStream, StreamFinishedError
from cryptography.exceptions import InvalidTag

from quicedge.config.limits import CONNECTION_ID_LENGTH, MAX_ACK_RANGES
from quicedge.quic.adapter.sending import SendingConnection
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
        self._chunks_stream = -1

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """Handle one datagram of this connection; `addr` is an opaque network path."""
        if (
            data[0] & 0x80
            or not self._handshake_confirmed
            or self._state is not QuicConnectionState.CONNECTED
            or self._close_pending
            or self._quic_logger is not None
            or len(data) < _MIN_PACKET
            or data[1:_PN_AT] != self.host_cid
            or addr != self._network_paths[0].addr
            or not self._network_paths[0].is_validated
            or not self._receive_short(data, now)
        ):
            self._flush_chunks()
            super().receive_datagram(data, addr, now)

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

    def _receive_short(self, data: bytes, now: float) -> bool:
        """Handle a packet; False when it is one for the general path, which starts afresh."""
        recv = self._cryptos[ONE_RTT].recv
        if recv.hp is None or recv.aead is None:
            return False
        mask = recv.hp._mask(data[_SAMPLE_AT:_MIN_PACKET])
        first = data[0] ^ (mask[0] & 0x1F)
        # Reserved bits or another key phase: an error or a key update (RFC 9001 section 6).
        if first & 0x18 or (first >> 2) & 1 != recv.key_phase:
            return False
        pn_end = _PN_AT + (first & 0x03) + 1
        pn_length = pn_end - _PN_AT
        truncated = int.from_bytes(data[_PN_AT:pn_end], "big") ^ int.from_bytes(
            mask[1 : 1 + pn_length], "big"
        )
        space = self._spaces[ONE_RTT]
        number = decode_packet_number(truncated, 8 * pn_length, space.expected_packet_number)
        header = bytes((first,)) + data[1:_PN_AT] + truncated.to_bytes(pn_length, "big")
        aead = recv.aead
        try:
            payload = aead._aead.decrypt(
                (aead._iv ^ number).to_bytes(12, "big"), data[pn_end:], header
            )
        except InvalidTag:
            return False
        self.bytes_received += len(data)
        # RFC 9000 section 12.3: a receiver MUST discard a newly unprotected packet unless it is
        # certain that it has not processed another packet with the same packet number.
        if number in space.received_packets:
            self.datagrams_dropped += 1
            return True
        if number >= space.expected_packet_number:
            space.expected_packet_number = number + 1
            self._spin_bit = bool(first & 0x20)
        try:
            eliciting = self._read_frames(payload, now)
        except QuicConnectionError as error:
            self.close(
                error_code=error.error_code,
                frame_type=error.frame_type,
                reason_phrase=error.reason_phrase,
            )
            return True
        if self._state is not QuicConnectionState.CONNECTED or self._close_pending:
            return True
        self._close_at = now + self._idle_timeout()
        self._ack_eliciting_sent_since_receipt = False
        self._record_received(space, number, eliciting, now)
        return True

    def _record_received(
        self, space: QuicPacketSpace, number: int, eliciting: bool, now: float
    ) -> None:
        if number > space.largest_received_packet:
            space.largest_received_packet = number
            space.largest_received_time = now
        space.ack_queue.add(number)
        space.received_packets.add(number)
        if len(space.ack_queue) > MAX_ACK_RANGES:
            space.ack_queue.shift()
        if eliciting and space.ack_at is None:
            space.ack_at = now + self._ack_delay

    def _read_frames(self, payload: bytes, now: float) -> bool:
        """Handle the frames of a packet; returns whether it elicits an ACK."""
        self.packets_received += 1
        if self.received_ecn:
            self._count_mark(self._spaces[ONE_RTT])
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
                    self.received_ecn = 0  # it is counted
                    rest, _ = self._payload_received(self._context(now), payload[at:])
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
            quic_logger_frames=None,
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
        self._check_acked(ranges[-1][1] - 1, kind)
        space = self._spaces[ONE_RTT]
        largest = space.largest_acked_packet
        self._loss.on_ack_ranges(
            ranges,
            ack_delay=(delay << self._remote_ack_delay_exponent) / 1e6,
            now=now,
            space=space,
        )
        self._heed_marks(space, counts, largest, now)
        return at

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
        if stream is None or not self._stream_can_receive(stream_id):
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
        if event is not None:
            self._events.append(event)


def _flow_control_error(kind: int, reason: str) -> QuicConnectionError:
    return QuicConnectionError(
        error_code=QuicErrorCode.FLOW_CONTROL_ERROR, frame_type=kind, reason_phrase=reason
    )
