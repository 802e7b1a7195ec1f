"""The phases of a route's filters: order, replies, waiting, failures, and bodies."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Awaitable, Callable, Sequence

import pytest
from structlog.testing import capture_logs

from quicedge.http.message import Field, Request, Response
from quicedge.proxy.body import BodyStage
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters import RouteFilter
from quicedge.proxy.reply import Reply, text_reply
from quicedge.telemetry.outcomes import Outcome
from tests.support.filtered import World, turns


class Marks(RouteFilter):
    """Notes the phases that it sees."""

    def __init__(self, mark: str, seen: list[str]) -> None:
        self._mark, self._seen = mark, seen

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        self._seen.append(f"{self._mark} request")
        return request.with_fields([*request.fields, (b"x-passed", self._mark.encode())])

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        self._seen.append(f"{self._mark} response")
        fields = [*response.fields, (b"x-passed", self._mark.encode())]
        return Response(response.status, fields, response.version)

    def on_done(self, exchange: Exchange) -> None:
        self._seen.append(f"{self._mark} done")


class Requests(RouteFilter):
    """One phase for requests."""

    def __init__(self, phase: Callable[[Request, Exchange], object]) -> None:
        self._phase = phase

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        return self._phase(request, exchange)  # type: ignore[return-value]


class Responses(RouteFilter):
    """One phase for responses."""

    def __init__(self, phase: Callable[[Response, Exchange], object]) -> None:
        self._phase = phase

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        return self._phase(response, exchange)  # type: ignore[return-value]


async def test_requests_pass_filters_in_order_and_responses_in_reverse() -> None:
    seen: list[str] = []
    world = World("", Marks("one", seen), Marks("two", seen))
    client = world.send()
    assert [v for n, v in world.request.fields if n == b"x-passed"] == [b"one", b"two"]
    world.origin.respond(200, {}, b"body")
    assert client.values(b"x-passed") == [b"two", b"one"]
    assert (client.status, client.body, client.ended) == (200, b"body", True)
    assert client.exchange is not None
    client.exchange.delivered()
    assert seen[-2:] == ["one done", "two done"]
    assert seen[:4] == ["one request", "two request", "two response", "one response"]


async def test_an_exchange_without_filters_has_no_way_through_them() -> None:
    world = World()
    client = world.send()
    assert client.exchange is not None
    assert client.exchange.run is None
    world.origin.respond(200, {}, b"body")
    assert client.exchange.run is None
    assert client.body == b"body"


async def test_filters_see_what_origins_get_and_nothing_that_only_the_edge_may_write() -> None:
    seen: list[Request] = []
    world = World("", Requests(lambda request, exchange: seen.append(request) or request))
    world.send(b"/", (b"x-forwarded-for", b"10.0.0.1"), (b"connection", b"x"), (b"accept", b"a"))
    fields = dict(seen[0].fields)
    assert fields[b"x-forwarded-for"] == b"192.0.2.1"
    assert fields[b"accept"] == b"a"
    assert b"connection" not in fields


async def test_a_reply_answers_in_place_of_the_origin_and_passes_all_response_filters() -> None:
    seen: list[str] = []
    answer = text_reply(403, outcome=Outcome.DENIED, reason="because")
    world = World("", Requests(lambda *_: answer), Marks("later", seen))
    client = world.send()
    assert not world.origin.requests
    assert (client.status, client.body, client.ended) == (403, b"403 Forbidden\n", True)
    assert client.value(b"content-length") == b"14"
    assert client.value(b"date") == b"now"
    assert client.value(b"x-passed") == b"later", "a filter behind the one that has answered"
    (record,) = world.log.records
    assert (record.outcome, record.reason) == (Outcome.DENIED, "because")


async def test_errors_of_the_edge_pass_the_filters_of_their_route() -> None:
    seen: list[str] = []
    world = World('[[routes]]\nupstream = "app"\nmax_uri = 5', Marks("m", seen))
    client = world.send(b"/long-path")
    assert (client.status, client.value(b"x-passed")) == (414, b"m")


async def test_the_body_of_a_request_waits_without_credit_for_a_filter_that_takes_time() -> None:
    gate = asyncio.Event()

    async def wait(request: Request) -> Request:
        await gate.wait()
        return request.with_fields([*request.fields, (b"x-waited", b"1")])

    world = World("", Requests(lambda request, exchange: wait(request)))
    client = world.send(method=b"POST", ended=False, length=10)
    exchange = client.exchange
    assert exchange is not None
    exchange.request_data(b"01234")
    assert (world.origin.requests, client.credit) == ([], 0)
    assert exchange.request_paused, "the client is not to blame for the delay"
    exchange.request_data(b"56789")
    exchange.request_end([(b"x-trailer", b"t")])
    gate.set()
    await turns()
    assert world.asked(b"x-waited") == b"1"
    assert (world.origin.body, world.origin.ended, client.credit) == (b"0123456789", True, 10)
    assert world.origin.trailers == [(b"x-trailer", b"t")]
    world.origin.respond(200, {}, b"ok")
    assert client.body == b"ok"


async def test_a_request_that_turns_out_to_have_no_body_is_sent_so_after_a_delay() -> None:
    gate = asyncio.Event()

    async def wait(request: Request) -> Request:
        await gate.wait()
        return request

    world = World("", Requests(lambda request, exchange: wait(request)))
    client = world.send(ended=False)
    assert client.exchange is not None
    client.exchange.request_end()
    gate.set()
    await turns()
    assert world.request.ended


async def test_the_origin_waits_for_a_response_filter_that_takes_time() -> None:
    gate = asyncio.Event()

    async def wait(response: Response) -> Response:
        await gate.wait()
        return Response(201, response.fields, response.version)

    world = World("", Responses(lambda response, exchange: wait(response)))
    client = world.send()
    world.origin.respond(200, {}, b"one", b"two")
    assert world.origin.paused
    assert not client.status
    gate.set()
    await turns()
    assert (client.status, client.body, client.ended) == (201, b"onetwo", True)
    assert not world.origin.paused


async def test_a_filter_is_cancelled_when_its_client_leaves() -> None:
    left = asyncio.Event()

    async def wait(request: Request) -> Request:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return request

    world = World("", Requests(lambda request, exchange: wait(request)))
    client = world.send(method=b"POST", ended=False)
    assert client.exchange is not None
    client.exchange.request_data(b"some")
    await turns()
    client.exchange.connection_lost(Outcome.CLIENT_GONE)
    await asyncio.wait_for(left.wait(), 10)
    assert not world.origin.requests
    assert client.is_done
    assert client.credit == 4


@pytest.mark.filterwarnings("error")
async def test_a_filter_that_is_cancelled_before_it_begins_says_nothing() -> None:
    async def wait() -> None:
        raise AssertionError

    world = World("", Requests(lambda *_: wait()))
    client = world.send()
    assert client.exchange is not None
    client.exchange.connection_lost(Outcome.CLIENT_GONE)
    await turns()
    gc.collect()
    assert client.is_done


async def test_a_filter_that_takes_too_long_fails_its_exchange() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    slow = Requests(lambda *_: wait())
    slow.timeout = 0.01
    world = World("", slow)
    client = world.send()
    async with asyncio.timeout(10):
        while not client.ended:
            await asyncio.sleep(0.005)
    assert client.exchange is not None
    client.exchange.delivered()
    (record,) = world.log.records
    assert client.status == 500
    assert record.outcome is Outcome.FILTER_FAILED
    assert record.reason is not None
    assert "routes[0].filters[0] (test): TimeoutError: took longer than 0.01 s" in record.reason


async def test_a_filter_that_goes_on_when_it_is_cancelled_keeps_nobody_waiting() -> None:
    released = asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    slow = Requests(lambda *_: stubborn())
    slow.timeout = 0.01
    client = World("", slow).send()
    try:
        async with asyncio.timeout(10):
            while not client.ended:
                await asyncio.sleep(0.005)
    finally:
        released.set()
    assert client.status == 500


def fails(*_: object) -> Response:
    raise KeyError("boom")


async def raises(*_: object) -> Response:
    raise KeyError("boom")


def exits(*_: object) -> Response:
    sys.exit("boom")


async def exits_later(*_: object) -> Response:
    await asyncio.sleep(0)
    sys.exit("boom")


async def cancels_itself(*_: object) -> Response:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


FAILURES: dict[str, RouteFilter] = {
    "request": Requests(fails),
    "request, later": Requests(raises),
    "response": Responses(fails),
    "response, later": Responses(raises),
    "no request": Requests(lambda *_: None),
    "no response": Responses(lambda *_: None),
    "not a request": Requests(lambda *_: Response(200)),
    "an exit in a request": Requests(exits),
    "an exit in a request, later": Requests(exits_later),
    "an exit in a response": Responses(exits),
    "an exit in a response, later": Responses(exits_later),
    "a cancelled request": Requests(cancels_itself),
    "a cancelled response": Responses(cancels_itself),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure_costs_one_exchange_and_names_the_filter(name: str) -> None:
    world = World("", FAILURES[name])
    client = world.send()
    await turns()
    if world.origin.requests:
        world.origin.respond(200, {}, b"body")
    await turns()
    assert (client.status, client.body) == (500, b"500 Internal Server Error\n")
    assert client.exchange is not None
    assert client.exchange.outcome is Outcome.FILTER_FAILED
    assert "routes[0].filters[0] (test)" in client.exchange.reason
    world.gateway.use(world.config, world.gateway._router, {"app": world.origin})  # type: ignore[dict-item]
    assert not world.send().status, "the next one is served"


async def test_a_failing_last_phase_leaves_the_exchange_complete() -> None:
    class Last(RouteFilter):
        def on_done(self, exchange: Exchange) -> None:
            raise KeyError("boom")

    world = World("", Last())
    client = world.send()
    world.origin.respond()
    assert client.exchange is not None
    client.exchange.delivered()
    assert world.log.records[0].outcome is Outcome.COMPLETE


async def test_a_reply_replaces_a_response_of_the_origin_with_its_body() -> None:
    page = Reply(Response(404, [(b"content-type", b"text/html")]), b"<h1>gone</h1>")
    world = World("", Responses(lambda response, exchange: page))
    client = world.send()
    world.origin.respond(404, {b"x-app": b"1"}, b"theirs")
    assert (client.status, client.body, client.ended) == (404, b"<h1>gone</h1>", True)
    assert client.value(b"content-length") == b"13"
    assert not world.origin.aborted, "what is short is read to its end"


async def test_an_endless_response_that_is_replaced_is_broken_off() -> None:
    world = World("", Responses(lambda *_: text_reply(503)))
    client = world.send()
    world.origin.respond(500, {}, b"theirs", declared=False, end=False)
    assert (client.status, client.body) == (503, b"503 Service Unavailable\n")
    assert world.origin.aborted


# --- bodies ---------------------------------------------------------------------------------------


class Upper(BodyStage):
    """Shows where it was, and keeps the last byte back until the end."""

    def __init__(self) -> None:
        self.kept = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        whole = self.kept + data.upper()
        self.kept = whole[-1:]
        if whole[:-1]:
            self.sink.write(whole[:-1])

    def end(self, trailers: Sequence[Field]) -> None:
        self.sink.write(self.kept + b"!")
        self.sink.end(trailers)

    def close(self) -> None:
        self.is_closed = True


class Transforming(RouteFilter):
    def __init__(self) -> None:
        self.stages: list[Upper] = []

    def _stage(self) -> Upper:
        self.stages.append(Upper())
        return self.stages[-1]

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        exchange.transform_request(self._stage())
        fields = [field for field in request.fields if field[0] != b"content-length"]
        changed = request.with_fields(fields)
        changed.content_length = None
        return changed

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        exchange.transform_response(self._stage())
        fields = [field for field in response.fields if field[0] != b"content-length"]
        return Response(response.status, fields, response.version)


async def test_bodies_pass_the_stages_of_filters_both_ways() -> None:
    world = World("", Transforming(), Transforming())
    client = world.send(method=b"POST", ended=False)
    assert client.exchange is not None
    client.exchange.request_data(b"abc")
    client.exchange.request_data(b"def")
    assert world.origin.body == b"ABCD"
    client.exchange.request_end()
    assert (world.origin.body, world.origin.ended) == (b"ABCDEF!!", True)
    assert client.credit == 6
    world.origin.respond(200, {}, b"one", b"two")
    assert (client.body, client.ended) == (b"ONETWO!!", True)
    client.exchange.delivered()
    assert world.log.records[0].bytes_sent == 8


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 304), (b"GET", 204)])
async def test_a_response_without_a_body_passes_no_stage(method: bytes, status: int) -> None:
    filter_ = Transforming()
    world = World("", filter_)
    client = world.send(method=method)
    world.origin.respond(status, {}, declared=False)
    assert (client.status, client.body, client.ended) == (status, b"", True)
    assert all(stage.is_closed for stage in filter_.stages)


async def test_backpressure_crosses_the_stages() -> None:
    world = World("", Transforming())
    client = world.send(method=b"POST", ended=False)
    exchange = client.exchange
    assert exchange is not None
    exchange.pause_request()
    exchange.request_data(b"abc")
    assert (exchange.request_paused, client.credit) == (True, 0)
    exchange.resume_request()
    assert (exchange.request_paused, client.credit) == (False, 3)
    world.origin.respond(200, {}, b"one", end=False)
    exchange.pause_response()
    assert world.origin.paused
    exchange.resume_response()
    assert not world.origin.paused


async def test_stages_are_closed_when_the_client_leaves() -> None:
    filter_ = Transforming()
    world = World("", filter_)
    client = world.send()
    world.origin.respond(200, {}, b"one", end=False)
    assert client.exchange is not None
    client.exchange.connection_lost(Outcome.CLIENT_GONE)
    assert [stage.is_closed for stage in filter_.stages] == [True, True]
    assert world.origin.aborted


class Breaking(BodyStage):
    def write(self, data: bytes) -> None:
        raise RuntimeError("boom")


async def test_a_failing_stage_breaks_off_the_response_it_is_in() -> None:
    def phase(response: Response, exchange: Exchange) -> Response:
        exchange.transform_response(Breaking())
        return response

    world = World("", Responses(phase))
    client = world.send()
    world.origin.respond(200, {}, b"one", end=False)
    assert client.was_reset
    assert world.origin.aborted
    assert client.exchange is not None
    assert client.exchange.outcome is Outcome.FILTER_FAILED
    assert client.exchange.reason == "routes[0].filters[0] (test): RuntimeError: boom"


class FailingToClose(BodyStage):
    def close(self) -> None:
        sys.exit("boom")


async def test_a_stage_that_cannot_be_closed_costs_nothing_but_a_line_in_the_log() -> None:
    closed: list[str] = []

    class Closing(BodyStage):
        def close(self) -> None:
            closed.append("the other")

    def phase(response: Response, exchange: Exchange) -> Response:
        exchange.transform_response(FailingToClose())
        exchange.transform_response(Closing())
        return response

    world = World("", Responses(phase))
    client = world.send()
    with capture_logs() as logs:
        world.origin.respond(200, {}, b"body")
    assert (client.status, client.body, client.ended) == (200, b"body", True)
    assert closed == ["the other"]
    (line,) = [line for line in logs if line["event"] == "filter failed"]
    assert (line["filter"], line["reason"]) == ("routes[0].filters[0] (test)", "SystemExit: boom")


async def test_a_reply_passes_the_stages_of_response_filters() -> None:
    world = World("", Requests(lambda *_: text_reply(200)), Transforming())
    client = world.send()
    assert client.body == b"200 OK\n!"
    assert client.ended


async def test_an_exchange_with_filters_is_freed_when_it_ends_without_garbage_collection() -> None:
    world = World("", Transforming())
    client = world.send()
    world.origin.respond(200, {}, b"one")
    gc.disable()
    try:
        exchange = client.exchange
        assert exchange is not None
        exchange.delivered()
        ended = weakref.ref(exchange.downstream)
        world.origin.handler = client.exchange = None
        del exchange, client
        assert ended() is None
    finally:
        gc.enable()


async def test_a_tunnel_opens_only_if_the_filters_let_it() -> None:
    def refuse(request: Request, exchange: Exchange) -> Awaitable[Reply]:
        async def late() -> Reply:
            await asyncio.sleep(0)
            return text_reply(401)

        return late()

    world = World("", Requests(refuse))
    client = world.send(method=b"CONNECT", ended=False, protocol=b"websocket")
    await turns()
    assert client.status == 401
    assert not world.origin.requests
    gate = asyncio.Event()

    async def wait(request: Request) -> Request:
        await gate.wait()
        return request

    world = World("", Requests(lambda request, exchange: wait(request)))
    client = world.send(method=b"CONNECT", ended=False, protocol=b"websocket")
    assert client.exchange is not None
    client.exchange.request_end()
    gate.set()
    await turns()
    assert not world.request.ended, "a client may end its half before the tunnel is open"
    assert world.origin.ended
    world = World("", Marks("m", []))
    client = world.send(method=b"CONNECT", ended=False, protocol=b"websocket")
    assert world.asked(b"x-passed") == b"m"
    world.origin.handler.established(Response(200, [], b"1.1"))
    assert client.status == 200
    assert client.exchange is not None
    client.exchange.request_data(b"ping")
    assert world.origin.body == b"ping"
