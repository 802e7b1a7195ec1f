"""The anti-replay register shared by workers, with an in-memory store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog.testing

from quicedge.config.schema import Config, Limits, Quic
from quicedge.downstream.early_data import EarlyData
from quicedge.downstream.shared_anti_replay import SharedAntiReplay
from quicedge.quic.anti_replay import EarlyDataGuard, EarlyDataUse


class Store:
    """Redis, as far as it matters here."""

    def __init__(self, name: str = "one") -> None:
        self.name = name
        self.used: set[str] = set()
        self.asked = 0
        self.waiting = 0
        self.is_down = False
        self.is_silent = False
        self.closed = False

    async def _answer(self) -> None:
        self.asked += 1
        if self.is_silent:
            self.waiting += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.waiting -= 1
        if self.is_down:
            raise ConnectionError("nobody there")

    def restart(self, name: str) -> None:
        self.name = name
        self.used.clear()

    async def identity(self) -> str:
        await self._answer()
        return self.name

    async def use(self, key: str) -> tuple[str, bool]:
        await self._answer()
        is_new = key not in self.used
        self.used.add(key)
        return self.name, is_new

    async def close(self) -> None:
        self.closed = True


class Worker:
    def __init__(self, store: Store) -> None:
        self.register = b""
        self.anti_replay = SharedAntiReplay(store, self._named, lambda: 0.0)
        self.first: list[bytes] = []

    def _named(self, register: bytes) -> None:
        self.register = register

    async def start(self) -> None:
        """As long as it takes to learn the register's name."""
        task = asyncio.ensure_future(self.anti_replay.run())
        await settle()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def ask(self, ticket: bytes, register: bytes | None = None) -> bool:
        use = EarlyDataUse(self.register if register is None else register, ticket)
        before = self.anti_replay.verdicts.total()
        self.anti_replay.ask(use, lambda: self.first.append(ticket))
        async with asyncio.timeout(10):
            while self.anti_replay.verdicts.total() == before:
                await asyncio.sleep(0)
        return ticket in self.first


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_ticket_is_used_once_by_all_workers() -> None:
    store = Store()
    one, two = Worker(store), Worker(store)
    await one.start()
    await two.start()
    assert one.register == two.register != b""
    assert await one.ask(b"ticket")
    assert not await two.ask(b"ticket")
    assert await two.ask(b"another")
    assert one.anti_replay.verdicts == {"first": 1}
    assert two.anti_replay.verdicts == {"used": 1, "first": 1}


async def test_another_register_answers_for_no_older_ticket() -> None:
    store = Store()
    worker = Worker(store)
    await worker.start()
    before = worker.register
    store.restart("started anew")
    assert not await worker.ask(b"ticket", before)
    assert worker.register != before, "new tickets name the register that there is"
    assert await worker.ask(b"younger")


@pytest.mark.parametrize("how", ["is_down", "is_silent"])
async def test_a_store_that_fails_lets_nobody_early(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quicedge.downstream.shared_anti_replay.FLEET_TIMEOUT", 0.01)
    store = Store()
    worker = Worker(store)
    await worker.start()
    setattr(store, how, True)
    with structlog.testing.capture_logs() as lines:
        assert not await worker.ask(b"ticket")
        assert not await worker.ask(b"second")
    assert worker.anti_replay.verdicts == {"unknown": 2}
    assert len(lines) == 1, "said at a bounded rate"


async def test_questions_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicedge.downstream.shared_anti_replay.FLEET_STRIKES_WAITING", 10)
    store = Store()
    store.is_silent = True
    worker = Worker(store)
    use = EarlyDataUse(b"register", b"ticket")
    for _ in range(100):
        worker.anti_replay.ask(use, lambda: None)
    await settle()
    assert store.asked == 10
    assert worker.anti_replay.verdicts == {"busy": 90}
    await worker.start()  # its end is theirs
    await settle()
    assert store.waiting == 0
    assert store.closed


def config(redis: str | None, early_data: bool = True) -> Config:
    return Config(quic=Quic(early_data=early_data), limits=Limits(redis=redis))


async def test_a_reload_joins_a_fleet_and_leaves_it() -> None:
    guard = EarlyDataGuard()
    stores: list[Store] = []

    def open_store(url: str) -> Any:
        stores.append(Store(url))
        return stores[-1]

    early = EarlyData(guard, config(None), open_store)
    own = EarlyDataUse(guard.process, b"own")
    called: list[str] = []
    assert early.is_first(own, lambda: called.append("own"))
    early.configure(config("redis://one"))
    assert guard.register is None, "no ticket promises anything before the store is known"
    assert guard.stamp(b"terms") == b""
    await settle()
    assert guard.register not in (None, guard.process)
    assert early.is_first(own, lambda: called.append("own")), "tickets of before are good here"
    shared = EarlyDataUse(guard.register or b"", b"shared")
    assert not early.is_first(shared, lambda: called.append("shared"))
    await settle()
    assert called == ["shared"]
    early.configure(config("redis://one", early_data=False))
    await settle()
    assert stores[0].closed
    assert guard.register == guard.process
    assert not early.is_first(shared, lambda: called.append("shared"))
    assert not early.is_first(None, lambda: called.append("none"))
    await settle()
    assert called == ["shared"]
    assert early.verdicts == {"first": 3}
