"""Hedged requests on a loop whose clock the test moves, between servers that it answers for."""

from __future__ import annotations

import gc
import random
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import HEDGE_MIN_SAMPLES, RETRY_BUDGET_BURST
from quicedge.config.schema import CircuitBreaker, Hedge, Route
from quicedge.http.message import Request, Response
from quicedge.telemetry.upstreams import Circuit, HedgeResult
from quicedge.upstream.hedging import HedgedStream
from quicedge.upstream.limited import LimitedUpstream, overrides_of
from quicedge.upstream.stream import UpstreamStream
from tests.support.attempts import AnsweredUpstream as World
from tests.support.attempts import Client


def hedged(**options: Any) -> World:
    options.setdefault("hedge", Hedge(after=0.05, max_share=1.0))
    options.setdefault("retry_budget", 1.0)
    return World(**options)


@pytest.fixture
def here() -> World:
    return hedged()


RESPONSE = ["200", "data", "end"]


def test_a_quick_answer_needs_no_second_attempt(here: World) -> None:
    stream, client = here.open()
    here.loop.advance(0.04)
    here.sent[0].answer()
    here.loop.advance(10.0)
    assert (len(here.sent), client.calls, stream.hedge) == (1, RESPONSE, None)


def test_the_first_response_is_taken_and_the_other_attempt_cancelled_at_once(
    here: World,
) -> None:
    stream, client = here.open()
    here.loop.advance(0.06)
    first, second = here.sent
    assert first.server is not second.server
    second.stream.response(Response(200, [], b"1.1"))
    assert first.is_aborted
    assert client.calls == ["200"]
    assert stream.server == second.server.address.text
    second.stream.data(b"body")
    second.stream.end_of_response(())
    assert client.calls == RESPONSE
    assert stream.hedge is HedgeResult.WON
    assert here.counts() == {"won": 1}
    assert all(server.running == 0 for server in here.group.servers)


def test_a_first_attempt_that_answers_after_all_is_taken(here: World) -> None:
    stream, client = here.open()
    here.loop.advance(0.06)
    first, second = here.sent
    first.answer()
    assert second.is_aborted
    assert (client.calls, stream.server) == (RESPONSE, first.server.address.text)
    assert (stream.hedge, here.counts()) == (HedgeResult.LOST, {"lost": 1})


def test_whole_responses_are_taken_too(here: World) -> None:
    _, client = here.open()
    here.loop.advance(0.06)
    here.sent[1].stream.whole(Response(200, [], b"1.1"), b"body")
    assert here.sent[0].is_aborted
    assert client.calls == ["200", "whole"]


def test_an_error_of_the_second_attempt_is_not_taken_while_the_first_is_running(
    here: World,
) -> None:
    for kind in ("response", "whole", "failed"):
        stream, client = here.open()
        here.loop.advance(0.06)
        first, second = here.sent[-2:]
        if kind == "failed":
            second.fail()
        elif kind == "whole":
            second.stream.whole(Response(503, [], b"1.1"), b"")
        else:
            second.stream.response(Response(503, [], b"1.1"))
            assert second.is_aborted
        assert client.calls == []
        first.answer()
        assert (client.calls, stream.hedge) == (RESPONSE, HedgeResult.LOST)


def test_the_second_attempt_decides_when_the_first_has_failed(here: World) -> None:
    for status in (200, 503):
        _, client = here.open()
        here.loop.advance(0.06)
        first, second = here.sent[-2:]
        first.fail()
        assert client.calls == []
        second.answer(status)
        assert client.calls == [str(status), "data", "end"]


def test_when_both_fail_the_client_gets_the_failure_of_the_first(here: World) -> None:
    for order in ((0, 1), (1, 0)):
        stream, client = here.open()
        here.loop.advance(0.06)
        both = here.sent[-2:]
        for index in order:
            both[index].fail()
        assert client.error is not None
        assert client.error.detail == both[0].server.address.text
        assert client.calls == ["reset"]
        assert stream.hedge is HedgeResult.LOST


def test_a_failure_before_the_time_is_told_at_once(here: World) -> None:
    _, client = here.open()
    here.sent[0].fail()
    assert client.calls == ["reset"]
    here.loop.advance(1.0)
    assert len(here.sent) == 1


