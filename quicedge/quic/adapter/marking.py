"""ECN on aioquic's connection: marks counted, reported in ACKs, validated, and heeded."""

from __future__ import annotations

from typing import Any

from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.quic.connection import QuicNetworkPath, QuicReceiveContext
from aioquic.quic.packet import QuicFrameType, pull_ack_frame
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace

from quicedge.quic.adapter.acked import AckCheckingConnection
from quicedge.quic.ecn import Counts, EcnMarks, EcnValidation
from quicedge.quic.frames import encode_ack


class MarkingConnection(AckCheckingConnection):
    """See the module."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.ecn = EcnValidation()
        self.ecn_marks = EcnMarks()
        self.received_ecn = 0
        """Codepoint of the datagram about to be received; set it before each."""
        self.sending_ecn = 0
        """Codepoint of the datagrams being built."""
        self._ecn_path: QuicNetworkPath | None = None

    # --- marks that come in -------------------------------------------------------------------

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        result = super()._payload_received(context, plain, crypto_frame_required)
        if self.received_ecn:
            early = context.epoch is tls.Epoch.ZERO_RTT
            self._count_mark(self._spaces[tls.Epoch.ONE_RTT if early else context.epoch])
        return result

    def _count_mark(self, space: QuicPacketSpace, packets: int = 1) -> None:
        self.ecn_marks.count(space, self.received_ecn, packets)

    def _write_ack_frame(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, now: float
    ) -> None:
        counts = self.ecn_marks.counts(space)
        if counts is None:
            super()._write_ack_frame(builder, space, now)
            return
        delay = int((now - (space.largest_received_time or now)) * 1e6)
        frame, ranges = encode_ack(
            space.ack_queue,
            delay >> self._local_ack_delay_exponent,
            builder.remaining_buffer_space,
            counts,
        )
        buf = builder.start_frame(
            QuicFrameType.ACK_ECN,
            capacity=len(frame),
            handler=self._on_ack_delivery,
            handler_args=(space, space.largest_received_packet),
        )
        buf.push_bytes(frame[1:])
        space.ack_at = None
        if ranges > 1 and builder.packet_number % 8 == 0:
            # As aioquic does: else ranges pile up that the peer never confirms.
            self._write_ping_frame(builder, comment="ACK-of-ACK trigger")

    # --- marks that go out --------------------------------------------------------------------

    def _choose_mark(self, now: float) -> None:
        """Decide how the next packets are marked."""
        if self._loss.newly_lost:
            self.ecn.on_lost(self._loss.take_newly_lost(), now)
        path = self._network_paths[0]
        if path is not self._ecn_path:
            if self._ecn_path is not None:
                self.ecn.new_path()
            self._ecn_path = path
        self.sending_ecn = self.ecn.codepoint(self._loss.pto_count)

    def _handle_ack_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        space = self._spaces[context.epoch]
        largest = space.largest_acked_packet
        start = buf.tell()
        super()._handle_ack_frame(context, frame_type, buf)
        counts = None
        if frame_type == QuicFrameType.ACK_ECN:
            end = buf.tell()
            buf.seek(start)
            pull_ack_frame(buf)
            counts = buf.pull_uint_var(), buf.pull_uint_var(), buf.pull_uint_var()
            buf.seek(end)
        self._heed_marks(space, counts, largest, context.time)

    def _heed_marks(
        self, space: QuicPacketSpace, counts: Counts | None, largest_before: int, now: float
    ) -> None:
        """Judge what an ACK frame says of our marks, once it is settled."""
        loss = self._loss
        newly_lost = loss.take_newly_lost()
        advanced = space.largest_acked_packet > largest_before
        # RFC 9002 section 7.1: an increase of CE counts is a congestion event.
        if self.ecn.on_ack(space, counts, loss.newly_acked, advanced):
            loss.on_ecn_ce(sent_time=loss.newest_acked_sent_time, now=now)
        # After the ACK: a mark that it shows to have arrived ends the flight before.
        if newly_lost:
            self.ecn.on_lost(newly_lost, now)
