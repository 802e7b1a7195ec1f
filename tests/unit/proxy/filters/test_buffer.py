"""Buffering of bodies, in memory and on disk."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.filterlimits import BUFFER_PIECE
from quicedge.config.filters import Buffer as BufferSettings
from quicedge.http.message import Request, Response
from quicedge.proxy.body import BodyStage
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters import RouteFilter
from quicedge.proxy.filters.buffer import Buffer
from quicedge.proxy.spill import Spill, SpillPools
from quicedge.shares import Client, Pool
from quicedge.telemetry.outcomes import Outcome
from tests.support.filtered import World, turns

BIG = bytes(range(256)) * 2000
"""512 KB."""
ME = Client(b"\x01\x02\x03\x04", b"\x01\x02\x03")


class Files(list[IO[bytes]]):
    """The files that buffers have opened."""

    @property
    def open(self) -> int:
        return sum(not file.closed for file in self)


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    opened = Files()
    make = tempfile.TemporaryFile

    def note(*arguments: Any, **options: Any) -> IO[bytes]:
        opened.append(make(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", note)
    return opened


def world(settings: str) -> World:
    return World(f"[[routes]]\nupstream = 'app'\nfilters = [{{ buffer = {{ {settings} }} }}]")


@pytest.mark.parametrize("memory", [1000, 1_000_000])
async def test_a_request_is_sent_when_it_is_complete(files: Files, memory: int) -> None:
    here = world(f"request = true, memory = {memory}")
    client = here.send(method=b"POST", ended=False)
    exchange = client.exchange
    assert exchange is not None
    await turns()
    for start in range(0, len(BIG), 50_000):
        exchange.request_data(BIG[start : start + 50_000])
    assert client.credit == len(BIG), "the client is not held up"
    assert not exchange.request_paused, "nor excused"
    assert not here.origin.requests
    exchange.request_end([(b"x-trailer", b"1")])
    await turns(30)
    assert here.asked(b"content-length") == b"%d" % len(BIG)
    assert here.request.content_length == len(BIG)
    assert (here.origin.body, here.origin.ended) == (BIG, True)
    assert here.origin.trailers == [(b"x-trailer", b"1")]
    here.origin.respond(200, {}, b"ok")
    assert client.body == b"ok"
    assert files.open == 0


async def test_an_origin_that_is_slow_gets_a_buffered_request_at_its_pace() -> None:
    here = world("request = true")
    client = here.send(method=b"POST", ended=False)
    exchange = client.exchange
    assert exchange is not None
    await turns()
    exchange.request_data(BIG)
    exchange.request_end()
    await turns(2)
    exchange.pause_request()
    await turns(30)
    assert len(here.origin.body) <= 2 * BUFFER_PIECE
    exchange.resume_request()
    await turns(30)
    assert (here.origin.body, here.origin.ended) == (BIG, True)


async def test_a_client_that_waits_for_permission_gets_it() -> None:
    here = world("request = true")
    client = here.send(b"/", (b"expect", b"100-continue"), method=b"POST", ended=False, length=3)
    assert client.exchange is not None
    await turns()
    assert [response.status for response in client.interim] == [100]
    client.exchange.request_data(b"abc")
    client.exchange.request_end()
    await turns()
    assert here.asked(b"expect") is None
    assert here.asked(b"content-length") == b"3"
    assert here.origin.body == b"abc"


async def test_a_request_without_a_body_does_not_wait() -> None:
    here = world("request = true")
    here.send()
    assert here.request.ended
    client = here.send(method=b"POST", ended=False)
    assert client.exchange is not None
    client.exchange.request_end()
    await turns()
    assert here.request.ended
    assert here.asked(b"content-length") is None


async def test_a_request_beyond_the_buffer_is_refused_and_leaves_nothing(files: Files) -> None:
    here = world("request = true, memory = 1000, max_size = 100000")
    client = here.send(method=b"POST", ended=False)
    assert client.exchange is not None
    await turns()
    client.exchange.request_data(BIG[:90_000])
    assert files.open == 1
    client.exchange.request_data(BIG[:20_000])
    assert client.status == 413
    assert not here.origin.requests
    assert files.open == 0


async def test_a_full_disk_costs_one_exchange_and_names_the_filter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    here = world("request = true, memory = 0")
    client = here.send(method=b"POST", ended=False)
    assert client.exchange is not None
    await turns()
    monkeypatch.setattr("os.pwrite", fail)
    client.exchange.request_data(BIG)
    assert client.status == 500
    assert client.exchange.reason == (
        "routes[0].filters[0] (buffer): OSError: [Errno 28] No space left on device"
    )
    assert client.credit == len(BIG)


async def test_a_client_that_leaves_leaves_nothing(files: Files) -> None:
    here = world("request = true, memory = 1000")
    client = here.send(method=b"POST", ended=False)
    assert client.exchange is not None
    await turns()
    client.exchange.request_data(BIG)
    client.exchange.connection_lost(Outcome.CLIENT_GONE)
    await turns()
    assert files.open == 0


@pytest.mark.parametrize("memory", [1000, 1_000_000])
async def test_an_origin_is_free_before_its_client_has_the_response(
    files: Files, memory: int
) -> None:
    here = world(f"response = true, memory = {memory}")
    client = here.send()
    exchange = client.exchange
    assert exchange is not None
    here.origin.respond(200, {}, BIG[:1000], end=False)
    exchange.pause_response()
    for start in range(1000, len(BIG), 50_000):
        here.origin.handler.data(BIG[start : start + 50_000])
    here.origin.handler.end([(b"x-trailer", b"1")])
    assert not here.origin.paused
    assert client.body == BIG[:1000]
    assert not exchange.response_over
    await turns()
    assert len(client.body) == 1000
    exchange.resume_response()
    await turns(30)
    assert (client.body, client.ended, client.trailers) == (BIG, True, [(b"x-trailer", b"1")])
    exchange.delivered()
    assert here.log.records[0].outcome is Outcome.COMPLETE
    assert not here.origin.aborted
    assert files.open == 0


async def test_an_origin_waits_when_the_buffer_is_full() -> None:
    here = world("response = true, memory = 1000, max_size = 100000")
    client = here.send()
    exchange = client.exchange
    assert exchange is not None
    here.origin.respond(200, {}, declared=False, end=False)
    exchange.pause_response()
    here.origin.handler.data(BIG[:99_000])
    assert not here.origin.paused
    here.origin.handler.data(BIG[:10_000])
    assert here.origin.paused
    exchange.resume_response()
    await turns()
    assert not here.origin.paused
    assert client.body == BIG[:99_000] + BIG[:10_000]
    here.origin.handler.end(())
    await turns()
    assert client.ended


async def test_a_client_that_leaves_a_buffered_response_leaves_nothing(files: Files) -> None:
    here = world("response = true, memory = 0")
    client = here.send()
    assert client.exchange is not None
    here.origin.respond(200, {}, declared=False, end=False)
    client.exchange.pause_response()
    here.origin.handler.data(BIG)
    here.origin.handler.end(())
    assert files.open == 1
    client.exchange.connection_lost(Outcome.CLIENT_GONE)
    await asyncio.sleep(0)
    assert files.open == 0
    assert not here.origin.aborted, "it was done"


async def test_what_a_worker_buffers_is_shared_fairly() -> None:
    pools = SpillPools(Pool(3000), Pool(3000))
    spill = Spill(1000, pools, ME)
    while spill.may_grow:
        spill.append(b"x" * 100)
    assert spill.size < 4000, "some is left for others"
    assert Spill(0, pools, Client(b"\x05", b"\x05")).may_grow
    spill.close()
    assert (pools.memory.held, pools.disk.held) == (0, 0)


@given(
    st.lists(st.one_of(st.binary(min_size=1, max_size=300), st.integers(1, 400)), max_size=40),
    st.integers(0, 500),
)
def test_a_spill_is_a_queue_of_bytes(steps: list[bytes | int], memory: int) -> None:
    pools = SpillPools(Pool(1 << 20), Pool(1 << 20))
    spill = Spill(memory, pools, ME)
    given_, taken = b"", b""
    for step in steps:
        if isinstance(step, bytes):
            spill.append(step)
            given_ += step
        else:
            taken += spill.read(step)
        assert spill.size == len(given_) - len(taken)
    while spill.size:
        taken += spill.read(100)
    assert taken == given_
    assert spill.read(100) == b""
    spill.close()
    assert (pools.memory.held, pools.disk.held) == (0, 0)


class Breaking(BodyStage):
    def write(self, data: bytes) -> None:
        raise RuntimeError("boom")


class Transforming(RouteFilter):
    """Lets both bodies pass a stage that fails."""

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        exchange.transform_request(Breaking())
        return request

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        exchange.transform_response(Breaking())
        return response


async def test_a_stage_that_fails_behind_a_buffered_request_ends_its_exchange() -> None:
    here = World("[[routes]]\nupstream = 'app'\nfilters = [{ buffer = { request = true } }]",
                 Transforming())  # fmt: skip
    client = here.send(method=b"POST", ended=False, length=4)
    await turns()
    assert client.exchange is not None
    client.exchange.request_data(b"body")
    client.exchange.request_end()
    await turns()
    assert client.status == 500
    assert client.exchange.outcome is Outcome.FILTER_FAILED
    assert client.exchange.reason == "routes[0].filters[0] (test): RuntimeError: boom"
    assert here.origin.aborted


async def test_a_stage_that_fails_behind_a_buffered_response_ends_its_exchange() -> None:
    buffer = Buffer(BufferSettings(response=True), SpillPools.of_worker())
    here = World("", Transforming(), buffer)
    client = here.send()
    assert client.exchange is not None
    here.origin.handler.response(Response(200, [], b"1.1"))
    client.exchange.pause_response()
    here.origin.handler.data(b"body")
    assert not client.was_reset, "it is in the buffer"
    client.exchange.resume_response()
    await turns()
    assert client.was_reset
    assert client.exchange.outcome is Outcome.FILTER_FAILED
