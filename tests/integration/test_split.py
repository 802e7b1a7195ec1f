"""Shares of traffic on whole edges: every protocol, a cookie, a reload that moves few clients."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.test_mirror import Origin, origin
from tests.support.edge import RunningEdge, edge
from tests.support.matrix.clients import CLIENTS, Client, exchange
from tests.support.matrix.spec import Arrivals, Case, Got
from tests.support.origins import eventually


async def stable(target: str, body: bytes) -> tuple[int, str, bytes]:
    return 200, "", b"stable"


async def canary(target: str, body: bytes) -> tuple[int, str, bytes]:
    return 200, "", b"canary"


@asynccontextmanager
async def both() -> AsyncIterator[tuple[Origin, Origin]]:
    async with origin(stable) as first, origin(canary) as second:
        yield first, second


def routes(second: Origin, split: str) -> str:
    return (
        f'[upstreams.canary]\nservers = ["{second.url}"]\n'
        f'[[routes]]\npath = "/split"\nsplit = {{ {split} }}\n'
        '[[routes]]\npath = "/split"\nheaders = { x-side = "canary" }\nupstream = "canary"\n'
        '[[routes]]\npath = "/split"\ncookies = { side = "canary" }\nupstream = "canary"\n'
        '[[routes]]\npath = "/sticky"\n'
        'split = { shares = { app = 3, canary = 1 }, sticky_cookie = "place" }\n'
    )


async def answers(
    running: RunningEdge, version: str, *cases: Case, path: bytes = b"/split"
) -> list[Got]:
    """The answers to requests on one connection each."""
    found = []
    for case in cases:
        got = await exchange(version, running.port, case, path, Arrivals())
        assert got.status == 200
        found.append(got)
    return found


def asking(**fields: str) -> Case:
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    return Case("split", fields=lines)


async def test_shares_hold_and_clients_stay_over_every_protocol(tmp_path: Path) -> None:
    async with both() as (first, second):
        text = routes(second, 'shares = { app = 75, canary = 25 }, by = "header:x-user"')
        with edge(tmp_path, first.url, text) as running:
            for version in CLIENTS:
                await keys_decide(running, version)
                await cookies_keep(running, version)


async def keys_decide(running: RunningEdge, version: str) -> None:
    """Users stay where they are, or go where they ask to; log and metrics tell where."""
    logged = len(running.access())
    before = counted(running)
    users = [asking(x_user=f"user-{number}") for number in range(16)]
    once = [bytes(got.body) for got in await answers(running, version, *users)]
    assert set(once) == {b"stable", b"canary"}
    again = [bytes(got.body) for got in await answers(running, version, *users)]
    assert again == once
    forced = await answers(
        running, version, asking(x_user="user-1", x_side="canary"),
        asking(x_user="user-1", cookie="side=canary"),
    )  # fmt: skip
    assert [bytes(got.body) for got in forced] == [b"canary"] * 2
    by_side = Counter(once + again)
    await eventually(lambda: len(running.access()) == logged + 34)
    named = Counter(record["upstream"] for record in running.access()[logged:])
    assert named["app"] == by_side[b"stable"]
    assert named["canary"] == by_side[b"canary"] + 2
    after = counted(running)
    assert after["app"] - before["app"] == by_side[b"stable"]
    assert after["canary"] - before["canary"] == by_side[b"canary"]


def counted(running: RunningEdge) -> Counter[str]:
    """The successful requests of the route that is split by users, by upstream."""
    found = Counter[str]()
    for line in running.metrics().splitlines():
        sample = re.match(r"quicedge_split_requests_total\{(.*)\} (.*)", line)
        if sample and 'route="*/split"' in sample[1] and 'status="2xx"' in sample[1]:
            name = re.search(r'upstream="(\w+)"', sample[1])
            assert name is not None
            found[name[1]] = int(float(sample[2]))
    return found


async def cookies_keep(running: RunningEdge, version: str) -> None:
    """New clients take turns, exactly, and are told where they belong."""
    logged = len(running.access())
    sides = Counter[bytes]()
    for got in await answers(running, version, *[asking()] * 12, path=b"/sticky"):
        (cookie,) = got.values(b"set-cookie")
        sides[bytes(got.body)] += 1
        kept = asking(cookie=cookie.split(b";")[0].decode())
        (again,) = await answers(running, version, kept, path=b"/sticky")
        assert again.body == got.body
        assert not again.values(b"set-cookie")
    assert sides[b"canary"] == pytest.approx(3, abs=1)
    await eventually(lambda: len(running.access()) == logged + 24)


async def test_a_reload_moves_the_clients_of_the_difference_alone(tmp_path: Path) -> None:
    async with both() as (first, second):
        text = routes(second, 'shares = { app = 90, canary = 10 }, by = "header:x-user"')
        with edge(tmp_path, first.url, text) as running:
            async with CLIENTS["h2"](running.port) as client:
                before = await sides(client)
            config = tmp_path / "quicedge.toml"
            config.write_text(
                config.read_text().replace("app = 90, canary = 10", "app = 70, canary = 30")
            )
            running.process.send_signal(signal.SIGHUP)
            await eventually(lambda: "configuration reloaded" in running.log())
            async with CLIENTS["h2"](running.port) as client:
                after = await sides(client)
            assert before < after
            assert len(before) == pytest.approx(20, abs=15)
            assert len(after) == pytest.approx(60, abs=25)


async def sides(client: Client) -> set[int]:
    """The users, of two hundred, who are on the canary."""
    found = set()
    for number in range(200):
        got = await client.exchange(asking(x_user=f"u{number}"), b"/split", Arrivals())
        if bytes(got.body) == b"canary":
            found.add(number)
    return found
