"""Loss detection and the probe timeout, packet by packet (RFC 9002)."""

from __future__ import annotations

import pytest

from quicedge.quic.congestion import make_controller
from quicedge.quic.connection.recovery import Recovery
from quicedge.quic.connection.sent_packets import SentPacket
from quicedge.quic.connection.spaces import PacketSpace
from quicedge.quic.frames import Epoch

RTT = 0.1
PTO_FIRST = 2 * RTT
SIZE = 1200


class Sender:
    """Recovery with its three spaces, and what it said of each packet."""

    def __init__(self, *, peer_validated_us: bool = True) -> None:
        self.recovery = Recovery(
            controller=make_controller("cubic", SIZE),
            initial_rtt=RTT,
            max_datagram_size=SIZE,
            peer_validated_us=peer_validated_us,
            on_stream_data=lambda *_: None,
        )
        self.spaces = {
            epoch: PacketSpace(epoch) for epoch in (Epoch.INITIAL, Epoch.HANDSHAKE, Epoch.ONE_RTT)
        }
        self.recovery.spaces = list(self.spaces.values())
        self.fates: dict[int, list[bool]] = {}

    def send(self, now: float, epoch: Epoch = Epoch.ONE_RTT, *, eliciting: bool = True) -> int:
        space = self.spaces[epoch]
        number = space.next_number
        space.next_number += 1
        self.recovery.on_sent(
            SentPacket(
                number,
                SIZE,
                now,
                ack_eliciting=eliciting,
                in_flight=eliciting,
                deliveries=[(self._on_delivery, (number,))],
                delivered=0,
                delivered_time=now,
                app_limited=False,
            ),
            space,
        )
        return number

    def _on_delivery(self, delivered: bool, number: int) -> None:
        self.fates.setdefault(number, []).append(delivered)

    def acknowledge(
        self, *numbers: int, now: float, epoch: Epoch = Epoch.ONE_RTT, delay: float = 0.0
    ) -> None:
        ranges = [(number, number + 1) for number in sorted(numbers)]
        self.recovery.on_ack(ranges, delay, now, self.spaces[epoch])

    def timeout(self, *, amplification_limited: bool = False) -> float | None:
        return self.recovery.timeout(amplification_limited=amplification_limited)


def confirmed() -> Sender:
    sender = Sender()
    sender.recovery.handshake_confirmed = True
    return sender


def with_sample(now: float = 1.0) -> Sender:
    """A sender whose first packet came back after one RTT."""
    sender = confirmed()
    sender.send(now)
    sender.acknowledge(0, now=now + RTT)
    return sender


def test_nothing_is_armed_without_an_eliciting_packet() -> None:
    sender = confirmed()
    assert sender.timeout() is None
    sender.send(1.0, eliciting=False)
    assert sender.timeout() is None
    assert sender.recovery.bytes_in_flight == 0


def test_the_first_probe_timeout_is_twice_the_initial_rtt_and_doubles() -> None:
    sender = confirmed()
    sender.send(1.0)
    assert sender.timeout() == pytest.approx(1.0 + PTO_FIRST)
    sender.recovery.handle_timeout(1.0 + PTO_FIRST)
    assert sender.timeout() == pytest.approx(1.0 + 2 * PTO_FIRST)
    assert sender.spaces[Epoch.ONE_RTT].probes == 2
    assert sender.fates == {0: [False]}  # sent again, and in flight still
    assert sender.recovery.bytes_in_flight == SIZE
    assert sender.recovery.packets_lost == 0


def test_a_probe_timeout_after_a_sample_has_variance_and_the_peers_delay() -> None:
    sender = with_sample()
    sender.send(2.0)
    assert sender.timeout() == pytest.approx(2.0 + RTT + 4 * (RTT / 2) + 0.025)
    sender.acknowledge(1, now=2.0 + RTT)
    assert sender.timeout() is None


def test_one_rtt_packets_arm_no_probe_before_the_handshake_is_confirmed() -> None:
    sender = Sender()
    sender.send(1.0)
    assert sender.timeout() is None
    sender.send(1.5, Epoch.HANDSHAKE)
    assert sender.timeout() == pytest.approx(1.5 + PTO_FIRST)
    sender.recovery.handle_timeout(1.5 + PTO_FIRST)
    assert sender.spaces[Epoch.HANDSHAKE].probes == 2
    assert sender.spaces[Epoch.ONE_RTT].probes == 0


def test_a_server_at_its_amplification_limit_arms_no_probe() -> None:
    sender = Sender()
    sender.send(1.0, Epoch.INITIAL)
    assert sender.timeout(amplification_limited=True) is None
    assert sender.timeout() is not None


def test_a_client_probes_although_nothing_is_in_flight_until_the_server_knows_it() -> None:
    # RFC 9002 section 6.2.2.1: the server may wait for bytes to be allowed to answer.
    sender = Sender(peer_validated_us=False)
    sender.send(1.0, Epoch.INITIAL)
    sender.acknowledge(0, now=1.0 + RTT, epoch=Epoch.INITIAL)
    at = sender.timeout()
    assert at is not None
    sender.recovery.handle_timeout(at)
    assert sender.recovery.spaces[0].probes == 2
    assert sender.recovery.pto_count == 1
    sender.recovery.peer_validated_us = True
    assert sender.timeout() is None


