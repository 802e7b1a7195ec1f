"""The admin API: the state of the edge and its connections as JSON.

`admin.guard` controls access; every action is a POST request, and logged.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from quicedge.admin.answers import answer_json
from quicedge.admin.configuration import configuration_routes
from quicedge.admin.counted import all_metrics
from quicedge.admin.dashboard import dashboard_routes
from quicedge.admin.families import mirrors_of
from quicedge.admin.guard import Guard
from quicedge.admin.metrics import CONTENT_TYPE, render
from quicedge.admin.stream import event_routes
from quicedge.admin.traces import trace_routes
from quicedge.admin.upstreams import upstreams_of
from quicedge.admin.view import CloseRequest, EdgeView, LogLevelRequest
from quicedge.telemetry.stats import ConnectionQuery, KeyUpdateVerdict, QueryError, check_query

log = structlog.get_logger(__name__)

_PARAMETERS = tuple(field.name for field in msgspec.structs.fields(ConnectionQuery))


def make_app(
    edge: EdgeView, *, hosts: Collection[str] | None = (), token: str | None = None
) -> ASGIApp:
    """Create the ASGI application; for `hosts` and `token` see `Guard`."""

    async def connections(request: Request) -> Response:
        page = await edge.connections(_query(request))
        return answer_json(page)

    async def connection(request: Request) -> Response:
        found = await edge.connection(request.path_params["id"])
        if found is None:
            raise HTTPException(404, "no such connection")
        return answer_json(found)

    async def status(request: Request) -> Response:
        return answer_json(await edge.status())

    async def comparison(request: Request) -> Response:
        return answer_json(await edge.comparison())

    async def mirrors(request: Request) -> Response:
        found = mirrors_of(all_metrics(await edge.status()))
        return answer_json({name: item.summary() for name, item in found.items()})

    async def upstreams(request: Request) -> Response:
        status = await edge.status()
        workers = (worker.stats for worker in status.workers)
        found = upstreams_of((stats for stats in workers if stats is not None), status.ended)
        return answer_json(found)

    async def metrics(request: Request) -> Response:
        return Response(render(await edge.status()), media_type=CONTENT_TYPE)

    async def close(request: Request) -> Response:
        connection_id = request.path_params["id"]
        asked = await _body(request, CloseRequest)
        if not await edge.close_connection(connection_id, asked.code, asked.reason):
            raise HTTPException(404, "no such connection")
        log.info(
            "connection closed by operator",
            connection=connection_id,
            code=asked.code,
            reason=asked.reason,
        )
        return answer_json({"closed": connection_id})

    async def update_keys(request: Request) -> Response:
        connection_id = request.path_params["id"]
        verdict = await edge.update_keys(connection_id)
        if verdict is KeyUpdateVerdict.NOT_FOUND:
            raise HTTPException(404, verdict)
        if verdict is not KeyUpdateVerdict.REQUESTED:
            raise HTTPException(409, verdict)
        log.info("key update requested by operator", connection=connection_id)
        return answer_json({"requested": connection_id}, 202)

    async def log_level(request: Request) -> Response:
        asked = await _body(request, LogLevelRequest)
        await edge.set_log_level(asked.level)
        log.warning("log level changed by operator", level=asked.level)
        return answer_json({"level": asked.level})

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        if edge.ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse(f"not ready: {edge.state}\n", 503)

    app: ASGIApp = Starlette(
        routes=[
            Route("/api/v1/connections", connections),
            Route("/api/v1/connections/{id}", connection),
            Route("/api/v1/connections/{id}/close", close, methods=["POST"]),
            Route("/api/v1/connections/{id}/key-update", update_keys, methods=["POST"]),
            Route("/api/v1/log-level", log_level, methods=["POST"]),
            *event_routes(edge),
            *trace_routes(edge),
            # Only a unix socket has no hosts.
            *configuration_routes(edge, may_change=token is not None or hosts is None),
            *dashboard_routes(),
            Route("/metrics", metrics),
            Route("/api/v1/status", status),
            Route("/api/v1/comparison", comparison),
            Route("/api/v1/mirrors", mirrors),
            Route("/api/v1/upstreams", upstreams),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )
    return Guard(app, hosts=hosts, token=token)


_Body = TypeVar("_Body")


async def _body(request: Request, kind: type[_Body]) -> _Body:
    """Decode the JSON body of a request."""
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise HTTPException(400, str(error)) from error
    except msgspec.DecodeError as error:
        raise HTTPException(400, f"not JSON: {error}") from error


def _query(request: Request) -> ConnectionQuery:
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in _PARAMETERS:
            raise HTTPException(400, f"unknown parameter {name!r}; known: {', '.join(_PARAMETERS)}")
        if name in given:
            raise HTTPException(400, f"{name}: given twice")
        given[name] = value
    try:
        query = msgspec.convert(given, ConnectionQuery, strict=False)
        check_query(query)
    except (msgspec.ValidationError, QueryError) as error:
        raise HTTPException(400, str(error)) from error
    return query


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = answer_json({"error": error.detail}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _failed(request: Request, error: Exception) -> Response:
    # The server logs the exception; internals are not disclosed to the client.
    return answer_json({"error": "internal error"}, 500)
