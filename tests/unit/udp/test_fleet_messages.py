"""Messages between hosts: opened once, while fresh, and only with the secret of the fleet."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import (
    FLEET_CLOCK_SKEW,
    FLEET_REPLAY_WINDOW,
    FLEET_SENDERS_REMEMBERED,
)
from quicedge.udp.fleet_messages import FleetOpener, FleetSealer, Forward, Kind, Probe

SECRET = b"s" * 32
LENGTH = 12
ROUTING = b"\xff" + b"r" * (LENGTH - 1)
NOW = 1_000_000.0


def opener(now: float = NOW) -> FleetOpener:
    return FleetOpener(SECRET, LENGTH, lambda: now)


def probe(sealer: FleetSealer, at: float = NOW) -> bytes:
    return sealer.seal(Kind.PROBE, ROUTING, Probe(at, b"challenge"))


def test_a_forwarded_datagram_arrives_as_it_was_with_its_client() -> None:
    body = Forward(
        NOW, 0, b"\1\2", 1, "2001:db8::1", 443, ("fe80::1%2", 999, 0, 2), b"datagram" * 180
    )
    message = FleetSealer(SECRET).seal(Kind.FORWARD, ROUTING, body)
    assert opener().open(message) == body
    assert message[1 : 1 + LENGTH] == ROUTING, "readable by the kernel's program"
    assert message[0] < 0x40, "no QUIC packet"


def test_each_message_opens_once() -> None:
    sealer, receiver = FleetSealer(SECRET), opener()
    messages = [probe(sealer) for _ in range(20)]
    for message in [*messages[::2], *messages[1::2]]:  # overtaking each other
        assert receiver.open(message) is not None
        assert receiver.open(message) is None
    assert not any(map(receiver.open, messages))


@given(st.permutations(range(12)))
def test_messages_that_overtake_each_other_all_arrive(order: list[int]) -> None:
    sealer, receiver = FleetSealer(SECRET), opener()
    messages = [probe(sealer) for _ in order]
    assert all(receiver.open(messages[number]) is not None for number in order)


def test_a_message_older_than_the_window_is_refused() -> None:
    sealer, receiver = FleetSealer(SECRET), opener()
    old, *later = (probe(sealer) for _ in range(FLEET_REPLAY_WINDOW + 1))
    assert receiver.open(later[-1]) is not None
    assert receiver.open(old) is None
    assert receiver.open(later[0]) is not None


@pytest.mark.parametrize("late", [-FLEET_CLOCK_SKEW - 1, FLEET_CLOCK_SKEW + 1])
def test_a_message_of_another_time_is_refused(late: float) -> None:
    message = probe(FleetSealer(SECRET))
    assert opener(NOW + late).open(message) is None
    assert opener(NOW + late / 2).open(message) is not None


def test_damaged_foreign_and_foolish_messages_are_refused() -> None:
    message = probe(FleetSealer(SECRET))
    receiver = opener()
    for at in range(len(message)):
        damaged = message[:at] + bytes((message[at] ^ 1,)) + message[at + 1 :]
        assert receiver.open(damaged) is None, at
        assert receiver.open(message[:at] or b"\0") is None
    assert receiver.open(probe(FleetSealer(b"t" * 32))) is None
    wrong = FleetSealer(SECRET).seal(Kind.FORWARD, ROUTING, Probe(NOW, b""))
    assert receiver.open(wrong) is None
    assert receiver.open(message) is not None


def test_processes_never_share_a_nonce() -> None:
    one, other = probe(FleetSealer(SECRET)), probe(FleetSealer(SECRET))
    name = slice(1 + LENGTH, 1 + LENGTH + 8)
    assert one[name] != other[name]
    assert one[-40:] != other[-40:]


def test_senders_are_forgotten_beyond_a_bound_and_strangers_take_no_room() -> None:
    receiver = opener()
    for _ in range(50):
        assert receiver.open(probe(FleetSealer(b"t" * 32))) is None
    assert not receiver._senders
    for _ in range(FLEET_SENDERS_REMEMBERED + 5):
        receiver.open(probe(FleetSealer(SECRET)))
    assert len(receiver._senders) == FLEET_SENDERS_REMEMBERED


GOOD = Forward(NOW, 0, b"\1", 1, "192.0.2.1", 443, ("192.0.2.7", 999), b"datagram")


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "edge.example"},
        {"host": "2001:db8::1"},
        {"host": "192.0.2.1\0"},
        {"remote": ("client.example", 999)},
        {"remote": ("192.0.2.7",)},
        {"remote": ()},
        {"remote": (1, 2)},
        {"remote": ("192.0.2.7", "999")},
        {"remote": ("192.0.2.7", 0)},
        {"remote": ("192.0.2.7", 65536)},
        {"remote": ("192.0.2.7", 1, 2, 3)},
        {"remote": ("192.0.2.7", 1 << 33)},
        {"remote": ("2001:db8::1", 1)},
        {"ecn": 4},
        {"time": float("nan")},
    ],
)
def test_what_no_socket_would_take_is_refused(changes: dict[str, Any]) -> None:
    sealer, receiver = FleetSealer(SECRET), opener()
    assert receiver.open(sealer.seal(Kind.FORWARD, ROUTING, GOOD)) == GOOD
    bad = msgspec.structs.replace(GOOD, **changes)
    assert receiver.open(sealer.seal(Kind.FORWARD, ROUTING, bad)) is None
