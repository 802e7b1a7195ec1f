"""Fair shares of a pool."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import SHARE_OF_ADDRESS, SHARE_OF_PREFIX
from quicedge.shares import Client, Pool


def client(network: int, host: int = 1) -> Client:
    address = bytes((192, 0, network, host))
    return Client(address, address[:3])


def fill(pool: Pool, who: Client) -> int:
    """Take as much as a client may; how much that was."""
    taken = 0
    while pool.may_take(who):
        pool.take(who)
        taken += 1
    return taken


def test_one_client_alone_gets_two_thirds() -> None:
    pool = Pool(256)
    assert fill(pool, client(1)) == 171
    assert pool.free == 85


def test_a_small_pool_is_all_for_one_client() -> None:
    assert fill(Pool(1), client(1)) == 1
    assert fill(Pool(2), client(1)) == 2


def test_whoever_comes_last_still_finds_something_free() -> None:
    pool = Pool(256)
    for network in range(4):
        assert fill(pool, client(network)) > 0
    assert pool.may_take(client(99))


def test_addresses_of_one_network_share_what_it_may_hold() -> None:
    pool = Pool(256)
    for host in range(1, 255):
        fill(pool, client(1, host))
    assert pool.held == 205  # four fifths
    assert not pool.may_take(client(1, 255))
    assert pool.may_take(client(2))


def test_the_edge_itself_is_bound_by_the_capacity_alone() -> None:
    pool = Pool(256)
    fill(pool, client(1))
    while pool.may_take(None):
        pool.take(None)
    assert pool.free == 0


def test_what_is_given_back_can_be_taken_again() -> None:
    pool = Pool(64)
    who = client(1)
    taken = fill(pool, who)
    assert not pool.may_take(who)
    pool.give_back(who, taken)
    assert pool.held == pool.held_by(who) == 0
    assert fill(pool, who) == taken


@given(
    st.integers(1, 500),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans()), max_size=300),
)
def test_nobody_ever_takes_more_than_the_share(
    capacity: int, steps: list[tuple[int, int, bool]]
) -> None:
    pool = Pool(capacity)
    held: dict[Client, int] = {}
    for network, host, takes in steps:
        who = client(network, host)
        if takes and pool.may_take(who):
            free = pool.free
            assert held.get(who, 0) < SHARE_OF_ADDRESS * free
            of_prefix = sum(n for c, n in held.items() if c.prefix == who.prefix)
            assert of_prefix < SHARE_OF_PREFIX * free
            pool.take(who)
            held[who] = held.get(who, 0) + 1
        elif not takes and held.get(who):
            pool.give_back(who)
            held[who] -= 1
        assert pool.held == sum(held.values()) <= capacity
        assert all(pool.held_by(c) == n for c, n in held.items())
