"""One connection as server-sent events: its statistics, again and again, until it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from quicedge.admin.view import EdgeView
from quicedge.config.limits import (
    ADMIN_EVENT_INTERVAL_MAX,
    ADMIN_EVENT_INTERVAL_MIN,
    ADMIN_MAX_EVENT_STREAMS,
)


def event_routes(edge: EdgeView) -> list[Route]:
    """Routes below `/api/v1`."""
    places = asyncio.Semaphore(ADMIN_MAX_EVENT_STREAMS)

    async def events(request: Request) -> Response:
        interval = _interval(request.query_params.get("interval", "1"))
        connection_id = request.path_params["id"]
        if await edge.connection(connection_id) is None:
            raise HTTPException(404, "no such connection")
        if places.locked():
            raise HTTPException(503, "too many event streams")
        return StreamingResponse(
            _events(edge, connection_id, interval, places),
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


async def _events(
    edge: EdgeView, connection_id: str, interval: float, places: asyncio.Semaphore
) -> AsyncIterator[bytes]:
    async with places:
        while (found := await edge.connection(connection_id)) is not None:
            yield b"event: stats\ndata: " + msgspec.json.encode(found) + b"\n\n"
            await asyncio.sleep(interval)
        yield b"event: gone\ndata: {}\n\n"
