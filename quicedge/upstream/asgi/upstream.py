"""An upstream without servers: an application in this process."""

from __future__ import annotations

import asyncio

import structlog

from quicedge.config import limits
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.config.unusable import UnusableError
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Request
from quicedge.http.upgrade import WEBSOCKET
from quicedge.shares import Client
from quicedge.upstream.asgi.application import load
from quicedge.upstream.asgi.http import HttpStream
from quicedge.upstream.asgi.lifespan import Lifespan, StartupError
from quicedge.upstream.asgi.scope import AppPeer
from quicedge.upstream.asgi.stream import AppStream, Call
from quicedge.upstream.asgi.websocket import WebSocketStream
from quicedge.upstream.base import OriginStream, ResponseHandler, UpstreamError
from quicedge.upstream.places import Places
from quicedge.upstream.unusable import FailedStream

log = structlog.get_logger(__name__)


class AsgiUpstream:
    """Calls the application of `config.asgi` or `config.wsgi`; the interface of `group.Upstream`.

    Each worker has an application of its own, imported by the constructor, which raises
    UnusableError if it cannot be. Await `start` before the first request, or requests wait for it.
    """

    queue_timeout = limits.UPSTREAM_QUEUE_TIMEOUT

    def __init__(
        self, name: str, config: UpstreamConfig, *, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self.name = name
        self.config = config
        self.loop = loop or asyncio.get_running_loop()
        self.server = config.asgi or config.wsgi or ""
        self.app = load(name, config)
        self.lifespan = Lifespan(name, self.app, self.loop, config.startup_timeout)
        self.places: Places[AppStream] = Places(
            config.max_requests or limits.APP_MAX_REQUESTS, "a call of the application"
        )
        self.running: set[AppStream] = set()
        self.requests = 0
        self.bytes_received = 0
        """Response content, in bytes."""
        self._retired = False
        self._ending: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Wait for the application's startup; raises UnusableError."""
        try:
            await self.lifespan.started()
        except StartupError as error:
            key = "asgi" if self.config.asgi is not None else "wsgi"
            raise UnusableError(f"upstreams.{self.name}.{key}", f"{self.server}: {error}") from None

    async def started(self) -> None:
        """`start` for requests; raises UpstreamError."""
        try:
            await self.lifespan.started()
        except StartupError as error:
            raise UpstreamError(OriginFailure.NO_SERVER, f"{self.server}: {error}") from None

    @property
    def is_usable(self) -> bool:
        """Whether a reload may keep it: its startup has not failed."""
        return self.lifespan.failure is None

    def open(
        self,
        request: Request,
        handler: ResponseHandler,
        client: Client | None = None,
        peer: AppPeer | None = None,
    ) -> OriginStream:
        """Call the application; the handler is not called before this returns."""
        stream: AppStream
        call = Call(self, request, handler, client, peer)
        if request.protocol is None:
            stream = HttpStream(call)
        elif request.protocol == WEBSOCKET:
            stream = WebSocketStream(call)
        else:
            detail = f"an application speaks no {request.protocol.decode('latin-1')}"
            return FailedStream(self.loop, handler, UpstreamError(OriginFailure.NO_TUNNEL, detail))
        self.requests += 1
        self.running.add(stream)
        self._idle.clear()
        return stream

    def ended(self, stream: AppStream) -> None:
        """A call has ended."""
        self.places.leave(stream)
        self.running.discard(stream)
        if not self.running:
            self._idle.set()
            if self._retired:
                self._end()

    def stats(self) -> dict[str, dict[str, int]]:
        """Running calls, total requests and bytes of response content, by application."""
        counts = {"active": len(self.running), "requests": self.requests}
        return {self.server: {**counts, "bytes_received": self.bytes_received}}

    @property
    def is_contended(self) -> bool:
        """Whether requests wait for resources that others hold."""
        return self.places.is_contended

    def reclaim(self) -> None:
        """Let requests that wait take the places of stalled clients; call about once per second."""
        self.places.reclaim(self.running)

    def retire(self) -> None:
        """Accept no more requests; the application is shut down when its calls have ended."""
        if not self._retired:
            self._retired = True
            if not self.running:
                self._end()

    def _end(self) -> None:
        if self._ending is None:
            self._ending = self.loop.create_task(self.lifespan.end())

    async def close(self, grace: float = 0.0) -> None:
        """Retire, wait up to `grace` seconds for running calls, cancel the rest, and shut down."""
        self.retire()
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            for stream in list(self.running):
                stream.fail(OriginFailure.NO_SERVER, "shutting down")
            try:
                async with asyncio.timeout(limits.APP_SHUTDOWN_TIMEOUT):
                    await self._idle.wait()
            except TimeoutError:
                calls = len(self.running)
                log.warning("calls of application do not end", upstream=self.name, calls=calls)
        self._end()
        assert self._ending is not None
        await self._ending
