"""Exchanges through filters of all kinds, whatever happens in whichever order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, Request, Response
from quicedge.proxy.body import BodyStage
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters import RouteFilter
from quicedge.proxy.filters.buffer import Buffer
from quicedge.proxy.reply import Reply, text_reply
from quicedge.proxy.spill import SpillPools
from quicedge.telemetry.outcomes import Outcome
from quicedge.upstream.base import UpstreamError
from tests.support.filtered import Client, World, turns

HOW = ("pass", "reply", "raise", "late pass", "late reply", "late raise", "transform")


class Counting(BodyStage):
    """Doubles what passes, and knows whether it was closed."""

    def __init__(self, stages: list[Counting]) -> None:
        self.is_closed = False
        stages.append(self)

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.sink.write(data + data)

    def end(self, trailers: Sequence[Field]) -> None:
        assert not self.is_closed
        self.sink.end(trailers)

    def close(self) -> None:
        self.is_closed = True


class Anything(RouteFilter):
    """Does one of `HOW` in each phase."""

    def __init__(self, on_request: str, on_response: str, stages: list[Counting]) -> None:
        self._request_how, self._response_how = on_request, on_response
        self._stages = stages

    def on_request(
        self, request: Request, exchange: Exchange
    ) -> Request | Reply | Awaitable[Request | Reply]:
        if self._request_how == "transform":
            exchange.transform_request(Counting(self._stages))
        return self._do(self._request_how, request)

    def on_response(
        self, response: Response, exchange: Exchange
    ) -> Response | Reply | Awaitable[Response | Reply]:
        fields = [line for line in response.fields if line[0] != b"content-length"]
        if self._response_how == "transform":
            exchange.transform_response(Counting(self._stages))
            response = Response(response.status, fields, response.version)
        return self._do(self._response_how, response)

    def _do(self, how: str, message):  # type: ignore[no-untyped-def]
        if how == "raise":
            raise RuntimeError("boom")
        if how == "reply":
            return text_reply(418)
        if how.startswith("late"):
            return self._late(how, message)
        return message

    async def _late(self, how: str, message):  # type: ignore[no-untyped-def]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self._do(how.removeprefix("late "), message)


STEPS = st.lists(
    st.sampled_from(
        ["turn", "turn", "turn", "data", "data", "end", "abort", "stop", "lost", "respond", "piece",
         "finish", "fail", "pause request", "resume request", "pause response", "resume response",
         "delivered", "tick"]
    ),
    max_size=25,
)  # fmt: skip
FILTERS = st.lists(st.tuples(st.sampled_from(HOW), st.sampled_from(HOW)), max_size=3)


class Drive:
    """Applies steps as sessions and origins do: none of them in a state that has no such step."""

    def __init__(self, world: World, client: Client) -> None:
        self.world, self.client = world, client
        assert client.exchange is not None
        self.exchange = client.exchange
        self.sent = 0
        self.request_over = self.gone = False
        self.opened = self.responded = self.origin_over = False

    async def step(self, name: str) -> None:
        exchange, origin = self.exchange, self.world.origin
        if name == "turn":
            await turns(1)
        elif self.gone:
            return
        elif name == "data" and not self.request_over:
            self.sent += 7
            exchange.request_data(b"content")
        elif name == "end" and not self.request_over:
            self.request_over = True
            exchange.request_end()
        elif name == "abort" and not self.request_over:
            self.request_over = self.gone = True
            exchange.request_aborted()
        elif name == "stop":
            self.gone = True
            exchange.response_stopped()
        elif name == "lost":
            self.gone = True
            exchange.connection_lost(Outcome.CLIENT_GONE)
        elif name == "pause response":
            exchange.pause_response()
        elif name == "resume response":
            exchange.resume_response()
        elif name == "delivered" and self.client.ended:
            exchange.delivered()
        elif name == "tick":
            exchange.check_held_head(10.0)
        elif origin.requests and not origin.aborted and not self.origin_over:
            self._origin_step(name)

    def _origin_step(self, name: str) -> None:
        handler = self.world.origin.handler
        if name == "respond" and not self.responded:
            self.responded = True
            handler.response(Response(200, [(b"content-type", b"text/plain")], b"1.1"))
        elif name == "piece" and self.responded:
            handler.data(b"piece")
        elif name == "finish" and self.responded:
            self.origin_over = True
            handler.end(())
        elif name == "fail":
            self.origin_over = True
            handler.failed(UpstreamError(OriginFailure.RESET, "gone"))
        elif name == "pause request":
            handler.pause_request()
        elif name == "resume request":
            handler.resume_request()


@settings(max_examples=100, deadline=None)
@given(filters=FILTERS, steps=STEPS, buffers=st.booleans())
async def test_every_exchange_ends_once_and_leaves_nothing(
    filters: list[tuple[str, str]], steps: list[str], buffers: bool
) -> None:
    stages: list[Counting] = []
    built: list[RouteFilter] = [Anything(*how, stages) for how in filters]
    pools = SpillPools.of_worker()
    if buffers:
        section = World("[[routes]]\nfilters = [{ buffer = { request = true, response = true } }]\n"
                        "upstream = 'app'").config.routes[0].filters[0].buffer  # fmt: skip
        assert section is not None
        built.insert(0, Buffer(section, pools))
    world = World("", *built)
    client = world.send(method=b"POST", ended=False)
    if client.exchange is None:
        return
    drive = Drive(world, client)
    for name in steps:
        await drive.step(name)
    # Whatever is left, the client leaves in the end.
    await turns(12)
    drive.exchange.connection_lost(Outcome.CLIENT_GONE)
    if not drive.request_over:
        drive.exchange.request_aborted()
    await turns(12)
    assert client.is_done
    assert len(world.log.records) == 1
    assert client.credit == drive.sent, "all flow-control credit is returned"
    assert all(stage.is_closed for stage in stages)
    assert (pools.memory.held, pools.disk.held) == (0, 0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others
    assert drive.exchange.run is None
