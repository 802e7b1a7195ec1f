"""Tickets and tokens of a fleet: keys that an operator gives, a clock that hosts have in common."""

from __future__ import annotations

from pathlib import Path

import pytest
from aioquic.tls import SessionTicket
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import (
    FLEET_CLOCK_SKEW,
    FLEET_KEYS,
    NEW_TOKEN_LIFETIME,
    RETRY_TOKEN_LIFETIME,
    TICKET_LIFETIME,
)
from quicedge.quic.anti_replay import EarlyDataUse
from quicedge.quic.packet import VERSION_1
from quicedge.quic.ticket_keys import SharedKeyError, read_shared_keys
from quicedge.quic.tickets import Session, Tickets, ticket_id
from quicedge.quic.token_sealer import NONCE_LENGTH, FleetKeys, KeyringSealer
from quicedge.quic.tokens import TokenKeys
from tests.support.world import NOW, World, first_flight, is_connected

OLD, NEW = b"o" * 32, b"n" * 32
WALL = 1.8e9
CLOCKS = (WALL - NOW, WALL - 70.0)
"""Offsets of two hosts, one that was started 70 seconds ago."""


def host(*keys: bytes, offset: float = CLOCKS[0], secret: bytes = b"a" * 32) -> World:
    world = World(secret=secret, early_data=b"terms")
    world.endpoint.use_keys(FleetKeys(keys, lambda: offset))
    return world


def ticket_of(world: World) -> SessionTicket:
    client = world.client()
    world.talk(client)
    assert is_connected(client)
    ticket = client.last_ticket  # type: ignore[attr-defined]
    assert ticket is not None
    return ticket


def resumes(world: World, ticket: SessionTicket, now: float = NOW) -> bool:
    client = world.client(session_ticket=ticket)
    world.talk(client, now=now)
    assert is_connected(client)
    return client.tls.session_resumed


def test_a_ticket_is_good_at_another_host_whose_clock_runs_from_its_own_start() -> None:
    ticket = ticket_of(host(OLD))
    other = host(OLD, offset=CLOCKS[1], secret=b"b" * 32)
    assert resumes(other, ticket, now=71.0)
    assert not resumes(World(), ticket)


def test_rotation_costs_no_resumption_until_a_key_is_gone() -> None:
    old, new = ticket_of(host(OLD)), ticket_of(host(NEW, OLD))
    assert resumes(host(OLD, NEW), new), "a host that knows the new key and does not use it yet"
    assert resumes(host(NEW, OLD), old)
    assert not resumes(host(NEW), old)
    assert resumes(host(NEW), new)


@pytest.mark.parametrize(
    ("later", "good"),
    [
        (-FLEET_CLOCK_SKEW - 1, False),
        (-FLEET_CLOCK_SKEW + 1, True),
        (TICKET_LIFETIME - 1, True),
        (TICKET_LIFETIME + 1, False),
    ],
)
def test_every_host_knows_the_age_of_a_ticket(later: float, good: bool) -> None:
    session = Session(VERSION_1, 0x1301, b"r" * 32, "localhost", "h3", 7, NOW)
    here, there = (Tickets(b"", FleetKeys([OLD], lambda o=offset: o)) for offset in CLOCKS)
    opened = there.open(here.seal(session, NOW), 70.0 + later)
    assert (opened is not None) == good
    if opened is not None:
        assert opened.issued_at == pytest.approx(70.0, abs=1e-3), "by the clock of this host"


@pytest.mark.parametrize(("later", "good"), [(-4, True), (-6, False), (1, True)])
def test_tokens_are_good_at_every_host(later: float, good: bool) -> None:
    here, there = (TokenKeys(b"", FleetKeys([OLD], lambda o=offset: o)) for offset in CLOCKS)
    address = ("192.0.2.1", 4433)
    retry = here.seal_retry(address, b"original", b"retryscid", NOW)
    opened = there.open_retry(retry, address, b"retryscid", 70.0 + later)
    assert (opened is not None) == good
    assert there.open_retry(retry, address, b"retryscid", 71.0 + RETRY_TOKEN_LIFETIME) is None
    assert there.open_retry(retry, ("192.0.2.2", 4433), b"retryscid", 71.0) is None
    token = here.seal_new("192.0.2.1", VERSION_1, NOW)
    assert there.open_new(token, "192.0.2.1", VERSION_1, 70.0 + later) == good
    assert not there.open_new(token, "192.0.2.1", VERSION_1, 71.0 + NEW_TOKEN_LIFETIME)


