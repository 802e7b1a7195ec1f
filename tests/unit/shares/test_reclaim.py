"""Which stalled holders make room for waiting clients."""

from __future__ import annotations

from dataclasses import dataclass

from quicedge.shares import Client, Pool, to_reclaim


@dataclass(eq=False)
class Claim:
    client: Client | None


def client(network: int) -> Client:
    return Client(bytes((192, 0, network, 1)), bytes((192, 0, network)))


LARGE, SMALL, NEW = client(1), client(2), client(3)


def pool() -> Pool:
    shared = Pool(9)
    shared.take(LARGE, 6)
    shared.take(SMALL, 2)
    return shared


def test_the_largest_client_gives_up_first_and_no_more_than_others_wait_for() -> None:
    stalled = [Claim(SMALL), Claim(LARGE), Claim(LARGE)]
    assert to_reclaim(pool(), stalled, [Claim(NEW)]) == [stalled[1]]
    assert to_reclaim(pool(), stalled, [Claim(NEW)] * 5) == [stalled[1], stalled[2], stalled[0]]
    assert to_reclaim(pool(), stalled, []) == []


def test_a_client_that_holds_more_takes_nothing() -> None:
    assert to_reclaim(pool(), [Claim(SMALL)], [Claim(LARGE)] * 5) == []
    assert to_reclaim(pool(), [Claim(SMALL)], [Claim(LARGE), Claim(NEW)]) != []


def test_a_client_that_holds_as_much_takes_nothing_except_its_own() -> None:
    shared = Pool(9)
    for who in (LARGE, SMALL):
        shared.take(who, 3)
    assert to_reclaim(shared, [Claim(SMALL)], [Claim(LARGE)]) == []
    own = [Claim(LARGE)]
    assert to_reclaim(shared, own, [Claim(LARGE)]) == own
