"""The lifespan of an application in one worker (ASGI, "Lifespan Protocol")."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from quicedge.config.limits import APP_SHUTDOWN_TIMEOUT, APP_STARTUP_TIMEOUT
from quicedge.upstream.asgi.application import Application, Message

log = structlog.get_logger(__name__)


class StartupError(Exception):
    """The application does not start; the message says why."""


class Lifespan:
    """Tells an application when it starts and when it ends.

    An application that knows no lifespan scope, and raises when it is called with it, starts at
    once. `state` is what it has stored for its requests.
    """

    def __init__(
        self,
        name: str,
        app: Application,
        loop: asyncio.AbstractEventLoop,
        startup_timeout: float = APP_STARTUP_TIMEOUT,
    ) -> None:
        self.state: dict[str, Any] = {}
        self._name = name
        self._app = app
        self._timeout = startup_timeout
        self._started: asyncio.Future[None] = loop.create_future()
        self._asked_to_end = asyncio.Event()
        self._ended = asyncio.Event()
        self._told_to_start = False
        self._task = loop.create_task(self._run())

    @property
    def is_started(self) -> bool:
        """Whether requests may be served."""
        return self._started.done() and not self._started.cancelled() and not self.failure

    @property
    def failure(self) -> StartupError | None:
        """Why the application did not start; None as long as it may."""
        if not self._started.done() or self._started.cancelled():
            return None
        error = self._started.exception()
        return error if isinstance(error, StartupError) else None

    async def started(self) -> None:
        """Wait for the application to start; raises StartupError."""
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.shield(self._started)
        except TimeoutError:
            self._fail(f"not started within {self._timeout:g} s (startup_timeout)")
            self._task.cancel()
            await self.started()

    async def end(self) -> None:
        """Let the application shut down, within a time."""
        self._asked_to_end.set()
        if not self.is_started:
            self._task.cancel()
        done, _ = await asyncio.wait([self._task], timeout=APP_SHUTDOWN_TIMEOUT)
        if not done:
            log.warning("application does not shut down", upstream=self._name)
            self._task.cancel()

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            self._fail("stopped before it had started")
            raise
        except Exception as error:
            if self._started.done():
                if not self._ended.is_set():
                    log.exception("lifespan of application failed", upstream=self._name)
                return
            # "If an exception is raised when calling the application callable with a lifespan
            # scope, the server must continue": it may know HTTP and WebSockets alone. One that has
            # asked for the message knows lifespans.
            level = log.warning if self._told_to_start else log.debug
            level("application has no lifespan", upstream=self._name, reason=repr(error))
        except (KeyboardInterrupt, SystemExit) as error:
            # A task would pass it on to the event loop, which would end the worker.
            self._fail(f"raised {error!r}")
            log.error("lifespan of application ended", upstream=self._name, reason=repr(error))
            return
        if not self._started.done():
            self._started.set_result(None)

    async def _receive(self) -> Message:
        if not self._told_to_start:
            self._told_to_start = True
            return {"type": "lifespan.startup"}
        await self._asked_to_end.wait()
        if self._ended.is_set():
            await asyncio.Event().wait()  # nothing follows; the task is cancelled
        self._ended.set()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                if not self._started.done():
                    self._started.set_result(None)
            case "lifespan.startup.failed":
                self._fail(str(message.get("message") or "startup failed"))
            case "lifespan.shutdown.complete":
                return
            case "lifespan.shutdown.failed":
                reason = str(message.get("message", ""))
                log.warning("application failed to shut down", upstream=self._name, reason=reason)
            case other:
                raise RuntimeError(f"unexpected message {other!r} in lifespan")

    def _fail(self, reason: str) -> None:
        if not self._started.done():
            self._started.set_exception(StartupError(reason))
            self._started.exception()  # whoever waits raises it; nobody may