def test_what_is_sealed_for_one_use_opens_for_no_other() -> None:
    sealed = KeyringSealer([OLD], purpose=b"one").seal(b"plain", b"", NOW)
    assert KeyringSealer([OLD], purpose=b"one").open(sealed, b"", NOW) == b"plain"
    assert KeyringSealer([OLD], purpose=b"two").open(sealed, b"", NOW) is None


@given(st.binary(max_size=80), st.integers(0), st.integers(1, 255))
def test_nothing_but_what_was_sealed_opens(garbage: bytes, at: int, change: int) -> None:
    # So many keys that names clash.
    sealer = KeyringSealer([bytes([n]) * 32 for n in range(FLEET_KEYS)], purpose=b"one")
    assert sealer.open(garbage, b"", NOW) is None
    sealed = bytearray(sealer.seal(b"plain", b"bound", NOW))
    assert sealer.open(bytes(sealed), b"bound", NOW) == b"plain"
    assert sealer.open(bytes(sealed), b"else", NOW) is None
    sealed[at % len(sealed)] ^= change
    assert sealer.open(bytes(sealed), b"bound", NOW) is None


def test_keys_of_one_name_are_all_tried() -> None:
    name = KeyringSealer([OLD], purpose=b"p").seal(b"", b"", NOW)[0]
    twin = next(
        key
        for key in (n.to_bytes(32, "big") for n in range(100_000))
        if KeyringSealer([key], purpose=b"p").seal(b"", b"", NOW)[0] == name
    )
    sealed = KeyringSealer([OLD], purpose=b"p").seal(b"plain", b"", NOW)
    assert KeyringSealer([twin, OLD], purpose=b"p").open(sealed, b"", NOW) == b"plain"


def test_early_data_under_a_register_in_common_says_what_must_be_asked() -> None:
    here, there = host(OLD), host(OLD, offset=CLOCKS[1], secret=b"b" * 32)
    for world in (here, there):
        world.endpoint.early_data_guard.register = b"register"
    ticket = ticket_of(here)
    client = there.client(session_ticket=ticket)
    client.send_stream_data(0, b"request", end_stream=True)
    there.receive(*first_flight(client), now=71.0)
    (connection,) = there.endpoint.half_open
    assert connection.handshake.early_data_accepted
    assert connection.handshake.early_data_use == EarlyDataUse(
        b"register", ticket_id(ticket.ticket)
    )
    assert len(ticket_id(ticket.ticket)) == NONCE_LENGTH


def test_a_register_that_is_not_known_takes_no_early_data() -> None:
    world = host(OLD)
    world.endpoint.early_data_guard.register = None
    assert ticket_of(world).max_early_data_size is None


# --- the file ---------------------------------------------------------------------------------


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_file_of_keys(tmp_path: Path) -> None:
    text = f"# since Monday\n{OLD.hex()}\n\n  {NEW.hex().upper()}  # before\n"
    shared = read_shared_keys(write(tmp_path / "keys", text))
    assert shared.keys == [OLD, NEW]
    assert OLD.hex() not in repr(shared)
    assert repr(OLD) not in repr(shared)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_keys_that_others_can_read_are_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "keys", OLD.hex(), mode)
    with pytest.raises(SharedKeyError, match=f"keys: mode {mode:o}"):
        read_shared_keys(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has 0 keys"),
        ("# nothing\n", "has 0 keys"),
        (f"{OLD.hex()}\n{NEW.hex()[1:]}", "line 2: is not 64"),
        (f"{OLD.hex()}\n{NEW.hex()}x", "line 2: is not 64"),
        (f"{NEW.hex()[:60]}    \n", "line 1: is not 64"),
        (f"{OLD.hex()}\n{OLD.hex()}", "line 2: duplicate key"),
        ("\n".join(bytes([n]).hex() * 32 for n in range(FLEET_KEYS + 1)), "has 17 keys"),
        ("\u00fc", "is not text"),
    ],
)
def test_a_file_that_is_no_file_of_keys(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SharedKeyError) as caught:
        read_shared_keys(write(tmp_path / "keys", text))
    assert problem in str(caught.value)
    assert "6e6e6e6e" not in str(caught.value), "half a key is a secret too"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SharedKeyError, match="No such file"):
        read_shared_keys(tmp_path / "keys")
