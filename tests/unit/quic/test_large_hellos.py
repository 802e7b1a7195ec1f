"""ClientHellos of two datagrams, as clients with hybrid key shares send them, on whole
connections."""

from __future__ import annotations

import itertools

import pytest

from quicedge.quic.key_exchange import GROUPS, usable_by_name
from tests.support.quicpair import is_confirmed, make_pair
from tests.support.simnet import Link, Pair
from tests.support.tlsclient import TlsClient
from tests.support.world import CLIENT, NOW, World, first_flight, is_connected
from tests.unit.quic.test_tls_server import chain_of

HYBRID = ["X25519MLKEM768", "x25519"]


class Lossy(Link):
    """Loses the datagrams of these numbers."""

    lost: frozenset[int] = frozenset()
    seen = 0

    def arrival(self, *arguments: object, **options: object) -> float | None:
        self.seen += 1
        if self.seen - 1 in self.lost:
            return None
        return super().arrival(*arguments, **options)  # type: ignore[arg-type]


def losing(*numbers: int) -> Lossy:
    link = Lossy()
    link.lost = frozenset(numbers)
    return link


def confirmed(pair: Pair) -> bool:
    return is_confirmed(pair.client.connection) and is_confirmed(pair.server.connection)


def test_the_hello_of_a_hybrid_takes_two_datagrams() -> None:
    with TlsClient(HYBRID, HYBRID).patched():
        flight = first_flight(World().client())
    assert len(flight) == 2


@pytest.mark.parametrize("order", list(itertools.permutations((0, 1))))
def test_either_datagram_may_come_first(order: tuple[int, int]) -> None:
    world = World()
    with TlsClient(HYBRID, HYBRID).patched():
        client = world.client()
        flight = first_flight(client)
        for index in order:
            world.endpoint.receive(flight[index], CLIENT, NOW)
        world.talk(client)
    assert is_connected(client)
    (connection,) = world.endpoint.connections
    assert connection.handshake.group is GROUPS["X25519MLKEM768"]
    assert not connection.counters.packets_dropped


def test_half_a_hello_takes_one_place_among_the_handshakes() -> None:
    """Its other half belongs to it, and does not count as another client."""
    world = World(max_half_open=1)
    with TlsClient(HYBRID, HYBRID).patched():
        client = world.client()
        first, second = first_flight(client)
        world.endpoint.receive(second, CLIENT, NOW)
        assert len(world.endpoint.half_open) == 1
        world.endpoint.receive(first, CLIENT, NOW)
        assert len(world.endpoint.half_open) == 1
        world.talk(client)
    assert is_connected(client)
    assert len(world.endpoint.connections) == 1


def test_retry_asks_once_for_both_datagrams() -> None:
    world = World(retry="always")
    with TlsClient(HYBRID, HYBRID).patched():
        client = world.client()
        world.talk(client, rounds=8)
    assert is_connected(client)
    (connection,) = world.endpoint.connections
    assert connection.token_accepted


@pytest.mark.parametrize("lost", [(0,), (1,), (0, 1), (0, 2), (1, 2), (1, 3)])
def test_a_lost_datagram_of_the_hello_is_repaired(lost: tuple[int, ...]) -> None:
    with TlsClient(HYBRID, HYBRID).patched():
        pair = make_pair(losing(*lost))
        pair.run(lambda: confirmed(pair))
    assert pair.server.connection.handshake.group is GROUPS["X25519MLKEM768"]
    assert pair.now - 1000.0 < 5


@pytest.mark.parametrize("lost", [(0,), (1,), (0, 1), (0, 1, 2)])
def test_a_lost_answer_is_repaired(lost: tuple[int, ...]) -> None:
    with TlsClient(HYBRID, HYBRID).patched():
        pair = make_pair(None, losing(*lost))
        pair.run(lambda: confirmed(pair))
    assert pair.now - 1000.0 < 5


@pytest.mark.parametrize("seed", range(4))
def test_a_hello_request_and_two_large_hellos_survive_loss_and_reordering(seed: int) -> None:
    link = {"loss": 0.1, "jitter": 0.03}
    with TlsClient(["x25519", "X25519MLKEM768"]).patched() as peer:
        pair = make_pair(
            Link(**link), Link(**link), seed=seed, groups=usable_by_name(["X25519MLKEM768"])
        )
        pair.run(lambda: confirmed(pair))
    assert len(peer.requests) == 1


def test_no_more_than_three_times_what_came_in_while_half_a_hello_is_missing() -> None:
    certificates, _ = chain_of("rsa")
    world = World(certificates)
    with TlsClient(HYBRID, HYBRID).patched():
        client = world.client()
        first, second = first_flight(client)
        answered = sum(map(len, world.receive(first)))
        for step in range(1, 40):
            now = NOW + step * 0.25
            world.endpoint.handle_timers(now)
            world.endpoint.flush(now)
            answered += sum(map(len, world.network.take()))
        assert answered <= 3 * len(first)
        answered += sum(map(len, world.receive(second, now=NOW + 9.9)))
        assert answered <= 3 * (len(first) + len(second))
