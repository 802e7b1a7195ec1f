"""NEW_TOKEN tokens: a client that was here lately need not prove its address again."""

from __future__ import annotations

from math import inf

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from hypothesis import example, given
from hypothesis import strategies as st

from quicedge.config.limits import NEW_TOKEN_LIFETIME
from quicedge.quic.packet import VERSION_1, VERSION_2
from quicedge.quic.tokens import TokenKeys
from tests.support.quicpair import SECRET
from tests.support.world import NOW, Path, World, first_flight, is_connected

HOME = Path(("192.0.2.7", 40000))
HOME_OTHER_PORT = Path(("192.0.2.7", 51234))
ELSEWHERE = Path(("203.0.113.5", 40000))


def given_token(world: World) -> bytes:
    """The token that a connection from HOME leaves behind."""
    client = world.client()
    world.talk(client, HOME)
    assert is_connected(client)
    token = client.last_token  # type: ignore[attr-defined]
    assert token
    return token


def is_retry(datagram: bytes) -> bool:
    return pull_quic_header(Buffer(data=datagram)).packet_type == QuicPacketType.RETRY


def test_a_token_spares_the_retry_at_any_worker_and_port() -> None:
    token = given_token(World())
    world = World(retry="always")
    client = world.client(token=token)
    world.talk(client, HOME_OTHER_PORT)
    assert is_connected(client)
    assert world.endpoint.counters["retries"] == 0
    assert world.endpoint.counters["new_tokens_accepted"] == 1


@pytest.mark.parametrize(
    ("path", "later"), [(ELSEWHERE, 0.0), (HOME, NEW_TOKEN_LIFETIME + 1), (HOME, -1.0)]
)
def test_a_token_of_another_address_or_time_counts_as_none(path: Path, later: float) -> None:
    token = given_token(World())
    world = World(retry="always")
    client = world.client(token=token)
    (answer,) = world.receive(*first_flight(client), path=path, now=NOW + later)
    assert is_retry(answer)
    client.receive_datagram(answer, ("server", 443), NOW)
    world.talk(client, path, now=NOW + later)
    assert is_connected(client)


@pytest.mark.parametrize("token", [b"\x02", b"\x02" + b"x" * 60, b"\0", b"another server's"])
def test_strange_tokens_are_no_error(token: bytes) -> None:
    world = World()
    client = world.client(token=token)
    world.talk(client)
    assert is_connected(client)
    (answer,) = World(retry="always").receive(*first_flight(world.client(token=token)))
    assert is_retry(answer)


def test_a_validated_address_is_not_held_to_three_times_its_bytes() -> None:
    token = given_token(World())
    for brought, free in ((token, True), (b"", False)):
        world = World()
        world.receive(*first_flight(world.client(token=brought)), path=HOME)
        (connection,) = world.endpoint.connections
        assert connection.paths.active.is_validated == free
        # Only a complete handshake shows that it is not a copy of another client's.
        assert connection.validated_path is None


def test_a_lost_token_is_sent_again() -> None:
    world = World()
    client = world.client()
    world.talk(client, rounds=1)
    for data, _ in client.datagrams_to_send(NOW):
        world.endpoint.receive(data, HOME, NOW)
    world.endpoint.flush(NOW)
    world.network.take()  # lost on the way
    now = NOW
    for _ in range(6):
        timer = world.endpoint.next_timer()
        now = max(now, timer) if timer < inf else now
        world.endpoint.handle_timers(now)
        world.talk(client, now=now)
    assert client.last_token is not None  # type: ignore[attr-defined]


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::7", "fe80::1%eth0"])
def test_a_token_is_bound_to_its_host_and_kind(host: str) -> None:
    keys = TokenKeys(SECRET)
    token = keys.seal_new(host, VERSION_1, NOW)
    assert TokenKeys(SECRET).open_new(token, host, VERSION_1, NOW + 1)
    assert not keys.open_new(token, host, VERSION_2, NOW + 1)
    assert not keys.open_new(token, "192.0.2.9", VERSION_1, NOW + 1)
    assert keys.open_retry(token, (host, 1), b"", NOW) is None
    assert keys.open_retry(b"\x01" + token[1:], (host, 1), b"", NOW) is None
    retry = keys.seal_retry((host, 1), b"original", b"source", NOW)
    assert not keys.open_new(b"\x02" + retry[1:], host, VERSION_1, NOW)


@example(b"")
@given(st.one_of(st.binary(max_size=100), st.binary(max_size=100).map(lambda b: b"\x02" + b)))
def test_garbage_opens_nothing(token: bytes) -> None:
    assert not TokenKeys(SECRET).open_new(token, "192.0.2.1", VERSION_1, NOW)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_one_changed_byte_opens_nothing(at: int, change: int) -> None:
    token = bytearray(TokenKeys(SECRET).seal_new("192.0.2.1", VERSION_1, NOW))
    token[at % len(token)] ^= change
    assert not TokenKeys(SECRET).open_new(bytes(token), "192.0.2.1", VERSION_1, NOW)