def test_requests_that_may_change_something_or_have_content_are_sent_once(
    here: World,
) -> None:
    for method, ended in (
        (b"POST", True), (b"PUT", True), (b"DELETE", True), (b"OPTIONS", True), (b"GET", False),
        (b"HEAD", False),
    ):  # fmt: skip
        stream, _ = here.open(method, ended=ended)
        assert isinstance(stream, UpstreamStream)
        before = len(here.sent)
        here.loop.advance(1.0)
        assert len(here.sent) == before
    tunnel, _ = here.open(b"CONNECT", ended=False, protocol=b"websocket")
    assert isinstance(tunnel, UpstreamStream)
    for method in (b"GET", b"HEAD"):
        assert isinstance(here.open(method)[0], HedgedStream)


def test_once_anything_went_to_the_client_there_is_no_second_attempt(
    here: World,
) -> None:
    _, client = here.open()
    here.sent[0].stream.informational(Response(103, [], b"1.1"))
    here.loop.advance(1.0)
    assert len(here.sent) == 1
    here.sent[0].answer()
    assert client.calls == ["103", *RESPONSE]


def test_early_hints_of_one_attempt_end_the_other(here: World) -> None:
    _, client = here.open()
    here.loop.advance(0.06)
    here.sent[1].stream.informational(Response(103, [], b"1.1"))
    assert here.sent[0].is_aborted
    here.sent[1].fail()
    assert client.calls == ["103", "reset"]


def test_a_client_that_leaves_ends_both_attempts(here: World) -> None:
    for seconds in (0.01, 0.06):
        before = len(here.sent)
        stream, client = here.open()
        here.loop.advance(seconds)
        stream.abort()
        stream.abort()
        assert all(sent.is_aborted for sent in here.sent[before:])
        here.loop.advance(1.0)
        assert client.calls == []
        assert all(server.running == 0 for server in here.group.servers)


def test_a_client_that_leaves_during_the_response_ends_it(here: World) -> None:
    stream, _ = here.open()
    here.loop.advance(0.06)
    here.sent[1].stream.response(Response(200, [], b"1.1"))
    stream.abort()
    assert here.sent[1].is_aborted


def test_a_paused_client_pauses_whatever_answers(here: World) -> None:
    stream, _ = here.open()
    stream.pause()
    stream.stalled = True
    here.loop.advance(0.06)
    first, second = here.sent
    assert first.is_paused
    assert second.is_paused
    assert second.stream.stalled
    stream.resume()
    assert not first.is_paused
    assert not second.is_paused
    second.stream.response(Response(200, [], b"1.1"))
    stream.pause()
    assert second.is_paused
    assert not first.is_paused


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_second_attempts_are_a_share_of_the_requests(share: float) -> None:
    here = hedged(hedge=Hedge(after=0.05, max_share=share))
    for _ in range(1000):
        here.open()
    here.loop.advance(0.06)
    second = len(here.sent) - 1000
    assert second <= RETRY_BUDGET_BURST + share * 1000
    assert here.counts() == {"refused": 1000 - second}


def test_second_attempts_count_as_retries() -> None:
    here = hedged(retry_budget=0.0)
    for _ in range(100):
        here.open()
    here.loop.advance(0.06)
    assert len(here.sent) - 100 == RETRY_BUDGET_BURST


def test_only_a_server_that_is_up_and_of_the_same_tier_gets_a_second_attempt() -> None:
    here = hedged(servers=2, tiers=(0, 1))
    stream, _ = here.open()
    here.loop.advance(0.06)
    assert (len(here.sent), stream.hedge) == (1, HedgeResult.REFUSED)
    here = hedged(servers=3)
    for server in here.group.servers[1:]:
        server.health.eject(3600)
    for _ in range(3):
        here.open()
    here.loop.advance(0.06)
    assert {sent.server for sent in here.sent} == {here.group.servers[0]}
    here = hedged(servers=1)
    here.open()
    here.loop.advance(0.06)
    assert len(here.sent) == 1


def test_a_quantile_is_known_after_enough_requests_and_hedges_its_share() -> None:
    here = hedged(hedge=Hedge(after="p95", max_share=0.5))
    second = 0
    for number in range(2000):
        _, client = here.open()
        asked = len(here.sent)
        here.loop.advance(0.001 * (1 + number % 100))
        second += len(here.sent) - asked
        if number < HEDGE_MIN_SAMPLES:
            assert not second
        here.sent[asked - 1].answer()
        assert client.calls == RESPONSE
    assert 0.02 * 2000 < second < 0.08 * 2000


