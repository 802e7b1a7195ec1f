"""FastAPI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import (
    BackgroundTasks,
    Cookie,
    FastAPI,
    HTTPException,
    Query,
    Request,
    Response,
    WebSocket,
)
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse

done = asyncio.Event()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.greeting = "hello from the lifespan"
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/hello", response_class=PlainTextResponse)
async def hello(request: Request) -> str:
    return str(request.app.state.greeting)


@app.get("/query/{name}")
def query(request: Request, q: Annotated[list[str], Query()]) -> dict[str, object]:
    # In a thread, like all functions that are not coroutines.
    return {"q": q, "path": request.url.path}


@app.post("/form")
async def form(request: Request) -> dict[str, object]:
    async with request.form() as data:
        upload = data["file"]
        assert not isinstance(upload, str)
        content = await upload.read()
        return {"name": data["name"], "file": upload.filename, "size": len(content)}


@app.put("/count")
async def count(request: Request) -> dict[str, int]:
    return {"size": len(await request.body())}


@app.get("/stream")
def stream() -> StreamingResponse:
    return StreamingResponse((f"piece {number}\n" for number in range(5)), media_type="text/plain")


@app.get("/cookie", response_class=PlainTextResponse)
async def cookie(response: Response, seen: Annotated[str, Cookie()] = "never") -> str:
    response.set_cookie("seen", "once", httponly=True)
    response.set_cookie("other", "two")
    return seen


@app.get("/redirect")
async def redirect() -> RedirectResponse:
    return RedirectResponse("/hello")


@app.get("/fail")
async def fail() -> None:
    raise HTTPException(418, "short and stout")


@app.get("/crash")
async def crash() -> None:
    raise ZeroDivisionError


@app.get("/late", response_class=PlainTextResponse)
async def late(tasks: BackgroundTasks) -> str:
    tasks.add_task(finish)
    return "soon"


async def finish() -> None:
    done.set()


@app.get("/finished", response_class=PlainTextResponse)
async def finished() -> str:
    await asyncio.wait_for(done.wait(), 10)
    return "done"


@app.delete("/nothing", status_code=204)
async def nothing() -> None:
    return None


@app.get("/large", response_class=PlainTextResponse)
async def large() -> str:
    return "x" * 1_000_000


@app.websocket("/ws")
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
