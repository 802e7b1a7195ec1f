"""Quart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from quart import Quart, Response, abort, jsonify, redirect, request, websocket

app = Quart(__name__)
app.config["MAX_CONTENT_LENGTH"] = None
done = asyncio.Event()


@app.before_serving
async def start() -> None:
    app.config["GREETING"] = "hello from the lifespan"


@app.get("/hello")
async def hello() -> Response:
    return Response(app.config["GREETING"], content_type="text/plain")


@app.get("/query/<name>")
async def query(name: str) -> Response:
    return jsonify({"q": request.args.getlist("q"), "path": request.path})


@app.post("/form")
async def form() -> Response:
    values, files = await request.form, await request.files
    upload = files["file"]
    return jsonify({"name": values["name"], "file": upload.filename, "size": len(upload.read())})


@app.put("/count")
async def count() -> Response:
    size = 0
    async for piece in request.body:
        size += len(piece)
    return jsonify({"size": size})


@app.get("/stream")
async def stream() -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"piece %d\n" % number

    return Response(pieces(), content_type="text/plain")


@app.get("/cookie")
async def cookie() -> Response:
    response = Response(request.cookies.get("seen", "never"), content_type="text/plain")
    response.set_cookie("seen", "once", httponly=True)
    response.set_cookie("other", "two")
    return response


@app.get("/redirect")
async def elsewhere() -> object:
    return redirect("/hello")


@app.get("/fail")
async def fail() -> None:
    abort(418)


@app.get("/crash")
async def crash() -> None:
    raise ZeroDivisionError


@app.get("/late")
async def late() -> Response:
    async def later() -> None:
        done.set()

    app.add_background_task(later)
    return Response("soon", content_type="text/plain")


@app.get("/finished")
async def finished() -> Response:
    await asyncio.wait_for(done.wait(), 10)
    return Response("done", content_type="text/plain")


@app.delete("/nothing")
async def nothing() -> tuple[str, int]:
    return "", 204


@app.get("/large")
async def large() -> Response:
    return Response("x" * 1_000_000, content_type="text/plain")


@app.websocket("/ws")
async def socket() -> None:
    if "token" not in websocket.args:
        abort(403)
    await websocket.accept(
        subprotocol="chat" if "chat" in websocket.requested_subprotocols else None
    )
    while True:
        message = await websocket.receive()
        if message == "leave":
            await websocket.close(4001, "as you wish")
            return
        await websocket.send(message.upper())