def test_cancelled_first_attempts_do_not_lower_the_quantile() -> None:
    here = hedged(hedge=Hedge(after="p95", max_share=1.0))
    second = 0
    for number in range(3000):
        here.open()
        asked = len(here.sent)
        # One in twenty hangs; the second attempt answers those at once.
        here.loop.advance(0.001 * (number % 20) if number % 20 else 0.5)
        second += len(here.sent) > asked
        here.sent[-1].answer()
    assert 0.02 * 3000 < second < 0.1 * 3000


def test_a_steady_upstream_never_meets_the_limits_of_second_attempts() -> None:
    here = hedged(hedge=Hedge(), retry_budget=0.2)
    draws = random.Random(7)
    for _ in range(20_000):
        here.open()
        here.loop.advance(draws.expovariate(1 / 0.02))
        here.sent[-1].answer()
        here.sent.clear()
    assert here.counts().keys() == {"won"}
    assert 0.02 * 20_000 < here.counts()["won"] < 0.08 * 20_000


def test_nothing_of_a_request_waits_for_the_garbage_collector(here: World) -> None:
    gc.collect()
    gc.disable()
    try:
        for how in ("first", "second", "fail", "leave"):
            stream, client = here.open()
            known = weakref.ref(client)
            here.loop.advance(0.06)
            first, second = here.sent
            if how == "leave":
                stream.abort()
            elif how == "fail":
                first.fail()
                second.fail()
            else:
                (first if how == "first" else second).answer()
            here.sent.clear()
            del stream, client, first, second
            here.loop.advance(1.0)
            assert known() is None, how
    finally:
        gc.enable()


def test_a_route_can_have_hedging_of_its_own() -> None:
    here = hedged(hedge=None)
    assert isinstance(here.open()[0], UpstreamStream)
    overrides = overrides_of(Route(hedge=Hedge(after=0.01)))
    route = LimitedUpstream(here.group, overrides)
    request = Request(b"GET", b"https", b"a.test", b"/", [], ended=True)
    client = Client()
    route.open(request, client)
    here.loop.advance(0.02)
    here.sent[-1].answer()
    assert client.calls == RESPONSE
    assert here.counts() == {"won": 1}


def test_an_open_circuit_counts_one_request_and_is_not_hedged_while_it_is_tried() -> None:
    here = hedged(circuit_breaker=CircuitBreaker(min_requests=2, probes=1, open_for=1e-9))
    breaker = here.group.breaker
    assert breaker is not None
    for _ in range(2):
        here.open()
        here.loop.advance(0.06)
        for sent in here.sent[-2:]:
            sent.fail()
    assert breaker.state is Circuit.OPEN
    before = len(here.sent)
    _, client = here.open()
    assert breaker.state is Circuit.HALF_OPEN
    here.loop.advance(0.06)
    assert len(here.sent) == before + 1
    here.sent[-1].stream.informational(Response(103, [], b"1.1"))
    here.sent[-1].answer()
    assert client.calls == ["103", *RESPONSE]
    assert breaker.state is Circuit.CLOSED


@given(st.data())
def test_in_any_order_a_client_gets_one_response_or_failure(data: st.DataObject) -> None:
    here = hedged()
    stream, client = here.open()
    is_left = False
    for _ in range(data.draw(st.integers(1, 12))):
        running = [sent for sent in here.sent if not sent.is_aborted and sent.stream.chosen]
        step = data.draw(
            st.sampled_from(("wait", "hint", "answer", "bad", "whole", "fail", "leave"))
        )
        if step == "wait":
            here.loop.advance(0.03)
        elif step == "leave":
            stream.abort()
            is_left = True
            seen = list(client.calls)
        elif running:
            sent = data.draw(st.sampled_from(running))
            match step:
                case "hint":
                    sent.stream.informational(Response(103, [], b"1.1"))
                case "whole":
                    sent.stream.whole(Response(200, [], b"1.1"), b"")
                case "fail":
                    sent.fail()
                case _:
                    sent.answer(200 if step == "answer" else 503)
        if is_left:
            assert client.calls == seen
    ends = [call for call in client.calls if call in ("end", "whole", "reset")]
    assert len(ends) <= 1
    assert len(here.sent) <= 2
    stream.abort()
    here.loop.advance(100.0)
    assert all(server.running == 0 for server in here.group.servers)
    assert sum(here.counts().values()) <= 1
