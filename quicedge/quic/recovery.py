"""Loss detection (RFC 9002) over single packets and batches.

It takes the place of aioquic's `QuicPacketRecovery` and answers to the same calls, so aioquic's
connection drives it; packets of the general path are remembered one by one as there, packets of
the batched path as `Batch` records. Times are seconds, sizes bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketSpace

from quicedge.config.limits import BASE_DATAGRAM_SIZE, MTU_BLACK_HOLE_FLIGHTS
from quicedge.quic.batch import Batch, BatchLog, LonePacket
from quicedge.quic.congestion import CongestionController
from quicedge.quic.losses import LostPackets
from quicedge.quic.pacer import Pacer
from quicedge.quic.rtt import GRANULARITY, RttEstimator
from quicedge.quic.selectiveloss import SelectiveLoss

PROBES_PER_PTO = 2
"""Packets that a PTO sends (RFC 9002 section 6.2.4): the loss of one brings no second PTO."""
PACKET_THRESHOLD = 3
"""kPacketThreshold (RFC 9002 section 6.1.1)."""
TIME_THRESHOLD = 9 / 8
"""kTimeThreshold (RFC 9002 section 6.1.2)."""
PERSISTENT_CONGESTION_THRESHOLD = 3
"""kPersistentCongestionThreshold (RFC 9002 section 7.6.1)."""

log = logging.getLogger("quic")

# aioquic's test suite, which runs against this class, reads these two lines.
_CRYPTO_AGAIN = "Scheduled CRYPTO data of %s packets %s for retransmission"
_DATA_AGAIN = "Scheduled data of %s packet %d for retransmission"

ACKED = QuicDeliveryState.ACKED
LOST = QuicDeliveryState.LOST


class Recovery:
    """RTT, losses, probes and the congestion window of one connection."""

    def __init__(
        self,
        *,
        controller: CongestionController,
        initial_rtt: float,
        max_datagram_size: int,
        peer_completed_address_validation: bool,
        send_probe: Callable[[], None],
    ) -> None:
        self.controller = controller
        self.rtt = RttEstimator(initial_rtt)
        self.pacer = self._pacer = Pacer(max_datagram_size)
        self.batches = BatchLog()
        self.bytes_in_flight = 0
        self.handshake_confirmed = False
        self.max_ack_delay = 0.025
        self.peer_completed_address_validation = peer_completed_address_validation
        self.pto_count = 0
        self.spaces: list[QuicPacketSpace] = []
        self.app_limited = True
        """Whether the sender last stopped for want of data, not of window."""

        self.newly_acked: list[tuple[int, int]] = []
        """Packets that the last ACK frame settled, `stop` exclusive."""
        self.newest_acked_sent_time = 0.0
        self.newly_lost: list[tuple[int, int, float]] = []
        """Packets in flight that were lost since the list was last taken (`take_newly_lost`)."""
        self.large_datagrams = SelectiveLoss(MTU_BLACK_HOLE_FLIGHTS)
        """Fate of datagrams above the size that every path carries; path MTU probes set aside."""
        self._expired: list[tuple[int, float, int]] = []
        """Number, time and size of packets sent again by a PTO, until an ACK tells their fate."""
        self.packets_lost = 0
        self.bytes_lost = 0
        self.packets_spuriously_lost = 0
        """1-RTT packets declared lost and acknowledged after all."""
        self.on_packets_lost: (
            Callable[[QuicPacketSpace, list[tuple[int, int]], int], None] | None
        ) = None
        """Told of each loss: the space, runs of packet numbers, the largest acknowledged."""
        self.pto_total = 0
        self.delivered = 0
        """Bytes acknowledged in all."""
        self.delivered_time = 0.0
        self.delivery_rate: float | None = None
        """Bytes a second, the latest sample that was not application limited."""

        self._send_probe = send_probe
        self._lost = LostPackets()
        self._last_ack_eliciting_sent = 0.0
        self._round_end = 0

    # --- what aioquic's connection asks -------------------------------------------------------

    @property
    def congestion_window(self) -> int:
        return self.controller.congestion_window

    def get_probe_timeout(self, *, include_max_ack_delay: bool = True) -> float:
        """The PTO without backoff (RFC 9002 section 6.2.1)."""
        return self.rtt.probe_timeout(self.max_ack_delay if include_max_ack_delay else 0.0)

    def get_loss_detection_time(self, *, amplification_limited: bool) -> float | None:
        """When `on_loss_detection_timeout` is due, or None (RFC 9002 appendix A.8)."""
        earliest = self._earliest_loss_time()
        if earliest is not None:
            return earliest[0]
        # RFC 9002 section 6.2.2.1: a server at its anti-amplification limit does not arm the PTO.
        if amplification_limited:
            return None
        waiting = any(
            space.ack_eliciting_in_flight
            for space in self.spaces
            if self.handshake_confirmed or not space.is_application_data
        ) or (self.handshake_confirmed and bool(self.batches))
        if waiting or not self.peer_completed_address_validation:
            timeout = self.get_probe_timeout(include_max_ack_delay=self.handshake_confirmed)
            return self._last_ack_eliciting_sent + timeout * 2**self.pto_count
        return None

    def discard_space(self, space: QuicPacketSpace) -> None:
        """Forget a packet number space whose keys are gone (RFC 9002 section 6.4)."""
        for packet in space.sent_packets.values():
            if packet.in_flight:
                self.bytes_in_flight -= packet.sent_bytes
        space.sent_packets.clear()
        if space.is_application_data:
            for batch in self.batches.clear():
                self.bytes_in_flight -= batch.wire_bytes
        space.ack_at = None
        space.ack_eliciting_in_flight = 0
        space.loss_time = None
        self.pto_count = 0

    def on_packet_sent(self, *, packet: QuicSentPacket, space: QuicPacketSpace) -> None:
        """A packet of the general path left."""
        space.sent_packets[packet.packet_number] = packet
        if packet.is_ack_eliciting:
            space.ack_eliciting_in_flight += 1
            # Path MTU probes too, which do not count as in flight: the PTO finds their loss.
            if self.handshake_confirmed or not space.is_application_data:
                self._last_ack_eliciting_sent = _sent_at(packet)
        if packet.in_flight:
            self.bytes_in_flight += packet.sent_bytes

    def on_batch_sent(self, batch: Batch) -> None:
        """A run of packets of the batched path left."""
        self.batches.append(batch)
        nbytes = batch.wire_bytes
        self._last_ack_eliciting_sent = batch.sent_time
        self.bytes_in_flight += nbytes
        self.pacer.on_sent(nbytes)

    def on_loss_detection_timeout(self, *, now: float) -> None:
        """The loss timer or the PTO fired."""
        earliest = self._earliest_loss_time()
        if earliest is not None:
            self._detect_loss(now=now, space=earliest[1])
        else:
            self.pto_count += 1
            self.pto_total += 1
            self.reschedule_data(now=now, packets=PROBES_PER_PTO)

    def reschedule_data(
        self, *, now: float, speed_up_handshake: bool = False, packets: int = 1
    ) -> None:
        """Send something again and ask for a probe (RFC 9002 section 6.2.4).

        CRYPTO data if any is outstanding, else that of the oldest `packets`. They count as expired,
        not as lost: the congestion controller is not told.
        """
        crypto = False
        for space in self.spaces:
            outstanding = [p for p in space.sent_packets.values() if p.is_crypto_packet]
            if outstanding:
                numbers = ", ".join(str(packet.packet_number) for packet in outstanding)
                log.debug(_CRYPTO_AGAIN, outstanding[0].packet_type.name, numbers)
                self._expire(outstanding, space)
                crypto = True
        if not crypto and not speed_up_handshake:
            for _ in range(packets):
                self._expire_oldest()
        self._send_probe()

    def _expire_oldest(self) -> None:
        oldest: tuple[QuicSentPacket, QuicPacketSpace] | None = None
        for space in self.spaces:
            if space.is_application_data and not self.handshake_confirmed:
                continue
            for packet in space.sent_packets.values():
                if packet.is_ack_eliciting:
                    if oldest is None or _sent_at(packet) < _sent_at(oldest[0]):
                        oldest = packet, space
                    break
        first = self.batches.batches[0] if self.batches else None
        if first is not None and (oldest is None or first.sent_time < _sent_at(oldest[0])):
            batch = self.batches.take_first_packet()
            assert batch is not None
            self.bytes_in_flight -= batch.wire_bytes
            self._expired.append((batch.first, batch.sent_time, batch.wire_bytes))
            batch.stream.sender.on_data_delivery(LOST, batch.offset, batch.end, batch.fin)
        elif oldest is not None:
            packet, space = oldest
            log.debug(_DATA_AGAIN, packet.packet_type.name, packet.packet_number)
            if packet.in_flight:
                self._expired.append((packet.packet_number, _sent_at(packet), packet.sent_bytes))
            self._expire([packet], space)

    def _expire(self, packets: Iterable[QuicSentPacket], space: QuicPacketSpace) -> None:
        for packet in packets:
            del space.sent_packets[packet.packet_number]
            self._unflight(packet, space)
            for handler, args in packet.delivery_handlers:
                handler(LOST, *args)

    def _unflight(self, packet: QuicSentPacket, space: QuicPacketSpace) -> None:
        if packet.is_ack_eliciting:
            space.ack_eliciting_in_flight -= 1
        if packet.in_flight:
            self.bytes_in_flight -= packet.sent_bytes

    # --- acknowledgments ----------------------------------------------------------------------

    def on_ack_received(
        self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace
    ) -> None:
        """As `on_ack_ranges`; aioquic's general path calls this one."""
        ranges = [(r.start, r.stop) for r in ack_rangeset]
        self.on_ack_ranges(ranges, ack_delay=ack_delay, now=now, space=space)

    def on_ack_ranges(
        self,
        ranges: list[tuple[int, int]],
        *,
        ack_delay: float,
        now: float,
        space: QuicPacketSpace,
    ) -> None:
        """Settle what an ACK frame acknowledges (RFC 9002 appendix A.7).

        `ranges` are packet numbers, ascending and disjoint, their `stop` exclusive; `ack_delay`
        is what the peer says it waited.
        """
        largest = ranges[-1][1] - 1
        if largest > space.largest_acked_packet:
            space.largest_acked_packet = largest
        if self._lost and space.is_application_data:
            self.packets_spuriously_lost += self._lost.acknowledged(ranges)
        in_flight = self.bytes_in_flight
        newest = -1
        newest_sent = 0.0
        newly_acked = self.newly_acked = []
        acked_bytes = 0
        eliciting = large = False
        sampled: Batch | LonePacket | None = None

        for packet in _take_packets(space.sent_packets, ranges):
            self._unflight(packet, space)
            eliciting |= packet.is_ack_eliciting
            large |= packet.sent_bytes > BASE_DATAGRAM_SIZE
            if packet.in_flight:
                acked_bytes += packet.sent_bytes
                if isinstance(packet, LonePacket):
                    sampled = packet
            newest, newest_sent = packet.packet_number, _sent_at(packet)
            newly_acked.append((newest, newest + 1))
            for handler, args in packet.delivery_handlers:
                handler(ACKED, *args)
        if space.is_application_data and self.batches:
            taken = self.batches.take(ranges)
            for batch in taken:
                nbytes = batch.wire_bytes
                self.bytes_in_flight -= nbytes
                acked_bytes += nbytes
                large |= batch.largest > BASE_DATAGRAM_SIZE
                newly_acked.append((batch.first, batch.stop))
                batch.stream.sender.on_data_delivery(ACKED, batch.offset, batch.end, batch.fin)
            if taken:
                eliciting = True
                last = taken[-1]
                if last.stop - 1 > newest:
                    newest, newest_sent = last.stop - 1, last.sent_time
                    sampled = last
        if sampled is not None:
            self._sample_delivery_rate(sampled, acked_bytes, now)
        if newest < 0:
            return
        self.newest_acked_sent_time = newest_sent
        if large:
            self.large_datagrams.on_acked()
        if self._expired:
            self._settle_expired(ranges, newest_sent, now)

        self.delivered += acked_bytes
        self.delivered_time = now
        if newest == largest and eliciting:
            self.rtt.update(now - newest_sent, min(ack_delay, self.max_ack_delay), now)
            round_ended = largest >= self._round_end
            if round_ended:
                self._round_end = self._next_packet_number
            self.controller.on_rtt(self.rtt.latest, round_ended=round_ended)
        self._detect_loss(now=now, space=space)
        if acked_bytes:
            self.controller.in_flight = self.bytes_in_flight
            self.controller.on_acked(
                acked_bytes,
                sent_time=newest_sent,
                now=now,
                smoothed_rtt=self.rtt.smoothed,
                limited=self._was_limited(in_flight),
            )
            self._set_pace()
        # RFC 9002 section 6.2.1: not until the server is known to have validated the address.
        if self.peer_completed_address_validation:
            self.pto_count = 0

    def _settle_expired(
        self, ranges: list[tuple[int, int]], newest_sent: float, now: float
    ) -> None:
        """Tell those that look for black holes what became of packets that a PTO sent again."""
        waiting = []
        for number, sent_time, nbytes in self._expired:
            if any(start <= number < stop for start, stop in ranges):
                continue
            if sent_time > newest_sent:
                waiting.append((number, sent_time, nbytes))
                continue
            self.newly_lost.append((number, number + 1, sent_time))
            if nbytes > BASE_DATAGRAM_SIZE:
                self.large_datagrams.on_lost(sent_time, now)
        self._expired = waiting

    def take_newly_lost(self) -> list[tuple[int, int, float]]:
        """First and last packet number (exclusive) and time of what was lost; they are forgotten.

        Path MTU probes are not among them: their loss is a matter of their size.
        """
        lost, self.newly_lost = self.newly_lost, []
        return lost

    def on_ecn_ce(self, *, sent_time: float, now: float) -> None:
        """The peer saw packets marked CE, the newest sent at `sent_time` (RFC 9002 section B.7)."""
        self.controller.on_congestion(sent_time=sent_time, now=now)
        self._set_pace()

    def note_packet_number(self, packet_number: int) -> None:
        """The next packet will have this number: rounds end when it is acknowledged."""
        self._next_packet_number = packet_number

    _next_packet_number = 0

    def _was_limited(self, in_flight: int) -> bool:
        """Whether the window was in use before this acknowledgment (RFC 9002 section 7.8)."""
        if not self.app_limited:
            return True
        window = self.controller.congestion_window
        return in_flight * 2 > window if self.controller.in_slow_start else in_flight >= window

    def _sample_delivery_rate(self, sent: Batch | LonePacket, acked_bytes: int, now: float) -> None:
        elapsed = now - max(sent.delivered_time, sent.sent_time or 0.0)
        if elapsed > 0:
            rate = (self.delivered + acked_bytes - sent.delivered) / elapsed
            if not sent.app_limited or self.delivery_rate is None or rate > self.delivery_rate:
                self.delivery_rate = rate
            self.controller.on_delivery_rate(rate, app_limited=sent.app_limited)

    def _set_pace(self) -> None:
        if self.rtt.initialized:
            rate = self.controller.pacing_rate
            if rate is not None:
                self.pacer.pace(rate, self.controller.congestion_window)
                return
            self.pacer.set_rate(
                self.controller.congestion_window,
                self.rtt.smoothed,
                slow_start=self.controller.in_slow_start,
            )

    # --- losses -------------------------------------------------------------------------------

    def _earliest_loss_time(self) -> tuple[float, QuicPacketSpace] | None:
        found = None
        for space in self.spaces:
            if space.loss_time is not None and (found is None or space.loss_time < found[0]):
                found = space.loss_time, space
        return found

    def _detect_loss(self, *, now: float, space: QuicPacketSpace) -> None:
        """Declare packets lost by reordering or by time (RFC 9002 section 6.1)."""
        delay = TIME_THRESHOLD * max(self.rtt.latest, self.rtt.smoothed, GRANULARITY)
        if not self.rtt.initialized:
            delay = TIME_THRESHOLD * self.rtt.initial
        largest = space.largest_acked_packet
        threshold = largest - PACKET_THRESHOLD
        space.loss_time = None
        lost_before = self.bytes_lost
        lost: list[tuple[int, int, float, bool]] = []  # first, stop, sent time, in flight
        large_sent: list[float] = []  # when datagrams above the base size left

        packets = []
        for number, packet in space.sent_packets.items():
            if number > largest:
                break
            # The sum, as the timer has it: a difference may round the other way, for ever.
            due = _sent_at(packet) + delay
            if number <= threshold or due <= now:
                packets.append(packet)
            elif space.loss_time is None or due < space.loss_time:
                space.loss_time = due
        for packet in packets:
            del space.sent_packets[packet.packet_number]
            self._unflight(packet, space)
            number = packet.packet_number
            lost.append((number, number + 1, _sent_at(packet), packet.in_flight))
            if packet.in_flight and packet.sent_bytes > BASE_DATAGRAM_SIZE:
                large_sent.append(_sent_at(packet))
            self.packets_lost += 1
            self.bytes_lost += packet.sent_bytes
            for handler, args in packet.delivery_handlers:
                handler(LOST, *args)
        if space.is_application_data and self.batches:
            lost += self._lose_batches(space, now, delay, large_sent)
        if lost:
            self._note_lost(space, sorted(run[:2] for run in lost))
        newest = max((sent for _, _, sent, in_flight in lost if in_flight), default=None)
        if newest is not None:
            self.newly_lost += [
                (first, stop, sent) for first, stop, sent, in_flight in lost if in_flight
            ]
            if large_sent:
                self.large_datagrams.on_lost(max(large_sent), now)
            self.controller.on_lost(self.bytes_lost - lost_before)
            self.controller.on_congestion(sent_time=newest, now=now)
            if self._is_persistent(lost):
                self.controller.on_persistent_congestion()
            self._set_pace()

    def _note_lost(self, space: QuicPacketSpace, runs: list[tuple[int, int]]) -> None:
        if space.is_application_data:
            for first, stop in runs:
                self._lost.add(first, stop)
        if self.on_packets_lost is not None:
            self.on_packets_lost(space, runs, space.largest_acked_packet)

    def _lose_batches(
        self, space: QuicPacketSpace, now: float, delay: float, large_sent: list[float]
    ) -> list[tuple[int, int, float, bool]]:
        largest = space.largest_acked_packet
        threshold = largest - PACKET_THRESHOLD
        late: list[tuple[int, int]] = []
        for batch in self.batches.batches:
            if batch.first > largest:
                break
            due = batch.sent_time + delay
            if due <= now:
                late.append((batch.first, min(batch.stop, largest + 1)))
                continue
            if batch.first <= threshold:
                late.append((batch.first, min(batch.stop, threshold + 1)))
            if batch.stop - 1 > threshold and (space.loss_time is None or due < space.loss_time):
                space.loss_time = due
        lost = []
        for batch in self.batches.take(late):
            nbytes = batch.wire_bytes
            self.bytes_in_flight -= nbytes
            self.bytes_lost += nbytes
            self.packets_lost += len(batch)
            lost.append((batch.first, batch.stop, batch.sent_time, True))
            if batch.largest > BASE_DATAGRAM_SIZE:
                large_sent.append(batch.sent_time)
            batch.stream.sender.on_data_delivery(LOST, batch.offset, batch.end, batch.fin)
        return lost

    def _is_persistent(self, lost: list[tuple[int, int, float, bool]]) -> bool:
        """Whether the losses span persistent congestion (RFC 9002 section 7.6.2).

        A gap in packet numbers may be an acknowledged packet and ends the period.
        """
        if not self.rtt.initialized:
            return False
        duration = self.get_probe_timeout() * PERSISTENT_CONGESTION_THRESHOLD
        start: float | None = None
        previous_stop = -1
        for first, stop, sent, in_flight in sorted(lost):
            if first != previous_stop:
                start = None
            previous_stop = stop
            if in_flight and sent > self.rtt.first_sample_time:
                if start is None:
                    start = sent
                elif sent - start > duration:
                    return True
        return False


def _sent_at(packet: QuicSentPacket) -> float:
    assert packet.sent_time is not None  # set before a packet is recorded
    return packet.sent_time


def _take_packets(
    sent: dict[int, QuicSentPacket], ranges: list[tuple[int, int]]
) -> list[QuicSentPacket]:
    """Remove and return the packets in the ranges; the peer chooses how many ranges there are,
    so the walk is over what was sent."""
    taken: list[QuicSentPacket] = []
    index = 0
    for number, packet in sent.items():
        while index < len(ranges) and ranges[index][1] <= number:
            index += 1
        if index == len(ranges):
            break
        if number >= ranges[index][0]:
            taken.append(packet)
    for packet in taken:
        del sent[packet.packet_number]
    return taken
