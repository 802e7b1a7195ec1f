"""Memory for responses, and who is stalled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from quicedge.config.limits import RESPONSE_MEMORY_GRAIN, STALLED_AFTER, STALLED_BYTES
from quicedge.downstream.response_account import ResponseAccount
from quicedge.downstream.stalls import Stalls
from quicedge.proxy.response_memory import ResponseMemory
from quicedge.shares import Client

ONE = Client(b"\xc0\x00\x02\x01", b"\xc0\x00\x02")
OTHER = Client(b"\xc6\x33\x64\x01", b"\xc6\x33\x64")
MB = 1024 * 1024


class Loop:
    """Callbacks of the end of this turn."""

    def __init__(self) -> None:
        self.callbacks: list[Any] = []

    def call_soon(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def turn(self) -> None:
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()


class FakeWaiter:
    def __init__(self, share: Client) -> None:
        self.share = share
        self.woken = 0

    def memory_is_free(self) -> None:
        self.woken += 1


def test_a_client_that_holds_its_share_is_short_on_all_its_connections() -> None:
    memory = ResponseMemory(30 * MB, Loop().call_soon)
    accounts = [ResponseAccount(memory, ONE) for _ in range(4)]
    other = ResponseAccount(memory, OTHER)
    for account in accounts:
        assert not account.is_short
        account.settle(5 * MB, 0)
    assert all(account.is_short for account in accounts)
    assert not other.is_short
    accounts[0].settle(0, 0)
    assert not accounts[1].is_short


def test_small_changes_are_not_counted_until_the_end() -> None:
    memory = ResponseMemory(MB, Loop().call_soon)
    account = ResponseAccount(memory, ONE)
    account.settle(RESPONSE_MEMORY_GRAIN - 1, 0)
    assert memory.pool.held == 0
    account.settle(3 * RESPONSE_MEMORY_GRAIN, 0)
    account.settle(3 * RESPONSE_MEMORY_GRAIN - 5, 0)
    assert memory.pool.held == 3 * RESPONSE_MEMORY_GRAIN
    account.settle(5, 0)
    account.settle(0, 0)
    assert memory.pool.held == 0


def test_those_that_wait_are_served_when_memory_is_given_back() -> None:
    loop = Loop()
    memory = ResponseMemory(30 * MB, loop.call_soon)
    greedy = memory.account(ONE)
    greedy.settle(25 * MB)
    waiters = [FakeWaiter(ONE), FakeWaiter(ONE), FakeWaiter(OTHER)]
    for waiter in waiters:
        memory.wait(waiter)
        memory.wait(waiter)
    memory.leave(waiters[1])
    greedy.settle(24 * MB)
    loop.turn()
    assert [w.woken for w in waiters] == [0, 0, 1], "the greedy one holds its share still"
    greedy.settle(MB)
    greedy.settle(0)
    assert len(loop.callbacks) == 1
    loop.turn()
    assert [w.woken for w in waiters] == [1, 0, 1]


# --- stalls -------------------------------------------------------------------------------------


@dataclass
class FakeStream:
    exchange: FakeExchange
    acknowledged: int = 0
    unacknowledged: int = 0
    blocked: bool = False


@dataclass
class FakeExchange:
    bytes_received: int = 0
    request_over: bool = True
    request_paused: bool = False
    response_started: bool = False
    tunnel: object = None
    stalled: bool = False

    def set_stalled(self, stalled: bool) -> None:
        self.stalled = stalled


@dataclass
class FakeSession:
    """A session with its connection; `delivered` is what all its streams got across."""

    streams: dict[int, FakeStream] = field(default_factory=dict)
    delivered: int = 0

    @property
    def progress(self) -> Any:
        return self

    def acknowledged_bytes(self, stream_id: int) -> int:
        return self.streams[stream_id].acknowledged

    def unacknowledged_bytes(self, stream_id: int) -> int:
        return self.streams[stream_id].unacknowledged

    def is_flow_blocked(self, stream_id: int) -> bool:
        return self.streams[stream_id].blocked


def seconds(count: float) -> Iterator[float]:
    """One look per second, from some time on."""
    return (1000.0 + n for n in range(int(count) + 1))


def reading(**state: Any) -> FakeStream:
    return FakeStream(FakeExchange(response_started=True), unacknowledged=100_000, **state)


def watch(session: FakeSession, step: Any = None, count: float = STALLED_AFTER + 1) -> None:
    stalls = Stalls()
    for now in seconds(count):
        stalls.check(session, now)  # type: ignore[arg-type]
        if step is not None:
            step()


def test_a_client_that_grants_nothing_is_stalled_after_a_while() -> None:
    session = FakeSession({0: reading(blocked=True)}, delivered=0)
    watch(session, count=STALLED_AFTER - 1)
    assert not session.streams[0].exchange.stalled
    watch(session)
    assert session.streams[0].exchange.stalled


def test_a_client_that_vanished_is_stalled() -> None:
    session = FakeSession({0: reading()})
    watch(session)
    assert session.streams[0].exchange.stalled


def test_a_slow_phone_is_not_stalled() -> None:
    session = FakeSession({0: reading()})

    def step() -> None:
        session.streams[0].acknowledged += STALLED_BYTES
        session.delivered += STALLED_BYTES

    watch(session, step, count=60)
    assert not session.streams[0].exchange.stalled


def test_a_response_of_small_events_that_are_taken_is_not_stalled() -> None:
    """Fewer than STALLED_BYTES in STALLED_AFTER seconds, and at each check one is in flight."""
    session = FakeSession({0: FakeStream(FakeExchange(response_started=True), unacknowledged=50)})

    def step() -> None:
        assert not session.streams[0].exchange.stalled
        session.streams[0].acknowledged += 50
        session.delivered += 50

    watch(session, step, count=60)


def test_a_response_of_small_events_that_nobody_takes_is_stalled() -> None:
    session = FakeSession({0: FakeStream(FakeExchange(response_started=True), unacknowledged=50)})

    def step() -> None:
        session.streams[0].unacknowledged += 50

    watch(session, step)
    assert session.streams[0].exchange.stalled


def test_a_stream_whose_turn_has_not_come_is_not_stalled() -> None:
    session = FakeSession({0: reading(), 4: reading()})

    def step() -> None:
        session.streams[0].acknowledged += 25_000
        session.delivered += 25_000

    watch(session, step, count=60)
    assert not session.streams[4].exchange.stalled


def test_one_paused_video_is_stalled_while_the_connection_gets_on() -> None:
    session = FakeSession({0: reading(), 4: reading(blocked=True)})

    def step() -> None:
        session.streams[0].acknowledged += 25_000
        session.delivered += 25_000

    watch(session, step)
    assert [s.exchange.stalled for s in session.streams.values()] == [False, True]


@pytest.mark.parametrize(
    ("exchange", "stalled"),
    [
        (FakeExchange(request_over=False), True),
        (FakeExchange(request_over=False, request_paused=True), False),
        (FakeExchange(request_over=False, response_started=True), False),
        (FakeExchange(request_over=True), False),
    ],
    ids=["body does not come", "origin holds it back", "a conversation", "origin thinks"],
)
def test_an_upload_is_stalled_only_while_its_client_has_the_word(
    exchange: FakeExchange, stalled: bool
) -> None:
    session = FakeSession({0: FakeStream(exchange)})
    watch(session)
    assert exchange.stalled is stalled


@pytest.mark.parametrize("is_open", [False, True])
def test_a_tunnel_is_stalled_only_while_its_client_does_not_read(is_open: bool) -> None:
    """Neither one that the origin has not opened yet, nor one in which nobody speaks."""
    exchange = FakeExchange(request_over=False, response_started=is_open, tunnel=object())
    session = FakeSession({0: FakeStream(exchange)})
    watch(session)
    assert not exchange.stalled
    session.streams[0].unacknowledged = 100_000
    watch(session)
    assert exchange.stalled


def test_an_upload_that_comes_slowly_is_not_stalled() -> None:
    exchange = FakeExchange(request_over=False)
    session = FakeSession({0: FakeStream(exchange)})

    def step() -> None:
        exchange.bytes_received += STALLED_BYTES

    watch(session, step, count=60)
    assert not exchange.stalled


# --- honest twins -------------------------------------------------------------------------------


def test_a_phone_that_downloads_50_mb_at_200_kbit_per_second_is_never_stalled_or_late() -> None:
    """While others wait for connections all the time, and over many minutes."""
    stream = FakeStream(FakeExchange(response_started=True), unacknowledged=256_000)
    session = FakeSession({0: stream})
    stalls = Stalls()
    now = 1000.0
    while stream.acknowledged < 50_000_000:
        now += 1.0
        stream.acknowledged += 25_000
        session.delivered += 25_000
        stalls.check(session, now)  # type: ignore[arg-type]
        assert not stream.exchange.stalled


def test_six_tabs_of_a_hundred_slow_images_are_never_stalled() -> None:
    """Of 600 responses on one connection one gets on at a time."""
    session = FakeSession({4 * n: reading() for n in range(600)})
    stalls = Stalls()
    now = 1000.0
    for stream_id in session.streams:
        for _ in range(3):
            now += 1.0
            session.streams[stream_id].acknowledged += 20_000
            session.delivered += 20_000
            stalls.check(session, now)  # type: ignore[arg-type]
        session.streams[stream_id].unacknowledged = 0
        assert not any(stream.exchange.stalled for stream in session.streams.values())


def test_a_thousand_clients_behind_one_address_all_get_their_turn() -> None:
    """Each wants a response of 200 KB and takes it slowly; nobody waits for ever."""
    loop = Loop()
    memory = ResponseMemory(48 * MB, loop.call_soon)

    class Waiting(FakeWaiter):
        started = False

        def memory_is_free(self) -> None:
            if not memory.pool.may_take(ONE):
                memory.wait(self)
                return
            self.started = True
            account_of[self].settle(208_000)

    waiters = [Waiting(ONE) for _ in range(1000)]
    account_of = {waiter: memory.account(ONE) for waiter in waiters}
    for waiter in waiters:
        waiter.memory_is_free()
    most = memory.pool.held
    turns = 0
    running = [waiter for waiter in waiters if waiter.started]
    assert len(running) > 100, "many at a time"
    while running:
        account_of[running.pop(0)].settle(0)
        loop.turn()
        turns += 1
        running = [w for w in waiters if w.started and account_of[w].held]
        assert memory.pool.held <= most + 208_000
    assert all(waiter.started for waiter in waiters)
    assert turns == 1000
