"""Starlette."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

done = asyncio.Event()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
    yield {"greeting": "hello from the lifespan"}


async def hello(request: Request) -> Response:
    return PlainTextResponse(request.state.greeting)


async def query(request: Request) -> Response:
    return JSONResponse({"q": request.query_params.getlist("q"), "path": request.url.path})


async def form(request: Request) -> Response:
    async with request.form() as data:
        upload = data["file"]
        assert not isinstance(upload, str)
        content = await upload.read()
        return JSONResponse({"name": data["name"], "file": upload.filename, "size": len(content)})


async def count(request: Request) -> Response:
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return JSONResponse({"size": size})


async def stream(request: Request) -> Response:
    async def pieces() -> AsyncIterator[str]:
        for number in range(5):
            yield f"piece {number}\n"
            await asyncio.sleep(0)

    return StreamingResponse(pieces(), media_type="text/plain")


async def cookie(request: Request) -> Response:
    response = PlainTextResponse(request.cookies.get("seen", "never"))
    response.set_cookie("seen", "once", httponly=True)
    response.set_cookie("other", "two")
    return response


async def redirect(request: Request) -> Response:
    return RedirectResponse("/hello")


async def fail(request: Request) -> Response:
    raise HTTPException(418, "short and stout")


async def crash(request: Request) -> Response:
    raise ZeroDivisionError


async def late(request: Request) -> Response:
    return PlainTextResponse("soon", background=BackgroundTask(finish))


async def finish() -> None:
    done.set()


async def finished(request: Request) -> Response:
    await asyncio.wait_for(done.wait(), 10)
    return PlainTextResponse("done")


async def nothing(request: Request) -> Response:
    return Response(status_code=204)


async def large(request: Request) -> Response:
    return PlainTextResponse("x" * 1_000_000)


async def socket(websocket: WebSocket) -> None:
    if "token" not in websocket.query_params:
        await websocket.close(1008)
        return
    await websocket.accept("chat" if "chat" in websocket.scope["subprotocols"] else None)
    async for message in websocket.iter_text():
        if message == "leave":
            await websocket.close(4001, "as you wish")
            return
        await websocket.send_text(message.upper())


app = Starlette(
    routes=[
        Route("/hello", hello),
        Route("/query/{name}", query),
        Route("/form", form, methods=["POST"]),
        Route("/count", count, methods=["PUT"]),
        Route("/stream", stream),
        Route("/cookie", cookie),
        Route("/redirect", redirect),
        Route("/fail", fail),
        Route("/crash", crash),
        Route("/late", late),
        Route("/finished", finished),
        Route("/nothing", nothing, methods=["DELETE"]),
        Route("/large", large),
        WebSocketRoute("/ws", socket),
    ],
    middleware=[Middleware(GZipMiddleware)],
    lifespan=lifespan,
)
