"""One call of an application: what HTTP requests and WebSockets have in common."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import structlog

from quicedge.config.limits import UPSTREAM_WRITE_HIGH, UPSTREAM_WRITE_LOW
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, HttpVersion, Request
from quicedge.shares import Client
from quicedge.upstream.asgi.application import Application, Message, Scope
from quicedge.upstream.asgi.lifespan import Lifespan
from quicedge.upstream.asgi.scope import AppPeer
from quicedge.upstream.base import ResponseHandler, UpstreamError
from quicedge.upstream.places import Places

log = structlog.get_logger(__name__)


class Host(Protocol):
    """What a call needs of its upstream (`upstream.AsgiUpstream`)."""

    name: str
    config: UpstreamConfig
    loop: asyncio.AbstractEventLoop
    server: str
    app: Application
    lifespan: Lifespan
    places: Places[AppStream]
    queue_timeout: float
    bytes_received: int

    async def started(self) -> None:
        """Wait for the application's startup; raises UpstreamError."""

    def ended(self, stream: AppStream) -> None:
        """A call has ended."""


class ClientDisconnected(OSError):
    """Raised in the application when it sends to a client that has gone (ASGI 2.4)."""


class Call(NamedTuple):
    """What a call of an application begins with."""

    upstream: Host
    request: Request
    handler: ResponseHandler
    client: Client | None
    peer: AppPeer | None


class AppStream(ABC):
    """The `OriginStream` of one call, which is a task of its own.

    The task ends when the application returns, which may be long after the response, and holds its
    place until then. Subclasses translate between messages and the exchange.
    """

    connect_seconds = 0.0
    scheme = "asgi"
    http_version: HttpVersion | None = None
    retries = 0

    def __init__(self, call: Call) -> None:
        upstream = call.upstream
        self.client = call.client
        self.peer = call.peer
        self.stalled = False
        self.holds_place = False
        self.server = upstream.server
        self.queue_seconds = 0.0
        self.request = call.request
        self.upstream = upstream
        self.handler: ResponseHandler | None = call.handler
        """None once the exchange hears nothing more."""
        self._place: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        """`receive`, waiting for something to return."""
        self._blocked: asyncio.Future[None] | None = None
        """`send`, waiting for the client; present while the response is paused."""
        self._held = 0
        """Bytes from the client that the application has not received."""
        self._request_paused = False
        self._task = upstream.loop.create_task(self._run())

    # --- for subclasses ---------------------------------------------------------------------------

    needs_place = True

    @abstractmethod
    def scope(self) -> Scope:
        """What the application is called with."""

    @abstractmethod
    async def receive(self) -> Message: ...

    @abstractmethod
    async def send(self, message: Message) -> None: ...

    @abstractmethod
    def called(self) -> None:
        """The application is about to be called."""

    @abstractmethod
    def returned(self) -> None:
        """The application has returned."""

    @abstractmethod
    def crashed(self) -> None:
        """The application has raised an exception."""

    async def wait_for_input(self) -> None:
        """Wait until `wake` is called."""
        self._waiter = self.upstream.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """There is something to receive."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait_for_client(self) -> None:
        """Wait while the client does not keep up; raises ClientDisconnected when it has gone."""
        while self._blocked is not None:
            await asyncio.shield(self._blocked)
        if self.handler is None:
            raise ClientDisconnected("the client has gone")

    @property
    def is_held_back(self) -> bool:
        """Whether the client or the application does not keep up, so that bytes wait."""
        return self._blocked is not None or self._request_paused

    def hold(self, size: int) -> None:
        """So many bytes came that the application has not received."""
        self._held += size
        if self._held > UPSTREAM_WRITE_HIGH and not self._request_paused:
            self._request_paused = True
            if self.handler is not None:
                self.handler.pause_request()

    def release(self, size: int) -> None:
        """The application has received so many bytes."""
        self._held -= size
        if self._request_paused and self._held <= UPSTREAM_WRITE_LOW:
            self._request_paused = False
            if self.handler is not None:
                self.handler.resume_request()

    def finish(self) -> ResponseHandler | None:
        """The exchange hears nothing more but what the caller tells it now."""
        handler, self.handler = self.handler, None
        self.resume()
        self.wake()
        return handler

    # --- OriginStream -----------------------------------------------------------------------------

    @abstractmethod
    def write(self, data: bytes) -> None: ...

    @abstractmethod
    def end(self, trailers: Sequence[Field] = ()) -> None: ...

    def abort(self) -> None:
        self.finish()
        if self._place is not None:
            # It has not begun, and nobody is interested any more.
            self._task.cancel()

    def pause(self) -> None:
        if self._blocked is None and self.handler is not None:
            self._blocked = self.upstream.loop.create_future()

    def resume(self) -> None:
        blocked, self._blocked = self._blocked, None
        if blocked is not None:
            blocked.set_result(None)

    # --- the task ---------------------------------------------------------------------------------

    def place_given(self) -> None:
        """It may begin (`places.Occupant`)."""
        if self._place is not None and not self._place.done():
            self._place.set_result(None)

    def fail(self, kind: OriginFailure, detail: str) -> None:
        """Report a failure to the exchange and cancel the call."""
        handler = self.finish()
        if handler is not None:
            handler.failed(UpstreamError(kind, detail))
        if asyncio.current_task() is not self._task:
            self._task.cancel()

    async def _run(self) -> None:
        upstream = self.upstream
        try:
            await self._begin()
            if self.handler is None:
                return
            self.called()
            await upstream.app(self.scope(), self.receive, self.send)
        except UpstreamError as error:
            self.fail(error.kind, error.detail)
        except ClientDisconnected:
            self.returned()
        except asyncio.CancelledError:
            if self.handler is None:
                raise  # `fail` or `abort` has cancelled the call
            self._failed()
        except (Exception, KeyboardInterrupt, SystemExit):
            # A task would pass the last two on to the event loop, which would end the worker.
            self._failed()
        else:
            self.returned()
        finally:
            upstream.ended(self)

    def _failed(self) -> None:
        """The application has raised an exception."""
        # Without its client, it may fail in ways of its own.
        level = log.error if self.handler is not None else log.info
        path = self.request.path.decode("latin-1")
        level("application failed", upstream=self.upstream.name, path=path, exc_info=True)
        self.crashed()

    async def _begin(self) -> None:
        """Wait for the application to start, and for a place; raises UpstreamError."""
        upstream = self.upstream
        if not upstream.lifespan.is_started:
            await upstream.started()
        if not self.needs_place or upstream.places.take(self) or self.handler is None:
            return
        waiting_since = upstream.loop.time()
        self._place = upstream.loop.create_future()
        try:
            async with asyncio.timeout(upstream.queue_timeout):
                await self._place
        except TimeoutError:
            raise UpstreamError(
                OriginFailure.OVERLOADED, "the application has no place for another request"
            ) from None
        finally:
            self._place = None
            self.queue_seconds = upstream.loop.time() - waiting_since
