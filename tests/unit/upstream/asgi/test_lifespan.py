"""Startup and shutdown of applications."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from quicedge.config import limits
from quicedge.config.schema import Config, Upstream
from quicedge.config.unusable import UnusableError
from quicedge.http.errors import OriginFailure
from quicedge.supervisor.start_timeout import start_timeout
from quicedge.upstream.asgi import lifespan as module
from quicedge.upstream.asgi.lifespan import Lifespan, StartupError
from tests.support.asgi import ask, serving
from tests.support.origins import eventually

COMPLETE = {"type": "lifespan.startup.complete"}


async def test_startup_is_awaited_and_shutdown_told() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.append((await receive())["type"])
        await send(COMPLETE)
        told.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})
        told.append("returned")

    lifespan = Lifespan("x", app, asyncio.get_running_loop())
    await lifespan.started()
    assert lifespan.is_started
    assert told == ["lifespan.startup"]
    await lifespan.end()
    assert told == ["lifespan.startup", "lifespan.shutdown", "returned"]


async def test_an_application_without_lifespan_starts_at_once() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("HTTP alone")

    lifespan = Lifespan("x", app, asyncio.get_running_loop())
    await lifespan.started()
    await lifespan.end()


async def test_a_failed_startup_says_why_and_fails_requests() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(UnusableError, match=r"upstreams\.x\.asgi: .*:app: no database"):
        async with serving(app, lifespan=True):
            pass
    lifespan = Lifespan("x", app, asyncio.get_running_loop())
    with pytest.raises(StartupError, match="no database"):
        await lifespan.started()
    assert not lifespan.is_started
    await lifespan.end()


async def test_a_startup_that_takes_too_long_fails() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    lifespan = Lifespan("x", app, asyncio.get_running_loop(), 0.01)
    with pytest.raises(StartupError, match=r"not started within 0\.01 s"):
        await lifespan.started()
    await lifespan.end()


async def test_a_shutdown_that_takes_too_long_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "APP_SHUTDOWN_TIMEOUT", 0.01)
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(COMPLETE)
        await receive()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    lifespan = Lifespan("x", app, asyncio.get_running_loop())
    await lifespan.started()
    await lifespan.end()
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_requests_wait_for_the_startup() -> None:
    ready = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await ready.wait()
            await send(COMPLETE)
            await receive()
            return
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"up"})

    async def later() -> None:
        ready.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(later())
        async with serving(app, lifespan=True) as upstream:
            answer = ask(upstream)
            await answer.finished()
    assert answer.body == b"up"


async def test_running_calls_are_cancelled_after_the_grace_period() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async with serving(app) as upstream:
        answer = ask(upstream)
        await asyncio.sleep(0)
        await upstream.close(0.01)
        assert answer.error is not None
        assert answer.error.kind is OriginFailure.NO_SERVER
        assert not upstream.running


async def test_calls_that_go_on_when_they_are_cancelled_are_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "APP_SHUTDOWN_TIMEOUT", 0.01)
    released = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    async with serving(app) as upstream:
        answer = ask(upstream)
        await asyncio.sleep(0)
        with capture_logs() as logs:
            await upstream.close()
        assert [line["event"] for line in logs] == ["calls of application do not end"]
        assert answer.error is not None
        released.set()
        await eventually(lambda: not upstream.running)


async def test_an_application_that_exits_in_its_startup_has_failed() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise SystemExit("no database")

    lifespan = Lifespan("x", app, asyncio.get_running_loop())
    with pytest.raises(StartupError, match="no database"):
        await lifespan.started()
    await lifespan.end()


def test_workers_outlast_the_startup_and_shutdown_of_applications() -> None:
    app, other = Upstream(asgi="main:app", startup_timeout=300.0), Upstream(wsgi="main:wsgi")
    config = Config(upstreams={"app": app, "other": other, "files": Upstream(root="/srv")})
    assert start_timeout(config) == limits.WORKER_START_TIMEOUT + 300 + limits.APP_STARTUP_TIMEOUT
    assert start_timeout(Config()) == limits.WORKER_START_TIMEOUT
    assert limits.APP_SHUTDOWN_TIMEOUT < limits.STOP_GRACE
