"""0-RTT data: taken once a ticket, by the process that issued it, or not at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamDataReceived
from aioquic.tls import SessionTicket
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import EARLY_DATA_AGE_TOLERANCE, EARLY_DATA_LIFETIME
from quicedge.quic.anti_replay import EarlyDataGuard, StrikeRegister, stated_age
from quicedge.quic.packet import VERSION_1
from quicedge.quic.tickets import Session
from tests.support.world import CLIENT, NOW, Path, World, first_flight, is_connected

TERMS = b"limits"
ATTACKER = Path(("203.0.113.66", 4000))


def ticket_of(world: World) -> SessionTicket:
    client = world.client()
    world.talk(client)
    assert is_connected(client)
    ticket = client.last_ticket  # type: ignore[attr-defined]
    world.handlers.clear()
    return ticket


def early_client(world: World, ticket: SessionTicket) -> QuicConnection:
    """A client whose request goes with its first flight."""
    client = world.client(session_ticket=ticket)
    client.send_stream_data(0, b"request", end_stream=True)
    return client


def delivered(world: World) -> list[bytes]:
    """Stream data that reached each handler, in the order of connections."""
    return [
        b"".join(event.data for event in handler.events if isinstance(event, StreamDataReceived))
        for handler in world.handlers
    ]


def test_early_data_is_delivered_before_the_handshake_is_complete() -> None:
    world = World(early_data=TERMS)
    client = early_client(world, ticket_of(world))
    answers = world.receive(*first_flight(client))
    assert delivered(world) == [b"request"]
    (connection,) = world.endpoint.half_open
    assert connection.handshake.early_data_accepted
    assert not connection.handshake_complete
    assert connection.validated_path is None
    for data in answers:
        client.receive_datagram(data, ("server", 443), NOW)
    world.talk(client)
    assert client.tls.early_data_accepted
    assert connection.handshake_complete
    assert connection.validated_path == CLIENT
    assert delivered(world) == [b"request"]


def test_a_replayed_first_flight_delivers_nothing() -> None:
    world = World(early_data=TERMS)
    flight = first_flight(early_client(world, ticket_of(world)))
    world.receive(*flight)
    (original,) = world.endpoint.half_open
    world.endpoint._forget(original)  # else the copy would be a duplicate of its packets
    world.receive(*flight, path=ATTACKER)
    assert delivered(world) == [b"request", b""]
    (replayed,) = world.endpoint.half_open
    assert replayed.validated_path is None


def test_a_first_flight_replayed_at_another_worker_delivers_nothing() -> None:
    world, other = World(early_data=TERMS), World(early_data=TERMS)
    flight = first_flight(early_client(world, ticket_of(world)))
    other.receive(*flight, path=ATTACKER)
    assert delivered(other) == [b""]


@pytest.mark.parametrize("refusal", ["another worker", "off", "other terms", "used", "too old"])
def test_refused_early_data_comes_again_after_the_handshake(refusal: str) -> None:
    world = World(early_data=TERMS)
    ticket = ticket_of(world)
    target, now = world, NOW
    if refusal == "another worker":
        target = World(early_data=TERMS)
    elif refusal == "off":
        world.endpoint.settings.early_data_terms = None
    elif refusal == "other terms":
        world.endpoint.settings.early_data_terms = b"other limits"
    elif refusal == "used":
        world.receive(*first_flight(early_client(world, ticket)), path=Path(("192.0.2.9", 9)))
        world.handlers.clear()
    else:
        now += EARLY_DATA_LIFETIME + 1
        age = timedelta(seconds=EARLY_DATA_LIFETIME + 1)
        ticket = replace(ticket, not_valid_before=ticket.not_valid_before - age)
    client = early_client(target, ticket)
    target.receive(*first_flight(client), now=now)
    assert delivered(target) == [b""]
    client = early_client(target, ticket)
    target.handlers.clear()
    for _ in range(6):
        target.talk(client, path=Path(("192.0.2.10", 10)), now=now, rounds=1)
        now += 0.5
        client.handle_timer(now)  # the client misses acknowledgments of its 0-RTT packets
    assert is_connected(client)
    assert client.tls.session_resumed
    assert not client.tls.early_data_accepted
    assert delivered(target) == [b"request"]


def test_a_forged_binder_does_not_use_up_the_ticket() -> None:
    world = World(early_data=TERMS)
    ticket = ticket_of(world)
    forged = replace(ticket, resumption_secret=bytes(len(ticket.resumption_secret)))
    world.talk(early_client(world, forged), path=ATTACKER)
    world.handlers.clear()
    world.receive(*first_flight(early_client(world, ticket)))
    assert delivered(world) == [b"request"]


@pytest.mark.parametrize(
    ("age", "stated", "good"),
    [
        (5.0, 5.0, True),
        (5.0, 5.0 + EARLY_DATA_AGE_TOLERANCE - 0.1, True),
        (5.0, 5.0 + EARLY_DATA_AGE_TOLERANCE + 0.1, False),
        (60.0, 60.0 - EARLY_DATA_AGE_TOLERANCE - 0.1, False),
        (EARLY_DATA_LIFETIME + 1, EARLY_DATA_LIFETIME + 1, False),
    ],
)
def test_the_age_that_the_client_states(age: float, stated: float, good: bool) -> None:
    guard = EarlyDataGuard()
    stamp = guard.stamp(TERMS)
    session = Session(VERSION_1, 0x1301, b"r", None, None, 7, NOW, stamp)
    assert guard.admit(session, b"t" * 40, stated, stamp, NOW + age) == good


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_the_age_survives_its_disguise(milliseconds: int, age_add: int) -> None:
    assert stated_age((milliseconds + age_add) % 2**32, age_add) == milliseconds / 1000


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 15, allow_nan=False)), max_size=40))
def test_a_key_is_used_once_a_window_and_memory_is_bounded(steps: list[tuple[int, float]]) -> None:
    register = StrikeRegister(window=10.0, capacity=3)
    used: dict[int, float] = {}
    now = 0.0
    for key, wait in steps:
        now += wait
        if register.strike(bytes((key,)), now):
            assert now - used.get(key, -100.0) >= 10.0
            used[key] = now
        assert max(len(register._current), len(register._previous)) <= 3
