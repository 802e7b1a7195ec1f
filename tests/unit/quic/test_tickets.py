"""Session tickets: any worker resumes what any other began, for a while, for the same site."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from aioquic.tls import SessionTicket
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import TICKET_LIFETIME
from quicedge.quic.packet import VERSION_1, VERSION_2
from quicedge.quic.tickets import Session, Tickets
from quicedge.quic.tls import CertificateStore
from tests.support.certs import make_certificate
from tests.support.quicpair import SECRET
from tests.support.world import NOW, World, is_connected

SESSION = Session(VERSION_1, 0x1301, b"r" * 32, "localhost", "h3", 7, NOW)


def issued(world: World, **options: Any) -> SessionTicket:
    """The ticket that a first connection to the world leaves behind."""
    client = world.client(**options)
    world.talk(client)
    assert is_connected(client)
    ticket = client.last_ticket  # type: ignore[attr-defined]
    assert ticket is not None
    return ticket


def resumes(world: World, ticket: SessionTicket, now: float = NOW, **options: Any) -> bool:
    """Whether a client that offers the ticket is connected, and by it."""
    client = world.client(session_ticket=ticket, **options)
    world.talk(client, now=now)
    assert is_connected(client)
    return client.tls.session_resumed


def test_a_ticket_is_good_at_another_worker() -> None:
    ticket = issued(World())
    other = World()
    assert resumes(other, ticket)


def test_a_resumed_connection_gets_a_ticket_of_its_own() -> None:
    world = World()
    first = issued(world)
    second = issued(world, session_ticket=first)
    assert second.ticket != first.ticket
    assert resumes(World(), second)


def test_a_ticket_outlives_a_change_of_certificates() -> None:
    world = World()
    ticket = issued(world)
    world.endpoint.certificates = CertificateStore([make_certificate("localhost")])
    assert resumes(world, ticket)


def test_another_hosts_ticket_costs_a_full_handshake_and_no_more() -> None:
    ticket = issued(World())
    assert not resumes(World(secret=b"another" * 5), ticket)


def test_a_ticket_ends_with_its_lifetime() -> None:
    world = World()
    ticket = issued(world)
    assert resumes(World(), ticket, now=NOW + TICKET_LIFETIME - 1)
    assert not resumes(World(), ticket, now=NOW + TICKET_LIFETIME + 1)


def test_a_ticket_of_another_name_does_not_resume() -> None:
    world = World(CertificateStore([make_certificate("localhost", "other.example")]))
    moved = replace(issued(world), server_name="other.example")
    assert not resumes(world, moved, server_name="other.example")


def test_a_ticket_of_another_protocol_does_not_resume() -> None:
    world = World()
    assert not resumes(world, issued(world), alpn_protocols=["h3"])


def test_a_ticket_of_another_version_does_not_resume() -> None:
    world = World()
    assert not resumes(world, issued(world), supported_versions=[VERSION_2])


def test_tickets_carry_no_early_data_unless_configured() -> None:
    assert issued(World()).max_early_data_size is None


@pytest.mark.parametrize(
    ("later", "good"),
    [(0, True), (TICKET_LIFETIME, True), (TICKET_LIFETIME + 1, False), (-1, False), (1e6, False)],
)
def test_a_sealed_session_opens_for_its_lifetime(later: float, good: bool) -> None:
    ticket = Tickets(SECRET).seal(SESSION, NOW)
    opened = Tickets(SECRET).open(ticket, NOW + later)
    assert opened == (SESSION if good else None)


@given(st.binary(max_size=300))
def test_garbage_opens_nothing(ticket: bytes) -> None:
    assert Tickets(SECRET).open(ticket, NOW) is None


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_one_changed_byte_opens_nothing(at: int, change: int) -> None:
    ticket = bytearray(Tickets(SECRET).seal(SESSION, NOW))
    ticket[at % len(ticket)] ^= change
    assert Tickets(SECRET).open(bytes(ticket), NOW) is None
