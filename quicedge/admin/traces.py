"""qlog traces on demand: start and stop one on a live connection, list and read them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from quicedge.admin.view import EdgeView
from quicedge.qlog.analyse import analyse
from quicedge.qlog.report import page
from quicedge.telemetry.protocols import TransportKind
from quicedge.telemetry.stats import TraceAction

log = structlog.get_logger(__name__)

_NAME = re.compile(r"[0-9A-Za-z_-]+\.sqlog")
_MAX_LISTED = 1000
"""Traces listed at most, newest first."""


class TraceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Start or stop the trace of a connection."""

    action: TraceAction


class TraceEntry(msgspec.Struct, frozen=True):
    """A trace file."""

    file: str
    bytes: int
    modified: float
    """Seconds since the epoch."""


def trace_routes(edge: EdgeView) -> list[Route]:
    """Routes below `/api/v1`."""
    reading = asyncio.Semaphore(1)

    def directory() -> Path:
        if edge.trace_directory is None:
            raise HTTPException(409, "no trace directory: set directory in [qlog] and reload")
        return Path(edge.trace_directory)

    def trace(request: Request) -> Path:
        name = request.path_params["file"]
        path = directory() / name
        if _NAME.fullmatch(name) is None or path.is_symlink() or not path.is_file():
            raise HTTPException(404, "no such trace")
        return path

    async def command(request: Request) -> Response:
        connection_id = request.path_params["id"]
        try:
            asked = msgspec.json.decode(await request.body(), type=TraceRequest)
        except msgspec.DecodeError as error:
            raise HTTPException(400, str(error)) from error
        directory()
        found = await edge.connection(connection_id)
        if found is not None and found.transport is not TransportKind.QUIC:
            raise HTTPException(409, "qlog traces are of QUIC connections only")
        answer = await edge.trace_connection(connection_id, asked.action)
        if not answer.found:
            raise HTTPException(404, "no such connection")
        if answer.file is None and asked.action is TraceAction.START:
            raise HTTPException(503, "too many traces are running")
        event = "trace started" if asked.action is TraceAction.START else "trace stopped"
        log.info(event, connection=connection_id, file=answer.file)
        return _json({"file": answer.file})

    async def listing(request: Request) -> Response:
        return _json({"traces": await asyncio.to_thread(_list, directory())})

    async def download(request: Request) -> Response:
        return FileResponse(trace(request), media_type="application/qlog+json-seq")

    async def report(request: Request) -> Response:
        path = trace(request)
        async with reading:
            text = await asyncio.to_thread(_report, path)
        if text is None:
            raise HTTPException(409, "the trace has no events yet")
        return HTMLResponse(text, headers={"cache-control": "no-store"})

    return [
        Route("/api/v1/connections/{id}/qlog", command, methods=["POST"]),
        Route("/api/v1/qlog", listing),
        Route("/api/v1/qlog/{file}", download),
        Route("/api/v1/qlog/{file}/report", report),
    ]


def _report(path: Path) -> str | None:
    analysis = analyse(path)
    return page([(analysis, analysis.main)]) if analysis.main is not None else None


def _list(directory: Path) -> list[TraceEntry]:
    found = []
    try:
        for path in directory.iterdir():
            if _NAME.fullmatch(path.name) and not path.is_symlink() and path.is_file():
                stat = path.stat()
                found.append(TraceEntry(path.name, stat.st_size, stat.st_mtime))
    except OSError as error:
        raise HTTPException(500, f"cannot read the directory: {error.strerror}") from error
    found.sort(key=lambda entry: entry.modified, reverse=True)
    return found[:_MAX_LISTED]


def _json(value: object) -> Response:
    return Response(
        msgspec.json.encode(value) + b"\n",
        headers={"cache-control": "no-store"},
        media_type="application/json",
    )
