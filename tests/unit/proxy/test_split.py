"""Shares of traffic: exact, the same everywhere, and with no more movement than they require."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import SPLIT_GROUPS
from quicedge.config.loader import ConfigError
from quicedge.config.schema import Split as SplitConfig
from quicedge.http.message import Request
from quicedge.proxy.split import Split, owners_of_groups, shares_in_groups
from quicedge.telemetry.outcomes import Outcome
from tests.support.client_info import StubClient
from tests.support.filtered import World, config_of

WEIGHTS = st.lists(st.integers(1, 1000), min_size=2, max_size=6)


def client(address: str = "192.0.2.1") -> Any:
    return StubClient(address=(address, 50000))


def request(*fields: tuple[bytes, bytes], path: bytes = b"/") -> Request:
    return Request(b"GET", b"https", b"a.test", path, list(fields), ended=True)


def split(**options: Any) -> Split:
    options.setdefault("shares", {"stable": 95, "canary": 5})
    return Split(SplitConfig(**options))


def owners(weights: list[float]) -> bytes:
    names = tuple(f"upstream-{index}" for index in range(len(weights)))
    return owners_of_groups(names, shares_in_groups(weights))


# --- shares ---------------------------------------------------------------------------------------


@given(WEIGHTS)
def test_every_upstream_owns_its_share_of_the_groups(weights: list[float]) -> None:
    found = Counter(owners(weights))
    assert sum(found.values()) == SPLIT_GROUPS
    for index, weight in enumerate(weights):
        assert abs(found[index] - SPLIT_GROUPS * weight / sum(weights)) < 1


@given(WEIGHTS)
def test_turns_are_exact_over_ten_thousand_and_close_all_the_way(weights: list[float]) -> None:
    shares = {str(index): weight for index, weight in enumerate(weights)}
    turns, total = split(shares=shares, by="request"), sum(weights)
    found: Counter[str] = Counter()
    for number in range(1, SPLIT_GROUPS + 1):
        found[turns.choose(request(), client()).upstream] += 1
        if number % 500 == 0:
            for name, weight in shares.items():
                assert abs(found[name] - number * weight / total) < 6
    for name, weight in shares.items():
        assert abs(found[name] - SPLIT_GROUPS * weight / total) < 1


def test_shares_of_many_clients_are_those_of_the_weights() -> None:
    chosen = split()
    found = Counter(
        chosen.choose(request(), client(f"10.{n >> 8}.{n & 255}.7")).upstream for n in range(20_000)
    )
    assert found["canary"] == pytest.approx(1000, rel=0.15)


def test_an_upstream_without_a_share_gets_nothing() -> None:
    for options in ({"by": "request"}, {"by": "client"}, {"sticky_cookie": "side"}):
        chosen = split(shares={"stable": 1, "canary": 0}, **options)
        found = {chosen.choose(request(), client(f"10.0.0.{n}")).upstream for n in range(200)}
        assert found == {"stable"}


# --- movement -------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_between_two_upstreams_exactly_the_difference_moves(before: int, after: int) -> None:
    first, second = owners([1000 - before, before]), owners([1000 - after, after])
    moved = sum(a != b for a, b in zip(first, second, strict=True))
    assert moved == abs(before - after) * SPLIT_GROUPS // 1000


@given(st.lists(st.integers(1, 10), min_size=2, max_size=5), st.data())
def test_growing_a_canary_moves_little_more_than_its_growth(
    canaries: list[int], data: st.DataObject
) -> None:
    which = data.draw(st.integers(0, len(canaries) - 1))
    growth = data.draw(st.integers(1, 10))
    grown = [share + growth * (index == which) for index, share in enumerate(canaries)]
    first, second = owners([100 - sum(canaries), *canaries]), owners([100 - sum(grown), *grown])
    moved = sum(a != b for a, b in zip(first, second, strict=True))
    least = growth * SPLIT_GROUPS // 100
    assert least <= moved <= 2 * least
    kept = sum(a == b == which + 1 for a, b in zip(first, second, strict=True))
    assert kept >= 0.9 * canaries[which] * SPLIT_GROUPS / 100


@given(WEIGHTS)
def test_groups_have_the_same_owners_everywhere(weights: list[float]) -> None:
    known = owners(weights)
    owners_of_groups.cache_clear()
    assert owners(weights) == known


def test_clients_on_the_canary_stay_there_while_it_grows() -> None:
    clients = [client(f"10.0.{n >> 8}.{n & 255}") for n in range(3000)]
    on_canary: set[int] = set()
    for share in (1, 5, 20, 50, 100):
        chosen = split(shares={"stable": 100 - share, "canary": share})
        now = {
            index
            for index, one in enumerate(clients)
            if chosen.choose(request(), one).upstream == "canary"
        }
        assert on_canary < now
        on_canary = now
    assert len(on_canary) == len(clients)


# --- by what --------------------------------------------------------------------------------------


@given(
    st.sampled_from(["client", "header:x-user", "cookie:user", "path", "target"]),
    st.binary(min_size=1, max_size=20).filter(lambda value: b";" not in value),
)
def test_requests_with_the_same_key_go_to_the_same_upstream(by: str, value: bytes) -> None:
    chosen = split(shares={"stable": 50, "canary": 50}, by=by)
    asked = request((b"x-user", value), (b"cookie", b"user=" + value.strip()), path=b"/" + value)
    assert len({chosen.choose(asked, client()).upstream for _ in range(5)}) == 1
    assert chosen.expected(asked, client()) == chosen.choose(asked, client()).upstream


def test_requests_without_the_field_stay_together_by_their_client() -> None:
    chosen = split(shares={"stable": 50, "canary": 50}, by="header:x-user")
    by_client = split(shares={"stable": 50, "canary": 50})
    for number in range(50):
        one = client(f"10.0.0.{number}")
        assert chosen.choose(request(), one) == by_client.choose(request(), one)


def test_a_client_with_a_new_address_in_its_ipv6_network_keeps_its_upstream() -> None:
    chosen = split(shares={"stable": 50, "canary": 50})
    for net in range(50):
        same = {
            chosen.choose(request(), client(f"2001:db8:{net:x}::{n:x}")).upstream for n in range(5)
        }
        assert len(same) == 1


def test_the_path_is_compared_without_the_query_and_the_target_with_it() -> None:
    paths = split(shares={"stable": 50, "canary": 50}, by="path")
    targets = split(shares={"stable": 50, "canary": 50}, by="target")
    asked = [request(path=b"/page?%d" % n) for n in range(50)]
    assert len({paths.choose(one, client()).upstream for one in asked}) == 1
    assert len({targets.choose(one, client()).upstream for one in asked}) == 2


def test_another_seed_divides_clients_independently() -> None:
    first, second = (split(shares={"a": 50, "b": 50}, seed=seed) for seed in ("one", "two"))
    clients = [client(f"10.0.{n >> 8}.{n & 255}") for n in range(2000)]
    same = sum(
        first.choose(request(), one).upstream == second.choose(request(), one).upstream
        for one in clients
    )
    assert same == pytest.approx(1000, rel=0.1)


def test_what_decides_is_told_only_if_it_is_known() -> None:
    nobody: Any = StubClient(address=None)
    assert split().expected(request(), nobody) is None
    assert split(by="request").expected(request(), client()) is None
    sticky = split(sticky_cookie="side")
    assert sticky.expected(request(), client()) is None
    assert sticky.expected(request((b"cookie", b"side=0001")), client()) is not None


# --- the cookie -----------------------------------------------------------------------------------


def configured(split_text: str) -> World:
    return World(
        f"""
        [upstreams.canary]
        servers = ["http://127.0.0.1:2"]
        [[routes]]
        {split_text}
        """
    )


async def test_a_client_gets_a_cookie_once_and_keeps_its_upstream_by_it() -> None:
    world = configured('split = { shares = { app = 50, canary = 50 }, sticky_cookie = "side" }')
    chosen = Counter[str]()
    for number in range(20):
        stream = world.send(client=StubClient(address=(f"10.0.0.{number}", 1)))
        world.origin.respond()
        assert stream.exchange is not None
        upstream = stream.exchange.upstream
        cookie, _, attributes = (stream.value(b"set-cookie") or b"").partition(b"; ")
        assert attributes == b"Path=/; Secure; HttpOnly; SameSite=Lax"
        for _ in range(3):
            again = world.send(b"/", (b"cookie", b"a=b; " + cookie))
            world.origin.respond()
            assert again.value(b"set-cookie") is None
            assert again.exchange is not None
            assert again.exchange.upstream == upstream
        chosen[upstream or ""] += 1
    assert chosen["app"] == pytest.approx(10, abs=1)


@given(st.text(max_size=8))
def test_a_cookie_that_is_none_of_ours_is_replaced(value: str) -> None:
    chosen = split(sticky_cookie="side")
    found = chosen.choose(request((b"cookie", b"side=" + value.encode())), client())
    ours = len(value) == 4 and value.isascii() and value.isdigit()
    assert (found.group is None) is ours


async def test_the_cookie_is_set_on_errors_too_and_not_on_refusals() -> None:
    world = configured(
        'split = { shares = { app = 1, canary = 1 }, sticky_cookie = "side" }\nmax_uri = 100'
    )
    stream = world.send()
    assert stream.exchange is not None
    stream.exchange.refuse(502, Outcome.ORIGIN_RESET)
    assert stream.value(b"set-cookie") is not None
    refused = world.send(b"/" + bytes(200).replace(b"\0", b"x"))
    assert refused.status == 414
    assert refused.value(b"set-cookie") is None


# --- records --------------------------------------------------------------------------------------


async def test_log_placeholders_and_metrics_name_the_chosen_upstream() -> None:
    world = configured(
        "split = { shares = { app = 0, canary = 1 } }\n"
        'filters = [{ headers = { response = { set = { x-side = "{route.upstream}" } } } }]'
    )
    stream = world.send()
    world.origin.respond(503)
    assert stream.exchange is not None
    stream.exchange.delivered()
    assert stream.value(b"x-side") == b"canary"
    assert [record.upstream for record in world.log.records] == ["canary"]
    (route,) = (item for item in world.gateway.metrics.routes.values() if item.sides)
    assert route.sides["canary"].statuses["5xx"] == 1
    assert sum(route.sides["app"].statuses.values()) == 0
    assert world.gateway.metrics.upstreams["canary"].requests == 1
    assert world.gateway.metrics.upstreams["app"].requests == 0


async def test_timeouts_of_the_route_hold_for_all_its_upstreams() -> None:
    world = configured("split = { shares = { app = 1, canary = 1 }, by = 'path' }\nretries = 0")
    chosen = set()
    for number in range(20):
        stream = world.send(b"/%d" % number)
        assert stream.exchange is not None
        chosen.add(stream.exchange.upstream)
    assert chosen == {"app", "canary"}


async def test_requests_wait_for_the_address_where_it_decides() -> None:
    for by, waits in (("client", True), ("header:x", True), ("path", False), ("request", False)):
        world = configured(f'split = {{ shares = {{ app = 1, canary = 1 }}, by = "{by}" }}')
        assert world.policy.needs_address is waits, by


# --- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("split = { shares = { app = 1 } }", "two upstreams or more"),
        ("split = { shares = { app = 0, canary = 0 } }", "must not all be 0"),
        ("split = { shares = { app = 1, canry = 1 } }", "unknown upstream 'canry'"),
        ("split = { shares = { app = 100000, canary = 1 } }", "less than 0.01 %"),
        ("split = { shares = { app = 1, canary = -1 } }", "-1 is not a number of at least 0"),
        ("split = { shares = { app = 1, canary = 1 }, by = 'ip' }", "is not client, path"),
        ("split = { shares = { app = 1, canary = 1 }, sticky_cookie = 'a b' }", "of a cookie"),
        (
            "split = { shares = { app = 1, canary = 1 }, sticky_cookie = 'a', by = 'cookie:a' }",
            "sticky_cookie is the same cookie",
        ),
        (
            "split = { shares = { app = 1, canary = 1 }, by = 'request', seed = 'x' }",
            "has no effect with by",
        ),
        ("upstream = 'app'\nsplit = { shares = { app = 1, canary = 1 } }", "no effect with split"),
        (
            "split = { shares = { app = 1, canary = 1 } }\nfilters = [{ respond = {} }]",
            "a filter answers all requests",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config_of(f'[upstreams.canary]\nservers = ["http://127.0.0.1:2"]\n[[routes]]\n{text}')
