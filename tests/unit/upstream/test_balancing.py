"""Which server gets a request: weights, tiers, hashing, stickiness, latency, ejection."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.schema import Balance, Outliers
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.message import Request
from quicedge.shares import Client
from quicedge.upstream.address import parse_server
from quicedge.upstream.balance_key import balance_key
from quicedge.upstream.balancer import Rendezvous, TwoChoices
from quicedge.upstream.connect import Connector
from quicedge.upstream.health import Health
from quicedge.upstream.latency import Latency
from quicedge.upstream.retry_budget import RetryBudget
from quicedge.upstream.selection import Selection
from quicedge.upstream.server import Server

NOBODY: frozenset[Server] = frozenset()


def request(path: str = "/", cookie: str = "") -> Request:
    fields = [(b"cookie", cookie.encode())] if cookie else []
    return Request(b"GET", b"https", b"x", path.encode(), fields)


def client(number: int) -> Client:
    address = ip_address(f"192.0.2.{number}").packed
    return Client(address, address[:3])


def group(weights: tuple[int, ...] = (1, 1, 1), tiers: tuple[int, ...] = ()) -> list[Server]:
    """Servers of these weights and tiers."""
    settings = UpstreamConfig()
    loop = asyncio.new_event_loop()
    loop.close()
    servers = []
    tiers = tiers or (0,) * len(weights)
    for number, (weight, tier) in enumerate(zip(weights, tiers, strict=True)):
        address = parse_server(f"http://10.0.0.{number}:80")
        connector = Connector(address, settings, None)
        servers.append(Server(address, settings, connector, loop, weight=weight, tier=tier))
    return servers


def select(servers: list[Server], **config: Any) -> Selection:
    return Selection(servers, UpstreamConfig(servers=["http://x"] * len(servers), **config))


def counts(selection: Selection, servers: list[Server], number: int, **asked: Any) -> list[int]:
    """How many of so many requests each server gets."""
    found = Counter(selection.choose(request(**asked), NOBODY) for _ in range(number))
    return [found[server] for server in servers]


def test_turns_follow_the_weights_and_are_evenly_spread() -> None:
    servers = group((5, 1, 1))
    selection = select(servers)
    order = [servers.index(selection.choose(request(), NOBODY)) for _ in range(14)]  # type: ignore[arg-type]
    assert order == [0, 0, 1, 0, 2, 0, 0] * 2


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_turns_are_exactly_proportional_to_the_weights(weights: list[int]) -> None:
    servers = group(tuple(weights))
    selection = select(servers)
    assert counts(selection, servers, sum(weights)) == weights


def test_the_least_loaded_for_its_weight_is_chosen() -> None:
    servers = group((1, 4))
    selection = select(servers, balance=Balance.LEAST_REQUESTS)
    servers[0].running, servers[1].running = 1, 3
    assert selection.choose(request(), NOBODY) is servers[1]
    servers[1].running = 8
    assert selection.choose(request(), NOBODY) is servers[0]


@pytest.mark.parametrize("balance", [Balance.LEAST_REQUESTS, Balance.TWO_CHOICES])
def test_idle_servers_get_requests_by_their_weights(balance: Balance) -> None:
    servers = group((1, 3))
    found = counts(select(servers, balance=balance), servers, 4000)
    assert 900 < found[0] < 1100
    servers[1].health.eject(1000.0)
    assert counts(select(servers, balance=balance), servers, 10) == [10, 0]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("balance", [Balance.ROUND_ROBIN, Balance.LEAST_REQUESTS])
def test_second_attempts_take_no_turns_of_first_ones(balance: Balance, count: int) -> None:
    servers = group((1,) * count)
    selection = select(servers, balance=balance)
    slow, first = servers[0], Counter[Server | None]()
    for _ in range(60):
        chosen = selection.choose(request(), NOBODY)
        first[chosen] += 1
        if chosen is slow:
            assert selection.choose(request(), frozenset((slow,))) is not slow
    assert first[slow] == 60 / count


def test_two_choices_take_the_better_and_use_all() -> None:
    servers = group((1, 1, 1, 1))
    draws = random.Random(5)
    balancer = TwoChoices(lambda server: float(server.running), draws.random)
    servers[0].running = 5
    found = Counter(balancer.choose(servers, request(), None) for _ in range(400))
    assert found[servers[0]] == 0
    assert all(found[server] > 80 for server in servers[1:])
    assert balancer.choose(servers[:1], request(), None) is servers[0]


def test_slow_servers_get_fewer_requests_by_latency() -> None:
    servers = group((1, 1))
    selection = select(servers, balance=Balance.LATENCY)
    selection.answered(servers[0], 200, 0.5)
    selection.answered(servers[1], 200, 0.01)
    assert counts(selection, servers, 50) == [0, 50]
    servers[1].running = 100  # its queue outweighs its speed
    assert counts(selection, servers, 50) == [50, 0]


def test_a_server_that_is_new_gets_one_request_until_its_latency_is_known() -> None:
    servers = group((1, 1, 1))
    selection = select(servers, balance=Balance.LATENCY)
    for server in servers[:2]:
        selection.answered(server, 200, 0.01)
    found: Counter[Server | None] = Counter()
    for _ in range(100):
        chosen = selection.choose(request(), NOBODY)
        assert chosen is not None
        found[chosen] += 1
        chosen.running += chosen is servers[2]
    assert found[servers[2]] == 1


def test_servers_of_which_no_latency_is_known_share_the_first_requests() -> None:
    servers = group((1, 1, 1))
    selection = select(servers, balance=Balance.LATENCY)
    for _ in range(300):
        chosen = selection.choose(request(), NOBODY)
        assert chosen is not None
        chosen.running += 1
    assert all(60 <= server.running <= 140 for server in servers)


def test_failing_at_once_attracts_no_requests() -> None:
    servers = group((1, 1))
    selection = select(servers, balance=Balance.LATENCY)
    selection.answered(servers[0], 200, 0.05)
    selection.failed(servers[1], 0.001)
    assert counts(selection, servers, 50) == [50, 0]


def test_a_slow_answer_counts_at_once_and_fades() -> None:
    latency = Latency()
    assert latency.expected(0.0) is None
    latency.note(0.01, 0.0)
    latency.note(1.0, 1.0)
    assert latency.expected(1.0) == 1.0
    latency.note(0.0, 11.0)
    assert latency.expected(11.0) == pytest.approx(0.5)
    latency.note(0.0, 100.0)
    assert latency.expected(100.0) == pytest.approx(0.0, abs=0.01)


def test_a_server_that_was_slow_once_is_tried_again_without_further_answers() -> None:
    latency = Latency()
    latency.note(1.0, 0.0)
    assert latency.expected(10.0) == pytest.approx(0.5)
    assert latency.expected(100.0) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("balance", [Balance.CLIENT_ADDRESS, Balance.HASH])
def test_a_key_keeps_its_server_and_only_those_of_a_lost_one_move(balance: Balance) -> None:
    servers = group((1, 1, 1, 1))
    selection = select(servers, balance=balance)
    clients = [client(number) for number in range(200)]
    before = {each: selection.choose(request(), NOBODY, each) for each in clients}
    assert len(set(before.values())) == 4
    lost = frozenset(servers[:1])
    after = {each: selection.choose(request(), lost, each) for each in clients}
    moved = {each for each in clients if before[each] is not after[each]}
    assert moved == {each for each in clients if before[each] is servers[0]}


def test_an_ipv6_client_keeps_its_server_when_its_temporary_address_changes() -> None:
    find = balance_key("client")
    keys = [
        find(request(), Client(ip_address(text).packed, b""))
        for text in ("2001:db8:0:1::1", "2001:db8:0:1:abcd::9", "2001:db8:0:2::1")
    ]
    assert keys[0] == keys[1] != keys[2]


def test_keys_are_distributed_by_weight() -> None:
    servers = group((1, 3))
    selection = select(servers, balance=Balance.HASH, hash_by="path")
    found = Counter(
        selection.choose(request(path=f"/{number}?x"), NOBODY) for number in range(2000)
    )
    assert 0.20 < found[servers[0]] / 2000 < 0.30


@pytest.mark.parametrize(
    ("key", "one", "other", "same"),
    [
        ("path", {"path": "/a?1"}, {"path": "/b?1"}, {"path": "/a?2"}),
        ("target", {"path": "/a?1"}, {"path": "/a?2"}, {"path": "/a?1", "who": 2}),
        ("cookie:id", {"cookie": "id=1"}, {"cookie": "id=2"}, {"cookie": "x=2; id=1"}),
        ("cookie:id", {"who": 1}, {"who": 2}, {"who": 1, "cookie": "x=1"}),
        ("header:Cookie", {"cookie": "a"}, {"cookie": "b"}, {"cookie": "a", "who": 2}),
        ("header:X-User", {"who": 1}, {"who": 2}, {"who": 1, "path": "/b"}),
    ],
)
def test_keys_of_requests(
    key: str, one: dict[str, Any], other: dict[str, Any], same: dict[str, Any]
) -> None:
    def find(who: int = 1, **asked: str) -> bytes:
        return balance_key(key)(request(**asked), client(who))

    assert find(**one) != find(**other)
    assert find(**one) == find(**same)


def test_a_popular_key_overflows_to_the_next_server() -> None:
    servers = group((1, 1, 1))
    balancer = Rendezvous(balance_key("client"), bounded=True)
    first = balancer.choose(servers, request(), None)
    placed: Counter[Server] = Counter()
    for _ in range(300):
        chosen = balancer.choose(servers, request(), None)
        chosen.running += 1
        placed[chosen] += 1
    assert placed[first] == max(placed.values())
    assert max(placed.values()) <= 1.25 * 300 / 3 + 1


def test_a_higher_tier_serves_only_while_the_lower_one_is_down() -> None:
    servers = group((1, 1, 1), tiers=(0, 0, 1))
    selection = select(servers)
    assert counts(selection, servers, 10)[2] == 0
    for server in servers[:2]:
        for _ in range(2):
            server.health.checked("no answer")
    assert counts(selection, servers, 10) == [0, 0, 10]
    servers[0].health.checked(None)
    assert counts(selection, servers, 10) == [10, 0, 0]
    # A retry of a request that has failed there goes up a tier.
    assert selection.choose(request(), frozenset(servers[:1])) is servers[2]


def test_a_cookie_keeps_a_client_with_its_server() -> None:
    servers = group((1, 1, 1))
    selection = select(servers, sticky_cookie="srv")
    first = selection.choose(request(), NOBODY)
    assert first is not None
    field = selection.sticky_field(request(), first)
    assert field is not None
    assert field[0] == b"set-cookie"
    assert b"10.0.0" not in field[1]
    cookie = field[1].decode().partition(";")[0]
    for _ in range(6):
        assert selection.choose(request(cookie=cookie), NOBODY) is first
    assert selection.sticky_field(request(cookie=cookie), first) is None
    # Its server goes down: another one answers, and takes over the client.
    other = selection.choose(request(cookie=cookie), frozenset((first,)))
    assert other is not None
    assert other is not first
    assert selection.sticky_field(request(cookie=cookie), other) is not None
    # Whatever clients invent.
    assert selection.choose(request(cookie="srv=made-up"), NOBODY) in servers
    # One of the same name that the application has set does not hide it.
    both = f"srv=made-up; {cookie}"
    for _ in range(6):
        assert selection.choose(request(cookie=both), NOBODY) is first
    assert selection.sticky_field(request(cookie=both), first) is None


def test_failing_servers_are_ejected_for_longer_each_time_and_never_too_many() -> None:
    servers = group((1, 1, 1, 1))
    now = 1000.0
    for server in servers:
        server.health = Health(server.address.text, clock=lambda: now)
    selection = select(servers, outliers=Outliers(failures=3, eject_for=10.0))

    def fail(server: Server) -> None:
        for _ in range(3):
            selection.answered(server, 503, 0.1)

    selection.answered(servers[0], 503, 0.1)
    selection.answered(servers[0], 200, 0.1)  # not in a row
    selection.answered(servers[0], 503, 0.1)
    selection.failed(servers[0], 0.1)
    assert servers[0].health.is_up
    fail(servers[0])
    assert not servers[0].health.is_up
    assert counts(selection, servers, 30)[0] == 0
    fail(servers[1])
    fail(servers[2])
    assert [server.health.is_up for server in servers] == [False, False, True, True]
    now += 10.5
    assert servers[0].health.is_up
    fail(servers[0])
    now += 10.5
    assert not servers[0].health.is_up, "twice as long"
    now += 10
    assert servers[0].health.is_up
    now += 400
    selection.answered(servers[0], 200, 0.1)
    fail(servers[0])
    now += 10.5
    assert servers[0].health.is_up, "earlier ejections are forgotten"


def test_client_errors_are_no_failures_of_the_server() -> None:
    servers = group((1, 1))
    selection = select(servers, outliers=Outliers(failures=1))
    for status in (400, 404, 429, 500):
        selection.answered(servers[0], status, 0.1)
    assert servers[0].health.is_up


def test_a_server_that_is_back_starts_slowly() -> None:
    now = 0.0
    health = Health("x", slow_start=30.0, clock=lambda: now)
    assert health.share == 1.0, "at start all are equal"
    for _ in range(2):
        health.checked("no answer")
    now = 100.0
    health.checked(None)
    assert health.share == 0.1
    now = 115.0
    assert health.share == pytest.approx(0.5)
    now = 131.0
    assert health.share == 1.0
    health.eject(10.0)
    now = 141.5
    assert health.is_up
    assert health.share == 0.1
    now = 156.0
    assert health.share == pytest.approx(0.5)


def test_retries_are_a_share_of_the_requests_beside_a_burst() -> None:
    budget = RetryBudget(0.25)
    assert sum(budget.take() for _ in range(100)) == 20
    for _ in range(40):
        budget.request()
    assert sum(budget.take() for _ in range(100)) == 10
    for _ in range(10_000):
        budget.request()
    assert sum(budget.take() for _ in range(100)) == 20, "what is not used is not saved up"
