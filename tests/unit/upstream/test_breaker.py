"""The circuit breaker: what opens it, what closes it, and what never does."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from quicedge.config.limits import BREAKER_NETWORKS, BREAKER_SLICES
from quicedge.config.schema import CircuitBreaker
from quicedge.http.errors import OriginFailure
from quicedge.shares import Client
from quicedge.telemetry.upstreams import Circuit
from quicedge.upstream.breaker import Breaker, Call, Window
from tests.support.origins import (
    OK,
    eventually,
    fetch,
    origin,
    read_head,
    request,
    says,
    send,
    upstream,
)
from tests.support.peers import free_port

BAD = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"


class World:
    """A breaker on a clock that the test moves."""

    def __init__(self, **settings: Any) -> None:
        self.now = 1000.0
        self.breaker = Breaker("app", CircuitBreaker(**settings), lambda: self.now)

    @property
    def state(self) -> Circuit:
        return self.breaker.state

    def admit(self, client: Client | None = None) -> Call:
        call = self.breaker.admit(client)
        assert call is not None
        return call

    def ok(self, count: int = 1) -> None:
        for _ in range(count):
            self.admit().answered(200)

    def fail(self, count: int = 1) -> None:
        for _ in range(count):
            self.admit().failed(OriginFailure.RESET)


def test_it_opens_when_half_of_enough_requests_fail() -> None:
    here = World()
    here.ok(10)
    here.fail(9)
    assert here.state is Circuit.CLOSED
    here.fail()
    assert here.state is Circuit.OPEN
    assert here.breaker.admit() is None
    error = here.breaker.refusal()
    assert (error.kind, error.kind.status, error.retry_after) == ("circuit_open", 503, 5)


def test_a_single_failure_of_few_requests_never_opens_it() -> None:
    here = World(failures=0.01)
    for _ in range(1000):
        here.fail()
        here.now += 1.0  # ten in a window
    assert here.state is Circuit.CLOSED


def test_answers_that_take_long_are_no_failures() -> None:
    here = World(failures=0.01, min_requests=1)
    slow = deque(here.admit() for _ in range(500))
    while slow:
        here.now += 59.0
        slow.popleft().answered(200)
    assert here.state is Circuit.CLOSED


@pytest.mark.parametrize("status", [200, 304, 404, 429, 500])
def test_only_the_configured_statuses_are_failures(status: int) -> None:
    here = World(min_requests=1)
    for _ in range(100):
        here.admit().answered(status)
    assert here.state is Circuit.CLOSED
    for _ in range(100):
        here.admit().answered(502)
        if here.state is Circuit.OPEN:
            break
    assert here.state is Circuit.OPEN


def test_what_clients_and_our_own_limits_end_tells_nothing_of_the_upstream() -> None:
    here = World(min_requests=1, failures=0.01)
    for kind in OriginFailure:
        if kind not in (
            OriginFailure.CONNECT, OriginFailure.CONNECT_TIMEOUT, OriginFailure.TLS,
            OriginFailure.FIRST_BYTE_TIMEOUT, OriginFailure.IDLE_TIMEOUT, OriginFailure.RESET,
            OriginFailure.PROTOCOL,
        ):  # fmt: skip
            here.admit().failed(kind)
    here.admit().abandoned()
    assert here.state is Circuit.CLOSED
    here.admit().failed(OriginFailure.FIRST_BYTE_TIMEOUT)
    assert here.state is Circuit.OPEN


def test_failures_of_the_past_expire() -> None:
    here = World()
    here.fail(19)
    here.now += 10.1
    here.fail(19)
    assert here.state is Circuit.CLOSED
    here.now += 5.0
    here.fail()
    assert here.state is Circuit.OPEN


def test_some_requests_are_tried_and_close_it_when_all_succeed() -> None:
    here = World(probes=3)
    here.fail(20)
    here.now += 5.0
    tried = [here.admit() for _ in range(3)]
    assert here.state is Circuit.HALF_OPEN
    assert here.breaker.admit() is None
    assert here.breaker.refusal().retry_after == 1
    for call in tried[:2]:
        call.answered(200)
        assert here.breaker.admit() is None, "no more than three in all"
    tried[2].answered(404)
    assert here.state is Circuit.CLOSED
    here.fail(19)
    assert here.state is Circuit.CLOSED, "it begins anew"


def test_one_that_fails_opens_it_again_for_longer() -> None:
    here = World()
    here.fail(20)
    for seconds in (10, 15, 20, 25, 30, 35, 40, 45, 50, 50, 50):
        here.now = here.breaker._open_until
        here.fail()
        assert here.state is Circuit.OPEN
        assert here.breaker.refusal().retry_after == seconds
    here.now = here.breaker._open_until
    here.ok(5)
    here.now += 1000.0
    here.fail(20)
    assert here.breaker.refusal().retry_after == 5


def test_a_client_that_leaves_during_a_trial_gives_its_place_to_the_next() -> None:
    here = World(probes=1)
    here.fail(20)
    here.now += 5.0
    for _ in range(10):
        call = here.admit()
        assert here.breaker.admit() is None
        call.abandoned()
    here.ok()
    assert here.state is Circuit.CLOSED


def test_requests_of_an_earlier_state_do_not_count() -> None:
    here = World(probes=2)
    old = [here.admit() for _ in range(10)]
    here.fail(20)
    for call in old[:5]:
        call.answered(200)
    assert here.state is Circuit.OPEN
    here.now += 5.0
    tried = here.admit()
    for call in old[5:]:
        call.failed(OriginFailure.RESET)
    assert here.state is Circuit.HALF_OPEN
    tried.answered(200)
    here.ok()
    assert here.state is Circuit.CLOSED


def test_every_change_is_logged_once() -> None:
    here = World(probes=1)
    with capture_logs() as logs:
        here.fail(20)
        for _ in range(50):
            here.breaker.admit()
        here.now += 5.0
        here.ok()
    assert [line["event"] for line in logs] == [
        "circuit open: requests fail",
        "circuit half open: trying requests",
        "circuit closed: requests succeed again",
    ]
    assert {line["upstream"] for line in logs} == {"app"}
    assert (logs[0]["failures"], logs[0]["requests"], logs[0]["seconds"]) == (20, 20, 5.0)
    assert (here.breaker.opened, here.breaker.refused) == (1, 50)


# --- hostile clients ------------------------------------------------------------------------------


def client(network: int) -> Client:
    prefix = b"\x0a\x00%c" % network
    return Client(prefix + b"\x01", prefix)


def test_one_network_whose_requests_all_fail_does_not_open_it_for_others() -> None:
    here = World()
    here.admit(client(2)).answered(200)
    for number in range(10_000):
        for _ in range(20):
            here.admit(client(1)).failed(OriginFailure.RESET)
        here.admit(client(2 + number % 3)).answered(200)
        here.now += 0.05
    assert here.state is Circuit.CLOSED
    for number in range(1000):
        here.admit(client(2 + number % 3)).answered(502)
        if here.state is Circuit.OPEN:
            break
    assert here.state is Circuit.OPEN, "now it fails for all"


def test_a_network_alone_opens_it_for_itself_and_others_are_tried() -> None:
    here = World()
    for _ in range(20):
        here.admit(client(1)).failed(OriginFailure.RESET)
    assert here.state is Circuit.OPEN
    assert here.breaker.admit(client(1)) is None
    here.admit(client(2)).failed(OriginFailure.RESET)
    assert here.state is Circuit.OPEN, "the upstream fails indeed"
    assert here.breaker.admit(client(3)) is None
    here = World()
    for _ in range(20):
        here.admit(client(1)).failed(OriginFailure.RESET)
    for _ in range(5):
        call = here.admit(client(2))
        assert here.breaker.admit(client(1)) is None, "it has had its turn"
        call.answered(200)
    assert here.state is Circuit.CLOSED


def test_one_network_does_not_keep_it_open_once_the_upstream_has_recovered() -> None:
    here = World()
    for number in range(20):
        here.admit(client(number % 4)).failed(OriginFailure.RESET)
    assert here.state is Circuit.OPEN
    here.now += 5.0
    here.admit(client(1)).failed(OriginFailure.RESET)
    assert here.state is Circuit.OPEN
    here.now += 10.0
    for _ in range(100):
        assert here.breaker.admit(client(1)) is None
    for number in range(5):
        here.admit(client(2 + number % 2)).answered(200)
    assert here.state is Circuit.CLOSED


def test_a_network_that_is_alone_gets_its_trial_in_the_end() -> None:
    here = World(probes=1)
    for _ in range(20):
        here.admit(client(1)).failed(OriginFailure.RESET)
    here.now += 5.0
    here.admit(client(1)).failed(OriginFailure.RESET)
    here.now += 10.0
    assert here.breaker.admit(client(1)) is None
    here.now += 1.0
    here.admit(client(1)).answered(200)
    assert here.state is Circuit.CLOSED


def test_a_network_whose_trials_take_long_does_not_keep_it_from_closing() -> None:
    here = World(probes=3, open_for=5.0)
    here.fail(20)
    here.now += 5.0
    slow = [here.admit(client(1)) for _ in range(3)]
    here.now += 4.9
    assert here.breaker.admit(client(2)) is None
    here.now += 0.1
    for _ in range(100):
        assert here.breaker.admit(client(1)) is None
    for number in range(3):
        here.admit(client(2 + number)).answered(200)
    assert here.state is Circuit.CLOSED
    for call in slow:
        call.failed(OriginFailure.RESET)
    assert here.state is Circuit.CLOSED


def test_trials_that_take_longer_than_the_circuit_was_open_close_it_all_the_same() -> None:
    here = World(probes=2, open_for=5.0)
    here.fail(20)
    here.now += 5.0
    tried = [here.admit(client(1)), here.admit(client(1))]
    here.now += 30.0
    for call in tried:
        call.answered(200)
    assert here.state is Circuit.CLOSED


def test_what_is_counted_by_network_is_bounded() -> None:
    window = Window(10.0)
    for number in range(100_000):
        window.note(number.to_bytes(3, "big"), bool(number % 2), 1.0)
    assert len(window._networks) <= BREAKER_NETWORKS + 1
    assert (window.total.requests, window.total.failures) == (100_000, 50_000)
    window.note(b"x", False, 100.0)
    assert (window.total.requests, len(window._networks)) == (1, 1)


def test_a_long_run_with_many_honest_failures_never_opens_it() -> None:
    here = World()
    for number in range(100_000):
        here.admit().answered(503 if number % 5 < 2 else 200)
        here.now += 0.01
    assert (here.state, here.breaker.opened) == (Circuit.CLOSED, 0)


def test_clients_of_more_networks_than_are_counted_apart_are_judged_like_others() -> None:
    here = World()
    clients = [
        Client(number.to_bytes(4, "big"), number.to_bytes(3, "big")) for number in range(5000)
    ]
    for number in range(50_000):
        here.admit(clients[number % 5000]).answered(503 if number % 5 < 2 else 200)
        here.now += 0.001
    assert (here.state, here.breaker.opened) == (Circuit.CLOSED, 0)
    here.now += 10.0
    for each in clients[:20]:
        here.admit(each).answered(503)
    assert here.state is Circuit.OPEN
    here.now += 5.0
    for each in clients[-5:]:
        here.admit(each).answered(200)
    assert here.state is Circuit.CLOSED


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=60))
def test_the_window_counts_what_is_younger_than_itself(steps: list[tuple[float, bool]]) -> None:
    window, now = Window(10.0), 0.0
    noted: list[tuple[int, bytes, bool]] = []
    for pause, failed in steps:
        now += pause
        network = b"%d" % (len(noted) % 3)
        window.note(network, failed, now)
        noted.append((int(now), network, failed))
        young = [(who, bad) for slot, who, bad in noted if slot > int(now) - BREAKER_SLICES]
        total, rest = window.total, window.without_worst()
        assert (total.requests, total.failures) == (len(young), sum(bad for _, bad in young))
        networks = {who for who, _ in young}
        worst = max(sum(bad for who, bad in young if who == one) for one in networks)
        if len(networks) > 1:
            assert total.failures - rest.failures == worst
        else:
            assert rest is total


@given(st.data())
def test_it_is_open_only_after_enough_failures(data: st.DataObject) -> None:
    here = World(min_requests=10, failures=0.5, probes=2)
    ended: list[bool] = []
    running: list[Call] = []
    for _ in range(data.draw(st.integers(1, 80))):
        match data.draw(st.sampled_from(("begin", "good", "bad", "leave", "wait"))):
            case "begin":
                call = here.breaker.admit()
                if call is not None:
                    running.append(call)
            case "wait":
                here.now += data.draw(st.floats(0, 4))
            case how if running:
                call = running.pop(data.draw(st.integers(0, len(running) - 1)))
                if how == "leave":
                    call.abandoned()
                else:
                    call.answered(502 if how == "bad" else 200)
                    ended.append(how == "bad")
        if here.breaker.opened:
            assert len(ended) >= 10
            assert sum(ended) >= 5
            break
        assert here.state is Circuit.CLOSED


# --- an upstream with it --------------------------------------------------------------------------


async def test_an_upstream_that_fails_is_not_asked_until_it_recovers() -> None:
    settings = {"min_requests": 4, "probes": 1}
    answers, asked, now = BAD, 0, 1000.0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while True:
            await read_head(reader)
            asked += 1
            writer.write(answers)

    async with origin(script) as server, upstream(server, circuit_breaker=settings) as group:
        group.breaker = Breaker("test", group.config.circuit_breaker, lambda: now)  # type: ignore[arg-type]
        for _ in range(4):
            assert (await fetch(group, request())).status == 503
        assert group.state().circuit is Circuit.OPEN
        refused = await fetch(group, request())
        assert refused.kind == "circuit_open"
        assert refused.error is not None
        assert refused.error.retry_after == 5
        assert asked == 4
        answers = OK
        now += 5.0
        assert (await fetch(group, request())).status == 200
        state = group.state()
        assert (state.circuit, state.circuit_opened, state.circuit_refused) == ("closed", 1, 1)


async def test_refused_connections_open_it_and_retries_that_succeed_do_not() -> None:
    settings = {"min_requests": 4, "open_for": 3600}
    gone = f"http://127.0.0.1:{free_port()}"
    async with upstream(gone, circuit_breaker=settings, retries=0) as group:
        kinds = [(await fetch(group, request())).kind for _ in range(5)]
        assert kinds == ["connect"] * 4 + ["circuit_open"]

    async with (
        origin(says(OK)) as server,
        upstream(server, gone, circuit_breaker=settings) as group,
    ):
        for _ in range(20):
            assert (await fetch(group, request())).status == 200
        assert group.state().circuit is Circuit.CLOSED


async def test_requests_that_clients_cancel_do_not_open_it() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    settings = {"min_requests": 1, "failures": 0.01}
    async with origin(silent) as server, upstream(server, circuit_breaker=settings) as group:
        for _ in range(10):
            stream, _ = send(group, request())
            stream.abort()
        running, _ = send(group, request())
        await eventually(lambda: group.stats()[running.server]["active"] == 1)
        running.abort()
        assert group.state().circuit is Circuit.CLOSED