def test_the_backoff_of_a_client_stays_until_the_server_knows_it() -> None:
    sender = Sender(peer_validated_us=False)
    sender.send(1.0, Epoch.INITIAL)
    sender.recovery.handle_timeout(1.0 + PTO_FIRST)
    number = sender.send(1.0 + PTO_FIRST, Epoch.INITIAL)
    sender.acknowledge(number, now=1.5, epoch=Epoch.INITIAL)
    assert sender.recovery.pto_count == 1


def test_three_newer_packets_acknowledged_make_one_lost() -> None:
    sender = with_sample()
    lost, *_, newest = [sender.send(2.0) for _ in range(4)]
    sender.acknowledge(newest - 1, now=2.0 + RTT)
    assert lost not in sender.fates
    sender.acknowledge(newest, now=2.0 + RTT)
    assert sender.fates[lost] == [False]
    assert sender.recovery.packets_lost == 1


def test_an_older_packet_is_lost_after_nine_eighths_of_the_rtt() -> None:
    sender = with_sample()
    older, newer = sender.send(2.0), sender.send(2.01)
    sender.acknowledge(newer, now=2.01 + RTT)
    at = sender.timeout()
    assert at == pytest.approx(2.0 + 9 / 8 * RTT)
    assert older not in sender.fates
    sender.recovery.handle_timeout(at)
    assert sender.fates[older] == [False]
    assert sender.recovery.pto_count == 0
    assert sender.recovery.bytes_in_flight == 0


def test_a_loss_of_what_a_probe_repeated_is_reported_once() -> None:
    sender = with_sample()
    first = sender.send(2.0)
    at = sender.timeout()
    assert at is not None
    sender.recovery.handle_timeout(at)
    newest = [sender.send(at) for _ in range(3)][-1]
    sender.acknowledge(newest, now=at + RTT)
    assert sender.fates[first] == [False]


def test_a_packet_that_was_declared_lost_in_error_is_counted() -> None:
    sender = with_sample()
    first, *_, newest = [sender.send(2.0) for _ in range(4)]
    sender.acknowledge(newest, now=2.0 + RTT)
    sender.acknowledge(first, newest, now=2.1 + RTT)
    assert sender.recovery.packets_spuriously_lost == 1


def test_losses_over_more_than_three_probe_timeouts_collapse_the_window() -> None:
    sender = with_sample()
    period = 3 * sender.recovery.probe_timeout()
    sender.send(2.0)
    sender.send(2.0 + period + 0.1)
    newest = sender.send(2.0 + period + 0.3)
    sender.acknowledge(newest, now=2.0 + period + 0.3 + RTT)
    assert sender.recovery.packets_lost == 2
    # The minimum, and what this ACK adds in slow start.
    assert sender.recovery.congestion_window == 2 * SIZE + SIZE


def test_a_delivery_in_between_is_no_persistent_congestion() -> None:
    sender = with_sample()
    period = 3 * sender.recovery.probe_timeout()
    sender.send(2.0)
    between = sender.send(2.0 + period / 2)
    sender.send(2.0 + period + 0.1)
    newest = sender.send(2.0 + period + 0.3)
    sender.acknowledge(between, newest, now=2.0 + period + 0.3 + RTT)
    assert sender.recovery.packets_lost == 2
    assert sender.recovery.congestion_window > 5 * SIZE


def test_a_space_that_is_discarded_leaves_nothing_in_flight_nor_armed() -> None:
    sender = Sender()
    sender.send(1.0, Epoch.INITIAL)
    sender.recovery.handle_timeout(1.0 + PTO_FIRST)
    sender.recovery.discard(sender.spaces[Epoch.INITIAL])
    assert sender.recovery.bytes_in_flight == 0
    assert sender.recovery.pto_count == 0
    assert sender.timeout() is None


def test_the_peers_ack_delay_counts_up_to_what_it_declared() -> None:
    sender = with_sample()
    number = sender.send(2.0)
    sender.acknowledge(number, now=2.0 + 2 * RTT, delay=5.0)
    # RFC 9002 section 5.3: at most max_ack_delay (25 ms) is taken off the sample.
    expected = RTT + (2 * RTT - 0.025 - RTT) / 8
    assert sender.recovery.rtt.smoothed == pytest.approx(expected)
    assert sender.recovery.rtt.latest == pytest.approx(2 * RTT)


def test_no_sample_is_taken_of_a_packet_that_is_not_the_newest_acknowledged() -> None:
    sender = with_sample()
    older, newer = sender.send(2.0), sender.send(2.0)
    sender.acknowledge(newer, now=2.0 + RTT)
    sender.acknowledge(older, newer, now=2.0 + 1.1 * RTT)
    assert sender.recovery.rtt.latest == pytest.approx(RTT)
