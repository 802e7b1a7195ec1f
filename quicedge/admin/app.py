"""The admin API: what the edge is and what each of its connections does, as JSON.

It trusts whoever reaches it, so it listens on loopback or a unix socket alone, and answers only
requests that name it so: a page in a browser can send requests to 127.0.0.1 under a name of its
own (DNS rebinding), but cannot choose their Host.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from quicedge.admin.metrics import CONTENT_TYPE, render
from quicedge.admin.traces import trace_routes
from quicedge.admin.view import CloseRequest, EdgeView
from quicedge.telemetry.stats import ConnectionQuery, QueryError, check_query

log = structlog.get_logger(__name__)

_PARAMETERS = tuple(field.name for field in msgspec.structs.fields(ConnectionQuery))


def make_app(edge: EdgeView, *, any_host: bool = False) -> ASGIApp:
    """The ASGI application. `any_host` skips the Host check: for unix sockets alone."""

    async def connections(request: Request) -> Response:
        page = await edge.connections(_query(request))
        return _json(page)

    async def connection(request: Request) -> Response:
        found = await edge.connection(request.path_params["id"])
        if found is None:
            raise HTTPException(404, "no such connection")
        return _json(found)

    async def status(request: Request) -> Response:
        return _json(await edge.status())

    async def metrics(request: Request) -> Response:
        return Response(render(await edge.status()), media_type=CONTENT_TYPE)

    async def close(request: Request) -> Response:
        connection_id = request.path_params["id"]
        try:
            asked = msgspec.json.decode(await request.body() or b"{}", type=CloseRequest)
        except msgspec.ValidationError as error:
            raise HTTPException(400, str(error)) from error
        except msgspec.DecodeError as error:
            raise HTTPException(400, f"not JSON: {error}") from error
        if not await edge.close_connection(connection_id, asked.code, asked.reason):
            raise HTTPException(404, "no such connection")
        log.info(
            "connection closed by an operator",
            connection=connection_id,
            code=asked.code,
            reason=asked.reason,
        )
        return _json({"closed": connection_id})

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
            *trace_routes(edge),
            Route("/metrics", metrics),
            Route("/api/v1/status", status),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )
    return app if any_host else _LoopbackHost(app)


class _LoopbackHost:
    """Refuses requests whose Host is no loopback name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or not is_loopback_host(hosts[0].decode("latin-1")):
                refusal = _json({"error": "Host must be localhost or a loopback address"}, 403)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_loopback_host(host: str) -> bool:
    """Whether a Host field names this machine itself: `localhost`, 127.0.0.0/8 or `[::1]`."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name = host
    elif not (port.isascii() and port.isdigit()):
        return False
    if name.lower() == "localhost":
        return True
    try:
        if name.startswith("[") and name.endswith("]"):
            return ipaddress.IPv6Address(name[1:-1]).is_loopback
        return ipaddress.IPv4Address(name).is_loopback
    except ValueError:
        return False


def _query(request: Request) -> ConnectionQuery:
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in _PARAMETERS:
            raise HTTPException(400, f"no parameter {name!r}; there are: {', '.join(_PARAMETERS)}")
        if name in given:
            raise HTTPException(400, f"{name}: given twice")
        given[name] = value
    try:
        query = msgspec.convert(given, ConnectionQuery, strict=False)
        check_query(query)
    except (msgspec.ValidationError, QueryError) as error:
        raise HTTPException(400, str(error)) from error
    return query


def _json(value: Any, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(value) + b"\n",
        status,
        {"cache-control": "no-store", "x-content-type-options": "nosniff"},
        media_type="application/json",
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _json({"error": error.detail}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _failed(request: Request, error: Exception) -> Response:
    # The server logs the exception; who asks gets nothing of our insides.
    return _json({"error": "internal error"}, 500)
