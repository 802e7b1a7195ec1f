"""The order of service in a fair queue."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quicedge.shares import Client, FairQueue


def client(network: int, host: int = 1) -> Client:
    address = bytes((192, 0, network, host))
    return Client(address, address[:3])


def drained(queue: FairQueue[int], clients: dict[int, Client | None]) -> list[int]:
    order = []
    while (item := queue.next(lambda client: True)) is not None:
        queue.take(item, clients[item])
        order.append(item)
    return order


def filled(*clients: Client | None) -> tuple[FairQueue[int], dict[int, Client | None]]:
    queue: FairQueue[int] = FairQueue(1000)
    whose = dict(enumerate(clients))
    for item, who in whose.items():
        assert queue.put(item, who)
    return queue, whose


def test_items_of_one_client_come_in_order() -> None:
    queue, whose = filled(*[client(1)] * 5)
    assert drained(queue, whose) == [0, 1, 2, 3, 4]
    assert len(queue) == 0


def test_a_client_with_one_item_waits_for_one_of_the_others() -> None:
    queue, whose = filled(*[client(1)] * 100, client(2))
    assert drained(queue, whose).index(100) == 1


def test_networks_take_turns_however_many_addresses_they_have() -> None:
    crowd = [client(1, host) for host in range(1, 101)]
    queue, whose = filled(*crowd, client(2), client(2))
    order = drained(queue, whose)
    assert order.index(100) == 1
    assert order.index(101) == 3


def test_addresses_of_a_network_take_turns() -> None:
    queue, whose = filled(client(1, 1), client(1, 1), client(1, 1), client(1, 2))
    assert drained(queue, whose) == [0, 3, 1, 2]


def test_clients_that_may_take_nothing_are_passed_over_and_keep_their_place() -> None:
    queue, whose = filled(client(1), client(2))
    assert queue.next(lambda who: who != client(1)) == 1
    assert queue.next(lambda who: False) is None
    assert drained(queue, whose) == [0, 1]


def test_one_client_cannot_take_all_places() -> None:
    queue: FairQueue[int] = FairQueue(30)
    taken = next(item for item in range(31) if not queue.put(item, client(1)))
    assert taken == 20
    assert queue.put(99, client(2))
    queue.remove(0, client(1))
    queue.remove(1, client(1))
    assert queue.put(100, client(1))


def test_the_edge_itself_can_wait_too() -> None:
    queue, whose = filled(None, client(1))
    assert drained(queue, whose) == [0, 1]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from(["put", "take", "remove"])),
        max_size=200,
    )
)
def test_nothing_is_lost_or_taken_twice(steps: list[tuple[int, int, str]]) -> None:
    queue: FairQueue[int] = FairQueue(1000)
    whose: dict[int, Client | None] = {}
    for item, (network, host, what) in enumerate(steps):
        if what == "put":
            whose[item] = client(network, host)
            assert queue.put(item, whose[item])
        elif what == "take":
            found = queue.next(lambda client: True)
            assert (found is None) == (not whose)
            if found is not None:
                queue.take(found, whose.pop(found))
        elif whose:
            oldest = next(iter(whose))
            gone = whose.pop(oldest)
            queue.remove(oldest, gone)
            queue.remove(oldest, gone)
        assert len(queue) == len(whose)
        assert set(queue) == set(whose)
