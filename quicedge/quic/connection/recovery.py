"""Loss detection and congestion control of one connection (RFC 9002).

Report packets sent (`on_sent`, `on_run_sent`) before any ACK frame of them (`on_ack`), and call
`handle_timeout` at `timeout`; the delivery callbacks of frames are called with the outcome. Times
are in seconds, sizes in bytes. RTT, congestion window and pacer belong to a path (`use_path`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quicedge.config.limits import BASE_DATAGRAM_SIZE, MTU_BLACK_HOLE_FLIGHTS, PTO_PROBES
from quicedge.quic.congestion import CongestionController
from quicedge.quic.connection.sent_packets import RunLog, SentPacket
from quicedge.quic.connection.spaces import PacketSpace
from quicedge.quic.frames import Epoch
from quicedge.quic.losses import LostPackets
from quicedge.quic.pacer import Pacer
from quicedge.quic.rtt import GRANULARITY, RttEstimator
from quicedge.quic.selectiveloss import SelectiveLoss

PACKET_THRESHOLD = 3
"""kPacketThreshold (RFC 9002 section 6.1.1)."""
TIME_THRESHOLD = 9 / 8
"""kTimeThreshold (RFC 9002 section 6.1.2)."""
PERSISTENT_CONGESTION_THRESHOLD = 3
"""kPersistentCongestionThreshold (RFC 9002 section 7.6.1)."""

ONE_RTT = Epoch.ONE_RTT


class Recovery:
    """RTT, loss detection, probes and the congestion window.

    Invariant: `bytes_in_flight` is the size of all in-flight packets recorded and not yet settled;
    each packet is settled once, as acknowledged, lost or discarded.
    """

    __slots__ = (
        "_lost", "_on_stream_data", "_round_delivered", "app_limited", "bytes_in_flight",
        "bytes_lost", "controller", "delivered", "delivered_time", "delivery_rate",
        "handshake_confirmed", "is_held", "large_datagrams", "max_ack_delay",
        "newest_acked_sent_time", "newly_acked", "newly_lost", "on_packets_lost", "pacer",
        "packets_lost", "packets_spuriously_lost", "path_since", "peer_validated_us", "pto_count",
        "pto_total", "rtt", "runs", "spaces", "unsettled",
    )  # fmt: skip

    def __init__(
        self,
        *,
        controller: CongestionController,
        initial_rtt: float,
        max_datagram_size: int,
        peer_validated_us: bool,
        on_stream_data: Callable[[bool, Any, int, int, bool], None],
    ) -> None:
        """`peer_validated_us`: whether the peer has validated our address; always true for servers.
        `on_stream_data` is called with outcome, stream, offsets and end when a run is settled."""
        self.controller = controller
        self.rtt = RttEstimator(initial_rtt)
        self.pacer = Pacer(max_datagram_size)
        self.path_since = 0.0
        """Packets sent earlier used another path and give no RTT sample for this one."""
        self.runs = RunLog()
        self.bytes_in_flight = 0
        self.handshake_confirmed = False
        self.max_ack_delay = 0.025
        self.peer_validated_us = peer_validated_us
        self.pto_count = 0
        self.spaces: list[PacketSpace] = []
        self.app_limited = True
        """Whether the sender last stopped for lack of data, not of window."""
        self.is_held = False
        """Whether the sender, when it last stopped, left data that only waits for room in the
        window: ACK frames that make room may then wait to be applied."""
        self.unsettled = 0
        """Upper bound on the bytes acknowledged by an ACK frame that waits to be applied: they are
        still part of `bytes_in_flight`."""

        self.newly_acked: list[tuple[int, int]] = []
        """Packets newly acknowledged by the last ACK frame, `stop` exclusive."""
        self.newest_acked_sent_time = 0.0
        self.newly_lost: list[tuple[Epoch, int, int, float]] = []
        """In-flight packets lost since the last `take_newly_lost`."""
        self.large_datagrams = SelectiveLoss(MTU_BLACK_HOLE_FLIGHTS)
        """Losses of datagrams above the base size, without PMTU probes."""
        self.packets_lost = 0
        self.bytes_lost = 0
        self.packets_spuriously_lost = 0
        """1-RTT packets declared lost and acknowledged later."""
        self.on_packets_lost: Callable[[Epoch, list[tuple[int, int]], int], None] | None = None
        """Called on each loss with epoch, runs of packet numbers and largest acknowledged."""
        self.pto_total = 0
        self.delivered = 0
        """Total bytes acknowledged."""
        self.delivered_time = 0.0
        self.delivery_rate: float | None = None
        """Latest sample that was not application-limited, in bytes per second."""

        self._on_stream_data = on_stream_data
        self._lost = LostPackets()
        self._round_delivered = 0

    # --- output ---------------------------------------------------------------------------------

    @property
    def congestion_window(self) -> int:
        return self.controller.congestion_window

    def probe_timeout(self) -> float:
        """The PTO of 1-RTT packets, without backoff (RFC 9002 section 6.2.1)."""
        return self.rtt.probe_timeout(self.max_ack_delay)

    def timeout(self, *, amplification_limited: bool) -> float | None:
        """When `handle_timeout` is due, or None (RFC 9002 appendix A.8)."""
        if self.handshake_confirmed and len(self.spaces) == 1:
            # The same as below, in fewer steps: this runs at every wake-up.
            space = self.spaces[0]
            if space.loss_time is not None or amplification_limited:
                return space.loss_time
            if not (space.eliciting_in_flight or self.runs):
                return None
            timeout = self.rtt.probe_timeout(self.max_ack_delay)
            return space.last_eliciting_sent + timeout * (1 << self.pto_count)
        earliest = None
        for space in self.spaces:
            at = space.loss_time
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        # RFC 9002 section 6.2.2.1: a server at its anti-amplification limit does not arm the PTO.
        if earliest is not None or amplification_limited:
            return earliest
        found = self._pto()
        return None if found is None else found[0]

    def _pto(self) -> tuple[float, PacketSpace] | None:
        found: tuple[float, PacketSpace] | None = None
        backoff = 1 << self.pto_count
        for space in self.spaces:
            delay = 0.0
            waiting = bool(space.eliciting_in_flight)
            if space.epoch is ONE_RTT:
                # Section 6.2.1: not until the handshake is confirmed.
                if not self.handshake_confirmed:
                    continue
                delay = self.max_ack_delay
                waiting = waiting or bool(self.runs)
            if waiting:
                at = space.last_eliciting_sent + self.rtt.probe_timeout(delay) * backoff
                if found is None or at < found[0]:
                    found = at, space
        if found is None and not self.peer_validated_us and self.spaces:
            # Section 6.2.2.1: the server may be blocked until it receives more from us.
            space = self.spaces[0]
            at = max(space.last_eliciting_sent for space in self.spaces)
            found = at + self.rtt.probe_timeout(0.0) * backoff, space
        return found

    # --- packets sent ---------------------------------------------------------------------------

    def on_sent(self, packet: SentPacket, space: PacketSpace) -> None:
        """Record a packet sent."""
        space.sent[packet.number] = packet
        if packet.ack_eliciting:
            space.eliciting_in_flight += 1
            space.last_eliciting_sent = packet.sent_time
        if packet.in_flight:
            self.bytes_in_flight += packet.size
            self.pacer.on_sent(packet.size)

    def on_run_sent(self, nbytes: int, now: float, space: PacketSpace) -> None:
        """Account for packets appended to `runs`, `nbytes` on the wire."""
        space.last_eliciting_sent = now
        self.bytes_in_flight += nbytes
        self.pacer.on_sent(nbytes)

    def discard(self, space: PacketSpace) -> None:
        """Forget a space whose keys are gone (RFC 9002 section 6.4)."""
        for packet in space.sent.values():
            if packet.in_flight:
                self.bytes_in_flight -= packet.size
        space.sent.clear()
        if space.epoch is ONE_RTT:
            self.bytes_in_flight -= self.runs.clear()
        space.ack_at = None
        space.eliciting_in_flight = space.probes = 0
        space.loss_time = None
        self.pto_count = 0
        if space in self.spaces:
            self.spaces.remove(space)

    def resend_all(self, space: PacketSpace) -> None:
        """Retransmit everything sent in a space, as the peer cannot have processed it."""
        for packet in list(space.sent.values()):
            self._take(packet, space)
            for delivery, args in packet.deliveries:
                delivery(False, *args)

    # --- the timer ------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        """The loss timer or the PTO fired."""
        earliest = self._earliest_loss_time()
        if earliest is not None:
            self._detect_loss(earliest[1], now)
            return
        found = self._pto()
        if found is not None:
            self.pto_count += 1
            self.pto_total += 1
            self.probe(found[1])

    def probe(self, space: PacketSpace) -> None:
        """Repeat the oldest packets of a space, beyond the window (RFC 9002 section 6.2.4).

        They count as in flight still: nothing was lost that anybody knows of.
        """
        space.probes = PTO_PROBES
        left = PTO_PROBES
        if space.epoch is not ONE_RTT:
            # Repeat all handshake data: it is short, and both ends wait for it.
            left = len(space.sent)
        while left and self._repeat_oldest(space):
            left -= 1

    def _repeat_oldest(self, space: PacketSpace) -> bool:
        oldest = next(
            (p for p in space.sent.values() if p.ack_eliciting and p.deliveries and not p.resent),
            None,
        )
        found = self.runs.oldest_unrepeated() if space.epoch is ONE_RTT else None
        if found is not None and (oldest is None or found < oldest.number):
            self._on_stream_data(False, *self.runs.repeat_oldest())
            return True
        if oldest is None:
            return False
        oldest.resent = True
        for delivery, args in oldest.deliveries:
            delivery(False, *args)
        return True

    # --- acknowledgments ------------------------------------------------------------------------

    def on_ack(
        self, ranges: list[tuple[int, int]], ack_delay: float, now: float, space: PacketSpace
    ) -> None:
        """Settle newly acknowledged packets (RFC 9002 appendix A.7).

        `ranges`: packet numbers, ascending and disjoint, `stop` exclusive; `ack_delay`: as
        reported by the peer.
        """
        largest = ranges[-1][1] - 1
        if largest > space.largest_acked:
            space.largest_acked = largest
        is_application = space.epoch is ONE_RTT
        if self._lost and is_application:
            self.packets_spuriously_lost += self._lost.acknowledged(ranges)
        in_flight = self.bytes_in_flight
        newest = -1
        newest_sent = 0.0
        newly_acked = self.newly_acked = []
        acked_bytes = 0
        eliciting = large = False
        sampled: tuple[float, int, float, bool] | None = None

        for packet in _within(space.sent, ranges) if space.sent else ():
            self._take(packet, space)
            eliciting |= packet.ack_eliciting
            large |= packet.size > BASE_DATAGRAM_SIZE
            if packet.in_flight:
                acked_bytes += packet.size
                sampled = (
                    packet.sent_time, packet.delivered, packet.delivered_time, packet.app_limited
                )  # fmt: skip
            newest, newest_sent = packet.number, packet.sent_time
            newly_acked.append((newest, newest + 1))
            for delivery, args in packet.deliveries:
                delivery(True, *args)
        if is_application and (settled := self.runs.acknowledge(ranges)) is not None:
            spans, pieces, nbytes, largest_size = settled[:4]
            eliciting = True
            large |= largest_size > BASE_DATAGRAM_SIZE
            self.bytes_in_flight -= nbytes
            acked_bytes += nbytes
            newly_acked += spans
            last = spans[-1][1] - 1
            if last > newest:
                sampled = settled[4:]
                newest, newest_sent = last, sampled[0]
            for stream, start, stop, fin in pieces:
                self._on_stream_data(True, stream, start, stop, fin)
        if newest < 0:
            return
        if large and self.large_datagrams.flights:
            self.large_datagrams.on_acked()
        self.newest_acked_sent_time = newest_sent
        controller, rtt = self.controller, self.rtt
        self.delivered += acked_bytes
        self.delivered_time = now
        rate = latest_rtt = None
        round_ended = app_limited = False
        if sampled is not None:
            sent_time, delivered, delivered_time, app_limited = sampled
            elapsed = now - (delivered_time if delivered_time > sent_time else sent_time)
            if elapsed > 0:
                rate = (self.delivered - delivered) / elapsed
                if not app_limited or self.delivery_rate is None or rate > self.delivery_rate:
                    self.delivery_rate = rate
            round_ended = delivered >= self._round_delivered
        if newest == largest and eliciting and newest_sent >= self.path_since:
            most = self.max_ack_delay
            rtt.update(now - newest_sent, ack_delay if ack_delay < most else most, now)
            latest_rtt = rtt.latest
            if round_ended:
                self._round_delivered = self.delivered
        controller.on_sample(latest_rtt, round_ended, rate, app_limited)
        oldest = self.runs.oldest if is_application else None
        if space.sent or (oldest is not None and oldest <= space.largest_acked):
            self._detect_loss(space, now)
        else:
            space.loss_time = None  # nothing was sent before what is acknowledged
        if acked_bytes:
            controller.in_flight = self.bytes_in_flight
            limited = not self.app_limited or self._fills_window(in_flight)
            controller.on_acked(acked_bytes, newest_sent, now, rtt.smoothed, limited)
            self._set_pace()
        # RFC 9002 section 6.2.1: not until the server is known to have validated the address.
        if self.peer_validated_us:
            self.pto_count = 0

    def take_newly_lost(self) -> list[tuple[Epoch, int, int, float]]:
        """Remove and return lost packets as (epoch, first, stop, sent time).

        PMTU probes are not included, as their loss only indicates their size.
        """
        lost, self.newly_lost = self.newly_lost, []
        return lost

    def on_ecn_ce(self, *, sent_time: float, now: float) -> None:
        """The peer saw packets marked CE, the newest sent at `sent_time` (RFC 9002 section B.7)."""
        self.controller.on_congestion(sent_time=sent_time, now=now)
        self._set_pace()

    def use_path(
        self, rtt: RttEstimator, controller: CongestionController, pacer: Pacer, now: float
    ) -> None:
        """Packets take another path from now on (RFC 9000 section 9.4)."""
        self.rtt, self.controller, self.pacer = rtt, controller, pacer
        self.path_since = now
        # Losses of packets sent on the old path must not reduce the window of this one.
        controller.recovery_start = now
        self.large_datagrams.reset()
        self.pto_count = 0

    def use_datagram_size(self, size: int) -> None:
        """Set the size of full datagrams."""
        self.controller.max_datagram_size = size
        self.pacer.datagram_size = size

    def _take(self, packet: SentPacket, space: PacketSpace) -> None:
        del space.sent[packet.number]
        if packet.ack_eliciting:
            space.eliciting_in_flight -= 1
        if packet.in_flight:
            self.bytes_in_flight -= packet.size

    def _fills_window(self, in_flight: int) -> bool:
        """Whether so much in flight is use of the window (RFC 9002 section 7.8)."""
        window = self.controller.congestion_window
        return in_flight * 2 > window if self.controller.in_slow_start else in_flight >= window

    def _set_pace(self) -> None:
        rtt, controller = self.rtt, self.controller
        if rtt.initialized:
            rate = controller.pacing_rate
            if rate is not None:
                self.pacer.pace(rate, controller.congestion_window)
                return
            self.pacer.set_rate(
                controller.congestion_window, rtt.smoothed, slow_start=controller.in_slow_start
            )

    # --- losses ---------------------------------------------------------------------------------

    def _earliest_loss_time(self) -> tuple[float, PacketSpace] | None:
        found = None
        for space in self.spaces:
            if space.loss_time is not None and (found is None or space.loss_time < found[0]):
                found = space.loss_time, space
        return found

    def _detect_loss(self, space: PacketSpace, now: float) -> None:
        """Declare packets lost by reordering or by time (RFC 9002 section 6.1)."""
        largest = space.largest_acked
        space.loss_time = None
        delay = TIME_THRESHOLD * max(self.rtt.latest, self.rtt.smoothed, GRANULARITY)
        if not self.rtt.initialized:
            delay = TIME_THRESHOLD * self.rtt.initial
        threshold = largest - PACKET_THRESHOLD
        lost_before = self.bytes_lost
        lost: list[tuple[int, int, float, bool]] = []  # first, stop, sent time, in flight
        large_sent: list[float] = []  # send times of datagrams above the base size

        packets = []
        for number, packet in space.sent.items():
            if number > largest:
                break
            # Compare the same sum as the timer: a difference may round the other way for ever.
            due = packet.sent_time + delay
            if number <= threshold or due <= now:
                packets.append(packet)
            elif space.loss_time is None or due < space.loss_time:
                space.loss_time = due
        for packet in packets:
            self._take(packet, space)
            number = packet.number
            lost.append((number, number + 1, packet.sent_time, packet.in_flight))
            if packet.in_flight and packet.size > BASE_DATAGRAM_SIZE:
                large_sent.append(packet.sent_time)
            self.packets_lost += 1
            self.bytes_lost += packet.size
            if not packet.resent:
                for delivery, args in packet.deliveries:
                    delivery(False, *args)
        if space.epoch is ONE_RTT and self.runs:
            lost += self._lose_runs(space, now, delay, large_sent)
        if not lost:
            return
        if packets:
            lost.sort()  # into the order of their numbers
        self._note_lost(space, [run[:2] for run in lost])
        on_path = [
            (space.epoch, first, stop, sent)
            for first, stop, sent, in_flight in lost
            if in_flight and sent >= self.path_since
        ]
        if on_path:
            self.newly_lost += on_path
            if large_sent:
                self.large_datagrams.on_lost(max(large_sent), now)
            self.controller.on_lost(self.bytes_lost - lost_before)
            self.controller.on_congestion(sent_time=max(run[3] for run in on_path), now=now)
            if len(lost) > 1 and self._is_persistent(lost):
                self.controller.on_persistent_congestion()
            self._set_pace()

    def _note_lost(self, space: PacketSpace, runs: list[tuple[int, int]]) -> None:
        if space.epoch is ONE_RTT:
            for first, stop in runs:
                self._lost.add(first, stop)
        if self.on_packets_lost is not None:
            self.on_packets_lost(space.epoch, runs, space.largest_acked)

    def _lose_runs(
        self, space: PacketSpace, now: float, delay: float, large_sent: list[float]
    ) -> list[tuple[int, int, float, bool]]:
        largest = space.largest_acked
        due, found = self.runs.lose(largest, largest - PACKET_THRESHOLD, delay, now)
        if due is not None and (space.loss_time is None or due < space.loss_time):
            space.loss_time = due
        lost = []
        for first, stop, sent_time, nbytes, largest_size, piece in found:
            self.bytes_in_flight -= nbytes
            self.bytes_lost += nbytes
            self.packets_lost += stop - first
            lost.append((first, stop, sent_time, True))
            if largest_size > BASE_DATAGRAM_SIZE:
                large_sent.append(sent_time)
            if piece is not None:
                self._on_stream_data(False, *piece)
        return lost

    def _is_persistent(self, lost: list[tuple[int, int, float, bool]]) -> bool:
        """Whether losses, in the order of their numbers, span persistent congestion (RFC 9002
        section 7.6.2).

        A gap in packet numbers may be an acknowledged packet and ends the period.
        """
        if not self.rtt.initialized:
            return False
        duration = self.probe_timeout() * PERSISTENT_CONGESTION_THRESHOLD
        start: float | None = None
        previous_stop = -1
        for first, stop, sent, in_flight in lost:
            if first != previous_stop:
                start = None
            previous_stop = stop
            if in_flight and sent > self.rtt.first_sample_time:
                if start is None:
                    start = sent
                elif sent - start > duration:
                    return True
        return False


def _within(sent: dict[int, SentPacket], ranges: list[tuple[int, int]]) -> list[SentPacket]:
    """The packets in the ranges. Iterates over sent packets, as the peer chooses the number of
    ranges."""
    found: list[SentPacket] = []
    index = 0
    for number, packet in sent.items():
        while index < len(ranges) and ranges[index][1] <= number:
            index += 1
        if index == len(ranges):
            break
        if number >= ranges[index][0]:
            found.append(packet)
    return found
