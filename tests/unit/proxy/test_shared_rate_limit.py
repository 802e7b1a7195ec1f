"""Request rates shared by several workers, with an in-memory store."""

from __future__ import annotations

import pytest

from quicedge.config.limits import MAX_PREFIX_RATES
from quicedge.config.schema import RequestRate
from quicedge.http.message import Request
from quicedge.proxy.request_rates import RequestRates
from quicedge.proxy.shared_rate_limit import FleetCounts

GET = Request(b"GET", b"https", b"a", b"/", [])


class Store:
    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.down = False
        self.asked = 0

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        self.asked += 1
        if self.down:
            raise ConnectionError("nobody there")
        self.counts[key] = self.counts.get(key, 0) + amount
        return self.counts[key]


class Clock:
    now = 6000.0

    def __call__(self) -> float:
        return self.now


def worker(store: Store, clock: Clock) -> tuple[FleetCounts, RequestRates]:
    counts = FleetCounts(store, clock)
    return counts, RequestRates([RequestRate(rate="10/minute")], fleet=counts)


def accepted(rates: RequestRates, times: int, host: str = "192.0.2.1") -> int:
    return sum(not rates.wait(GET, host, 0.0) for _ in range(times))


async def test_workers_share_a_rate() -> None:
    store, clock = Store(), Clock()
    (one, first), (two, second) = worker(store, clock), worker(store, clock)
    assert accepted(first, 7) == 7
    await one.sync()
    assert accepted(second, 1) == 1, "what the other worker took is not known yet"
    await two.sync()
    assert accepted(second, 20) == 2
    await two.sync()
    assert accepted(first, 20) == 3, "until it hears of the others"
    await one.sync()
    assert accepted(first, 20) == 0
    assert accepted(first, 20, "198.51.100.1") == 10, "another client has its own"


async def test_a_window_ends_and_says_when() -> None:
    store, clock = Store(), Clock()
    clock.now += 15
    counts, rates = worker(store, clock)
    assert accepted(rates, 11) == 10
    await counts.sync()
    assert rates.wait(GET, "192.0.2.1", 0.0) == 45
    clock.now += 45
    assert accepted(rates, 11) == 10


async def test_without_the_store_a_worker_counts_for_itself() -> None:
    store, clock = Store(), Clock()
    counts, rates = worker(store, clock)
    store.down = True
    assert accepted(rates, 4) == 4
    await counts.sync()
    assert accepted(rates, 20) == 6
    await counts.sync()
    assert accepted(rates, 20) == 0


async def test_refused_requests_are_not_reported_to_the_store() -> None:
    store, clock = Store(), Clock()
    counts, rates = worker(store, clock)
    accepted(rates, 1000)
    await counts.sync()
    assert list(store.counts.values()) == [10]
    accepted(rates, 1000)
    await counts.sync()
    assert store.asked == 1


async def test_clients_that_choose_their_key_do_not_fill_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MAX_PREFIX_RATES > 100
    monkeypatch.setattr("quicedge.proxy.shared_rate_limit.MAX_PREFIX_RATES", 100)
    store = Store()
    counts = FleetCounts(store, Clock())
    for _ in range(10):
        counts.take("first", 10, 60.0)
    assert counts.take("first", 10, 60.0) > 0
    for number in range(1000):
        counts.take(str(number), 10, 60.0)
    assert counts.take("first", 10, 60.0) == 0, "its count was evicted"
    await counts.sync()
    assert store.asked == 100
