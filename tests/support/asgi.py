"""Unit-test ends for applications: an upstream that calls one, and its response handler."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, NamedTuple

from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.message import Field, Request, Response
from quicedge.upstream.asgi.upstream import AsgiUpstream
from quicedge.upstream.base import OriginStream, UpstreamError

TIMEOUT = 10

_numbers = count()


class Facts(NamedTuple):
    """As `proxy.client.Transport`."""

    smoothed_rtt: float


class Peer:
    """A client over HTTP/3."""

    address = ("192.0.2.1", 4000)
    local_address = ("198.51.100.1", 443)
    http_version = b"3"
    transport = Facts(0.02)


class Answer:
    """A response handler that records everything; pauses the stream after each piece if told to."""

    def __init__(self, *, pausing: bool = False) -> None:
        self.interim: list[Response] = []
        self.head = Response(0)
        self.body = b""
        self.trailers: Sequence[Field] = ()
        self.error: UpstreamError | None = None
        self.is_open = False
        self.request_paused = False
        self.pauses = 0
        self.done = asyncio.Event()
        self.changed = asyncio.Event()
        self.pausing = pausing
        self.stream: OriginStream

    def informational(self, response: Response) -> None:
        self.interim.append(response)
        self.changed.set()

    def response(self, response: Response) -> None:
        assert not self.head.status
        self.head = response
        self.changed.set()

    def established(self, response: Response) -> None:
        self.response(response)
        self.is_open = True

    def data(self, data: bytes) -> None:
        assert not self.done.is_set()
        self.body += data
        if self.pausing:
            self.stream.pause()
        self.changed.set()

    def end(self, trailers: Sequence[Field]) -> None:
        self.trailers = trailers
        self._done()

    def failed(self, error: UpstreamError) -> None:
        self.error = error
        self._done()

    def _done(self) -> None:
        assert not self.done.is_set()
        self.done.set()
        self.changed.set()

    def pause_request(self) -> None:
        self.request_paused = True
        self.pauses += 1

    def resume_request(self) -> None:
        self.request_paused = False
        self.changed.set()

    async def until(self, condition: Any) -> None:
        """Wait until `condition` holds of it."""
        async with asyncio.timeout(TIMEOUT):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()

    async def finished(self) -> None:
        """Wait for the end of the response, or its failure."""
        await asyncio.wait_for(self.done.wait(), TIMEOUT)


@asynccontextmanager
async def serving(
    app: Any, *, lifespan: bool = False, wsgi: bool = False, **config: Any
) -> AsyncIterator[AsgiUpstream]:
    """An upstream that calls `app`, with a lifespan scope only if told to; `wsgi`: as WSGI does."""

    async def without_lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan")
        await app(scope, receive, send)

    module = types.ModuleType(f"quicedge_test_app_{next(_numbers)}")
    module.app = app if lifespan or wsgi else without_lifespan  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    config["wsgi" if wsgi else "asgi"] = f"{module.__name__}:app"
    upstream = AsgiUpstream("x", UpstreamConfig(**config))
    try:
        await upstream.start()
        yield upstream
    finally:
        await upstream.close()
        del sys.modules[module.__name__]


def request(
    target: str = "/",
    *fields: tuple[str, str],
    method: str = "GET",
    ended: bool = True,
    length: int | None = None,
    protocol: bytes | None = None,
) -> Request:
    """A request head as exchanges hand it on."""
    lines = [(name.encode(), value.encode()) for name, value in fields]
    return Request(
        method.encode(), b"https", b"app.example", target.encode(), lines, length, ended, protocol
    )


def ask(upstream: AsgiUpstream, head: Request | None = None, *, pausing: bool = False) -> Answer:
    """Open a stream; its answer."""
    answer = Answer(pausing=pausing)
    answer.stream = upstream.open(head or request(), answer, None, Peer())
    assert not answer.head.status
    return answer
