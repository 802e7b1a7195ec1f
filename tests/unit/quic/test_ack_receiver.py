"""ACK frames of the peer: which are refused, which wait, and what they are passed on to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.quic.connection.acks import AckReceiver
from quicedge.quic.connection.spaces import NumberSkipper, PacketSpace
from quicedge.quic.connection.stats import ConnectionCounters
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.frames import Counts, Epoch, FrameType
from quicedge.quic.ranges import Ranges, covers

SENT = 10


class FakeRecovery:
    """Records the calls it gets."""

    newly_acked: tuple[tuple[int, int], ...] = ()
    newly_lost = ()
    newest_acked_sent_time = 4.0

    def __init__(self) -> None:
        self.peer_validated_us = False
        self.is_held = False
        self.pto_count = self.unsettled = 0
        self.controller = SimpleNamespace(in_slow_start=False, max_datagram_size=1200)
        self.acked: list[tuple[list[tuple[int, int]], float, float]] = []
        self.congestion: list[float] = []

    def on_ack(
        self, ranges: list[tuple[int, int]], delay: float, now: float, space: PacketSpace
    ) -> None:
        self.acked.append((ranges, delay, now))
        space.largest_acked = max(space.largest_acked, ranges[-1][1] - 1)

    def on_ecn_ce(self, *, sent_time: float, now: float) -> None:
        self.congestion.append(sent_time)


class FakeEcn:
    """Reports one more packet marked CE for each ACK frame."""

    def on_ack(self, *_: object) -> int:
        return 1


class Acks:
    """An AckReceiver between fakes, with SENT packets sent in each space."""

    def __init__(self) -> None:
        self.recovery = FakeRecovery()
        self.skipper = NumberSkipper(bytes)
        self.counters = ConnectionCounters()
        self.acked_by_phase: list[list[tuple[int, int]]] = []
        phases = SimpleNamespace(on_acked=self.acked_by_phase.append)
        self.receiver = AckReceiver(
            recovery=cast(Any, self.recovery),
            paths=cast(Any, SimpleNamespace(known=[SimpleNamespace(ecn=FakeEcn())])),
            handshake=cast(Any, SimpleNamespace(phases=phases)),
            skipper=self.skipper,
            counters=self.counters,
        )
        self.spaces = {epoch: PacketSpace(epoch) for epoch in Epoch}
        for space in self.spaces.values():
            space.next_number = SENT

    def receive(
        self,
        *ranges: tuple[int, int],
        epoch: Epoch = Epoch.ONE_RTT,
        delay: int = 0,
        ecn: Counts | None = None,
        now: float = 5.0,
    ) -> None:
        frame = FrameType.ACK, list(ranges), delay, ecn
        self.receiver.receive(frame, self.spaces[epoch], now)

    @property
    def passed_on(self) -> list[list[tuple[int, int]]]:
        return [ranges for ranges, _, _ in self.recovery.acked]


def test_an_ack_of_a_number_never_sent_is_refused() -> None:
    acks = Acks()
    acks.receive((0, SENT))
    with pytest.raises(TransportError) as error:
        acks.receive((0, SENT + 1))
    assert error.value.code == ErrorCode.PROTOCOL_VIOLATION


def test_an_ack_of_a_skipped_number_is_refused() -> None:
    acks = Acks()
    acks.skipper.skipped.append(4)
    acks.receive((0, 4), (5, SENT))
    acks.receive((0, SENT), epoch=Epoch.HANDSHAKE)  # numbers are skipped in 1-RTT packets alone
    with pytest.raises(TransportError):
        acks.receive((0, SENT))


@pytest.mark.parametrize("later", [[(0, 2), (4, 8)], [(0, 2), (4, 5), (7, 8)], [(0, 3), (4, 8)]])
def test_acks_that_say_more_replace_the_one_that_is_held(later: list[tuple[int, int]]) -> None:
    acks = Acks()
    acks.receive((0, 2), (4, 5))
    acks.receive(*later)
    assert acks.passed_on == []
    acks.receiver.settle()
    assert acks.passed_on == [later]
    assert acks.acked_by_phase == [later]
    acks.receiver.settle()
    assert len(acks.passed_on) == 1


@pytest.mark.parametrize("later", [[(1, 2), (4, 8)], [(5, 8)], [(0, 2), (5, 8)]])
def test_an_ack_that_says_other_lets_the_held_one_through(later: list[tuple[int, int]]) -> None:
    acks = Acks()
    acks.receive((0, 2), (4, 5))
    acks.receive(*later)
    assert acks.passed_on == [[(0, 2), (4, 5)]]
    acks.receiver.settle()
    assert acks.passed_on[1:] == [later]


def test_handshake_acks_are_acted_upon_at_once_and_prove_the_address() -> None:
    acks = Acks()
    acks.receive((0, 1), epoch=Epoch.INITIAL)
    assert not acks.recovery.peer_validated_us
    acks.receive((0, 2), epoch=Epoch.HANDSHAKE)
    assert acks.recovery.peer_validated_us
    assert acks.passed_on == [[(0, 1)], [(0, 2)]]
    assert acks.acked_by_phase == []


def test_the_delay_is_scaled_by_the_exponent_of_the_peer() -> None:
    acks = Acks()
    acks.receiver.exponent = 10
    acks.receive((0, 1), delay=2000)
    acks.receiver.settle()
    assert acks.recovery.acked[0][1:] == (pytest.approx(2.048), 5.0)


def test_marks_that_the_peer_reports_are_a_congestion_event() -> None:
    acks = Acks()
    acks.receive((0, 1))
    acks.receiver.settle()
    assert acks.recovery.congestion == [FakeRecovery.newest_acked_sent_time]
    assert acks.counters.ecn_ce_reported == 1


def held(*applied: tuple[int, int]) -> Acks:
    """Data waits for room since this ACK, sent with ECN counts, was applied."""
    acks = Acks()
    acks.receive(*applied, ecn=(4, 0, 1))
    acks.receiver.settle_or_wait()
    assert acks.passed_on == [list(applied)]
    acks.recovery.is_held = True
    return acks


def test_while_data_waits_for_room_acks_that_make_room_are_applied_as_one() -> None:
    acks = held((0, 4))
    for number, now in ((6, 5.1), (7, 5.2), (9, 5.3)):
        acks.receive((0, number), ecn=(number, 0, 1), now=now)
        acks.receiver.settle_or_wait()
        assert acks.recovery.unsettled == (number - 4) * 1200
    assert len(acks.passed_on) == 1
    acks.receiver.settle()
    # Once, and as of the time when it was received.
    assert acks.recovery.acked[1:] == [([(0, 9)], 0.0, 5.3)]
    assert acks.recovery.unsettled == 0
    acks.receiver.settle()
    assert len(acks.passed_on) == 2


@pytest.mark.parametrize(
    "later", [[(0, 7)], [(2, 7)], [(4, 9)], [(0, 4)]], ids=["more", "less old", "only new", "same"]
)
def test_an_ack_of_nothing_but_later_packets_waits(later: list[tuple[int, int]]) -> None:
    acks = held((0, 4))
    acks.receive(*later, ecn=(7, 0, 1))
    acks.receiver.settle_or_wait()
    assert len(acks.passed_on) == 1


@pytest.mark.parametrize(
    "later", [[(0, 4), (5, 9)], [(5, 9)], [(0, 3)]], ids=["a gap", "behind a gap", "an older one"]
)
def test_an_ack_that_may_show_a_loss_is_applied_at_once(later: list[tuple[int, int]]) -> None:
    acks = held((0, 4))
    acks.receive(*later, ecn=(7, 0, 1))
    acks.receiver.settle_or_wait()
    assert acks.passed_on[1:] == [later]


def test_an_ack_that_fills_a_gap_is_applied_at_once() -> None:
    acks = held((0, 2), (3, 5))
    acks.receive((0, 2), (3, 7), ecn=(7, 0, 1))
    acks.receiver.settle_or_wait()
    assert len(acks.passed_on) == 1
    acks.receive((0, 7), ecn=(7, 0, 1))
    acks.receiver.settle_or_wait()
    assert acks.passed_on[1:] == [[(0, 7)]]


@pytest.mark.parametrize("ecn", [(7, 0, 2), None], ids=["congestion", "no counts"])
def test_an_ack_with_other_marks_is_applied_at_once(ecn: Counts | None) -> None:
    acks = held((0, 4))
    acks.receive((0, 7), ecn=ecn)
    acks.receiver.settle_or_wait()
    assert len(acks.passed_on) == 2


def test_an_ack_that_anything_else_waits_for_is_applied_at_once() -> None:
    def not_held(acks: Acks) -> None:
        acks.recovery.is_held = False

    def slow_start(acks: Acks) -> None:
        acks.recovery.controller.in_slow_start = True

    def loss_timer(acks: Acks) -> None:
        acks.spaces[Epoch.ONE_RTT].loss_time = 6.0

    def single_packet(acks: Acks) -> None:
        acks.spaces[Epoch.ONE_RTT].sent[8] = cast(Any, object())

    def probe(acks: Acks) -> None:
        acks.recovery.pto_count = 1

    for change in (not_held, slow_start, loss_timer, single_packet, probe):
        acks = held((0, 4))
        change(acks)
        acks.receive((0, 7), ecn=(7, 0, 1))
        acks.receiver.settle_or_wait()
        assert len(acks.passed_on) == 2, change.__name__


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12),
    st.lists(st.integers(0, 40), min_size=1, max_size=30),
)
def test_a_frame_covers_another_when_it_acknowledges_all_of_it(
    older: list[int], newer: list[int]
) -> None:
    def ranges(numbers: list[int]) -> list[tuple[int, int]]:
        found = Ranges()
        for number in numbers:
            found.add(number, number + 1)
        return list(found)

    assert covers(ranges(newer), ranges(older)) is (set(older) <= set(newer))
    assert covers(ranges(newer + older), ranges(older))
