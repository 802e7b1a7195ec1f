"""When servers are looked up again, and what stays while they cannot be; on a virtual clock."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from structlog.testing import capture_logs

from quicedge.config import limits
from quicedge.upstream.discovered import Answer, Discovered, DiscoveryError
from quicedge.upstream.discovery import Discovery


class VirtualLoop(asyncio.SelectorEventLoop):
    """Jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = selectors.DefaultSelector()
        super().__init__(selector)
        select = selector.select

        def jump(timeout: float | None = None) -> Any:
            self.now += timeout or 0.0
            return select(0)

        selector.select = jump  # type: ignore[method-assign]

    def time(self) -> float:
        return self.now


def on_virtual_time(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def servers(*hosts: str) -> frozenset[Discovered]:
    return frozenset(Discovered(host, 80) for host in hosts)


class Dns:
    """Answers look-ups, and notes when they came and what changed."""

    def __init__(self, known: frozenset[Discovered] = frozenset(), draw: float = 0.0) -> None:
        self.answer: Answer | Exception = Answer(servers("192.0.2.1"), 60)
        self.asked_at: list[float] = []
        self.changes: list[set[str]] = []
        self.loop = asyncio.get_running_loop()
        self.discovery = Discovery(
            "app", "app.test", self.look_up, self.changed, self.loop,
            known=known, draw=lambda: draw,
        )  # fmt: skip

    async def look_up(self) -> Answer:
        self.asked_at.append(self.loop.time())
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def changed(self) -> None:
        self.changes.append({server.host for server in self.discovery.servers})

    async def at(self, seconds: float) -> None:
        await asyncio.sleep(seconds - self.loop.time())

    def close(self) -> None:
        self.discovery.close()


def test_servers_are_looked_up_again_when_their_records_expire() -> None:
    async def main() -> None:
        dns = Dns()
        await dns.at(61)
        dns.answer = Answer(servers("192.0.2.1", "192.0.2.2"), 60)
        assert dns.asked_at == [0, 60]
        await dns.at(121)
        assert dns.asked_at == [0, 60, 120]
        assert dns.changes == [{"192.0.2.1"}, {"192.0.2.1", "192.0.2.2"}]
        dns.close()

    on_virtual_time(main)


@pytest.mark.parametrize(
    ("ttl", "draw", "seconds"),
    [
        (0, 0.0, limits.DISCOVERY_MIN_TTL),
        (86400, 0.0, limits.DISCOVERY_MAX_TTL),
        (60, 1.0, 60 * (1 + limits.DISCOVERY_JITTER)),
    ],
)
def test_a_ttl_has_bounds_and_jitter_only_delays(ttl: float, draw: float, seconds: float) -> None:
    async def main() -> None:
        dns = Dns(draw=draw)
        dns.answer = Answer(servers("192.0.2.1"), ttl)
        await dns.at(seconds + 0.5)
        dns.close()
        assert dns.asked_at == [0, pytest.approx(seconds)]

    on_virtual_time(main)


@pytest.mark.parametrize("failure", [DiscoveryError("no such name"), RuntimeError("a bug")])
def test_the_last_servers_stay_while_they_cannot_be_looked_up(failure: Exception) -> None:
    async def main() -> None:
        dns = Dns()
        await dns.at(1)
        dns.answer = failure
        with capture_logs() as logs:
            await dns.at(400)
            assert dns.discovery.servers == servers("192.0.2.1")
            assert dns.changes == [{"192.0.2.1"}]
            stats = dns.discovery.stats()
            assert stats.age_seconds == 400
            assert str(failure) in stats.problem
            assert (stats.servers, stats.look_ups - stats.failures) == (1, 1)
            dns.answer = Answer(servers("192.0.2.1"), 60)
            await dns.at(440)
        expected = ["upstream's servers cannot be looked up"]
        expected += ["upstream's servers can be looked up again"]
        events = [entry["event"] for entry in logs if entry["event"] != "discovery failed"]
        assert events == expected, "once per change, not per look-up"
        stats = dns.discovery.stats()
        assert stats.problem == ""
        assert stats.age_seconds is not None
        assert stats.age_seconds < 40
        delays = [b - a for a, b in zip(dns.asked_at, dns.asked_at[1:], strict=False)]
        assert delays[:8] == [60, 1, 2, 4, 8, 16, 30, 30]
        dns.close()

    on_virtual_time(main)


def test_the_first_look_up_is_reported_even_if_it_fails_or_changes_nothing() -> None:
    async def main() -> None:
        failing = Dns()
        failing.answer = DiscoveryError("no such name")
        same = Dns(servers("192.0.2.1"))
        assert not failing.discovery.has_looked_up
        await asyncio.sleep(0.1)
        assert (failing.changes, same.changes) == ([set()], [{"192.0.2.1"}])
        assert failing.discovery.has_looked_up
        assert failing.discovery.stats().age_seconds is None
        failing.close()
        same.close()

    on_virtual_time(main)


def test_servers_that_are_known_in_part_are_used_and_reported_once() -> None:
    async def main() -> None:
        dns = Dns()
        dns.answer = Answer(servers("192.0.2.1"), 10, "app.test AAAA: no resolver answers")
        with capture_logs() as logs:
            await dns.at(35)
        warnings = [entry for entry in logs if entry["log_level"] == "warning"]
        assert [entry["event"] for entry in warnings] == ["upstream's servers are known in part"]
        assert dns.discovery.stats().failures == 0
        dns.close()

    on_virtual_time(main)


def test_a_change_is_logged_with_a_bounded_number_of_servers() -> None:
    async def main() -> None:
        dns = Dns()
        dns.answer = Answer(servers(*(f"192.0.2.{n}" for n in range(100, 150))), 10)
        with capture_logs() as logs:
            await dns.at(11)
        assert [entry["event"] for entry in logs] == ["upstream's servers changed"]
        assert logs[0]["servers"] == 50
        assert logs[0]["added"].endswith("192.0.2.107:80 and 42 more")
        dns.close()

    on_virtual_time(main)


def test_nothing_is_looked_up_after_the_end() -> None:
    async def main() -> None:
        before, waiting = Dns(), Dns()
        before.close()
        await waiting.at(1)
        waiting.close()
        await asyncio.sleep(1000)
        assert (before.asked_at, waiting.asked_at) == ([], [0])

        async def forever() -> Answer:
            await asyncio.Event().wait()
            raise AssertionError

        hanging = Discovery("app", "app.test", forever, lambda: None, asyncio.get_running_loop())
        await asyncio.sleep(1)
        hanging.close()
        await asyncio.sleep(1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    on_virtual_time(main)
