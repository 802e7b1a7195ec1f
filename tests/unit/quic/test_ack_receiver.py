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
from quicedge.quic.frames import Epoch, FrameType
from quicedge.quic.ranges import Ranges, covers

SENT = 10


class FakeRecovery:
    """Records the calls it gets."""

    newly_acked: tuple[tuple[int, int], ...] = ()
    newly_lost = ()
    newest_acked_sent_time = 4.0

    def __init__(self) -> None:
        self.peer_validated_us = False
        self.acked: list[tuple[list[tuple[int, int]], float, float]] = []
        self.congestion: list[float] = []

    def on_ack(
        self, ranges: list[tuple[int, int]], delay: float, now: float, space: PacketSpace
    ) -> None:
        self.acked.append((ranges, delay, now))

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
        self, *ranges: tuple[int, int], epoch: Epoch = Epoch.ONE_RTT, delay: int = 0
    ) -> None:
        self.receiver.receive((FrameType.ACK, list(ranges), delay, None), self.spaces[epoch], 5.0)

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
