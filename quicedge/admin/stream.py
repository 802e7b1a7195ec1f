"""Server-sent events of one connection until it ends: periodic statistics, live qlog events."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from quicedge.admin.view import EdgeView, QlogLevel
from quicedge.config.limits import (
    ADMIN_EVENT_INTERVAL_MAX,
    ADMIN_EVENT_INTERVAL_MIN,
    ADMIN_MAX_EVENT_STREAMS,
)
from quicedge.config.tracelimits import QLOG_FOLLOW_BUFFER, QLOG_FOLLOW_PAUSE
from quicedge.telemetry.protocols import TransportKind


def event_routes(edge: EdgeView) -> list[Route]:
    """Routes below `/api/v1`."""
    places = asyncio.Semaphore(ADMIN_MAX_EVENT_STREAMS)

    async def events(request: Request) -> Response:
        interval = _interval(request.query_params.get("interval", "1"))
        level = _level(request.query_params.get("qlog"))
        connection_id = request.path_params["id"]
        found = await edge.connection(connection_id)
        if found is None:
            raise HTTPException(404, "no such connection")
        if level is not None and found.transport is not TransportKind.QUIC:
            raise HTTPException(409, "qlog events are of QUIC connections only")
        if places.locked():
            raise HTTPException(503, "too many event streams")
        return StreamingResponse(
            _events(edge, connection_id, interval, level, places),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )

    return [Route("/api/v1/connections/{id}/events", events)]


def _interval(text: str) -> float:
    try:
        interval = float(text)
    except ValueError:
        interval = -1.0
    if not ADMIN_EVENT_INTERVAL_MIN <= interval <= ADMIN_EVENT_INTERVAL_MAX:
        raise HTTPException(
            400,
            f"interval: {ADMIN_EVENT_INTERVAL_MIN} to {ADMIN_EVENT_INTERVAL_MAX} seconds",
        )
    return interval


def _level(text: str | None) -> QlogLevel | None:
    try:
        return msgspec.convert(text, QlogLevel | None)
    except msgspec.ValidationError:
        raise HTTPException(400, "qlog: core, base or extra") from None


async def _events(
    edge: EdgeView,
    connection_id: str,
    interval: float,
    level: QlogLevel | None,
    places: asyncio.Semaphore,
) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    follower = secrets.token_hex(8)
    due = loop.time()
    async with places:
        found = await edge.connection(connection_id)
        while found is not None:
            if loop.time() >= due:
                due = max(due + interval, loop.time())
                yield b"event: stats\ndata: " + msgspec.json.encode(found) + b"\n\n"
            if level is None:
                await asyncio.sleep(due - loop.time())
                found = await edge.connection(connection_id)
                continue
            answer = await edge.follow_connection(found.worker, connection_id, follower, level)
            if answer.lines:
                yield _qlog(answer.lines)
            if not answer.found or answer.ended:
                break
            if len(answer.lines) < QLOG_FOLLOW_BUFFER / 2:
                await asyncio.sleep(min(QLOG_FOLLOW_PAUSE, interval))
            if loop.time() >= due:
                found = await edge.connection(connection_id) or found
        yield b"event: gone\ndata: {}\n\n"


def _qlog(lines: bytes) -> bytes:
    """One event per record of a JSON text sequence."""
    return b"".join(
        b"event: qlog\ndata: " + record.rstrip() + b"\n\n"
        for record in lines.split(b"\x1e")
        if record
    )
