"""WebSockets through a whole edge, between other people's clients and origins."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.support.edge import RunningEdge, edge
from tests.support.h3client import h3_client
from tests.support.peers import free_port, require
from tests.support.tunnels import (
    CLOSE,
    TEXT,
    Frames,
    H3ClientEnd,
    close_payload,
    tunnel_origin,
    ws_frame,
)

MASK = b"\x01\x02\x03\x04"

PAGE = """<!doctype html><script>
const socket = new WebSocket(`wss://${location.host}/ws`, ["chat"]);
const got = [];
const report = (what) => fetch("/report?" + encodeURIComponent(what));
socket.onopen = () => { socket.send("hello"); socket.send(new Uint8Array([1, 2, 3])); };
socket.binaryType = "arraybuffer";
socket.onmessage = (event) => {
  got.push(typeof event.data === "string" ? event.data : [...new Uint8Array(event.data)].join());
  if (got.length == 2) socket.close(4002, "enough");
};
socket.onclose = (event) =>
  report([socket.protocol, ...got, event.code, event.wasClean].join(" "));
</script>"""


def application(reports: list[str]) -> Starlette:
    """Echoes messages; serves a page that uses that, and reports."""

    async def echo(socket: WebSocket) -> None:
        await socket.accept("chat" if "chat" in socket.scope["subprotocols"] else None)
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if message.get("text") is not None:
                    await socket.send_text(message["text"])
                else:
                    await socket.send_bytes(message["bytes"])
        except WebSocketDisconnect:
            pass

    async def report(request: Any) -> PlainTextResponse:
        from urllib.parse import unquote

        reports.append(unquote(request.url.query))
        return PlainTextResponse("")

    async def page(request: Any) -> HTMLResponse:
        return HTMLResponse(PAGE)

    return Starlette(
        routes=[Route("/", page), Route("/report", report), WebSocketRoute("/ws", echo)]
    )


@asynccontextmanager
async def uvicorn_origin(app: Starlette) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def hypercorn_origin(app: Starlette) -> AsyncIterator[str]:
    """HTTP/2 with prior knowledge and extended CONNECT."""
    config = hypercorn.config.Config()
    port = free_port()
    config.bind = [f"127.0.0.1:{port}"]
    over = asyncio.Event()
    task = asyncio.create_task(
        hypercorn.asyncio.serve(app, config, shutdown_trigger=over.wait)  # type: ignore[arg-type]
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        over.set()
        await task


@asynccontextmanager
async def running(directory: Path, url: str, **options: str) -> AsyncIterator[RunningEdge]:
    """The edge as a process, started and stopped beside this loop."""
    context = edge(directory, url, **options)
    started = await asyncio.to_thread(context.__enter__)
    try:
        yield started
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


def trusting(started: RunningEdge) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(started.certificate.ca))


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def test_the_websockets_package_on_both_sides_with_compression(tmp_path: Path) -> None:
    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with serve(echo, "127.0.0.1", 0, subprotocols=["v2"]) as server:  # type: ignore[list-item]
        port = next(iter(server.sockets)).getsockname()[1]
        async with running(tmp_path, f"http://127.0.0.1:{port}") as started:
            async with connect(
                f"wss://localhost:{started.port}/ws", ssl=trusting(started),
                subprotocols=["v1", "v2"], max_size=None,  # type: ignore[list-item]
            ) as socket:  # fmt: skip
                assert socket.subprotocol == "v2"
                assert [e.name for e in socket.protocol.extensions] == ["permessage-deflate"]
                for message in ("text", b"binary", "x" * 1_000_000):
                    await socket.send(message)
                    assert await socket.recv() == message
                await (await socket.ping())
                await socket.close(4000, "done")
            await until(lambda: bool(started.access()))
            (record,) = started.access()
            assert (record["status"], record["outcome"]) == (101, "complete")
            assert record["protocol"] == "http/1.1"
            facts = record["tunnel"]
            assert (facts["client_close_code"], facts["origin_close_code"]) == (4000, 4000)


@pytest.mark.parametrize("origin", [uvicorn_origin, hypercorn_origin])
async def test_other_origins_and_an_rfc_9220_client(origin: Any, tmp_path: Path) -> None:
    """uvicorn by HTTP/1.1, hypercorn by RFC 8441; the client is aioquic."""
    protocol = 'protocol = "h2"' if origin is hypercorn_origin else ""
    async with (
        origin(application([])) as url,
        running(tmp_path, url, upstream_extra=protocol) as started,
        h3_client(started.port) as client,
        asyncio.timeout(30),
    ):
        end = H3ClientEnd(client)
        await end.start("/ws", [(b"sec-websocket-protocol", b"chat")])
        assert (end.status, end.fields[b"sec-websocket-protocol"]) == (200, b"chat")
        frames, got = Frames(), []
        await end.write(ws_frame(TEXT, b"hello", mask=MASK))
        while not got:
            got += frames.feed(await end.read())
        assert got == [(TEXT, b"hello")]
        await end.write(ws_frame(CLOSE, close_payload(1000), mask=MASK))
        while len(got) < 2:
            got += frames.feed(await end.read())
        assert got[1] == (CLOSE, close_payload(1000))
        # hypercorn waits for the client's end; uvicorn ends its half itself.
        await end.end()
        assert await end.read() == b""
        await until(lambda: bool(started.access()))
        (record,) = started.access()
        assert record["outcome"] == "complete"
        assert record["tunnel"]["client_close_code"] == 1000
        assert record["tunnel"]["origin_close_code"] == 1000


async def test_a_stopping_edge_sends_every_client_1001(tmp_path: Path) -> None:
    """HTTP/1.1 and HTTP/3 clients; the process exits as soon as they have closed."""
    async with (
        uvicorn_origin(application([])) as url,
        running(tmp_path, url) as started,
        connect(f"wss://localhost:{started.port}/ws", ssl=trusting(started)) as socket,
        h3_client(started.port) as client,
        asyncio.timeout(30),
    ):
        end = H3ClientEnd(client)
        await end.start("/ws", [])
        await socket.send("before")
        assert await socket.recv() == "before"
        started.process.send_signal(signal.SIGTERM)
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        got: list[tuple[int, bytes]] = []
        frames = Frames()
        while not got:
            got += frames.feed(await end.read())
        assert got == [(CLOSE, close_payload(1001))]
        await end.write(ws_frame(CLOSE, close_payload(1001), mask=MASK))
        await end.end()
        assert await asyncio.to_thread(started.process.wait, 10) == 0
        records = started.access()
        assert [record["outcome"] for record in records] == ["tunnel_drained"] * 2


async def test_a_tunnel_survives_a_reload(tmp_path: Path) -> None:
    async with (
        uvicorn_origin(application([])) as url,
        running(tmp_path, url) as started,
        connect(f"wss://localhost:{started.port}/ws", ssl=trusting(started)) as socket,
    ):
        config = started.directory / "quicedge.toml"
        # Another upstream and another route, as far as the edge can tell.
        text = config.read_text().replace('upstream = "app"', 'upstream = "app"\nmax_tunnels = 5')
        config.write_text(text.replace("[[routes]]", "retries = 0\n[[routes]]"))
        started.process.send_signal(signal.SIGHUP)
        await until(lambda: started.admin("/api/v1/status")["reloads"] == 1)
        await socket.send("after")
        assert await socket.recv() == "after"


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
async def test_chromium(protocol: str, tmp_path: Path) -> None:
    """A browser opens its socket on the connection that it has loaded the page on."""
    chromium = require("chromium")
    reports: list[str] = []
    offered = '["h2", "http/1.1"]' if protocol == "h2" else '["http/1.1"]'
    async with (
        uvicorn_origin(application(reports)) as url,
        running(tmp_path, url, options=f"protocols = {offered}") as started,
    ):
        browser = await asyncio.create_subprocess_exec(
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--ignore-certificate-errors",
            f"--user-data-dir={tmp_path}/profile", "--remote-debugging-port=0",
            f"https://localhost:{started.port}/",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await until(lambda: bool(reports), 60)
            assert reports == ["chat hello 1,2,3 4002 true"]
            await until(lambda: any(record["tunnel"] for record in started.access()))
        finally:
            browser.terminate()
            await browser.wait()
        (record,) = [record for record in started.access() if record["tunnel"]]
        assert record["protocol"] == protocol
        assert record["tunnel"]["client_close_code"] == 4002


TUNNELS_PER_CONNECTION = 100


async def test_five_hundred_idle_tunnels_cost_bounded_memory(tmp_path: Path) -> None:
    """Those of five clients, each to an origin's connection of its own."""
    async with tunnel_origin("http/1.1", echo_raw) as url, running(tmp_path, url) as started:
        ends: list[H3ClientEnd] = []

        async def more(stack: AsyncExitStack, connections: int) -> int:
            for _ in range(connections):
                client = await stack.enter_async_context(h3_client(started.port))
                for _ in range(TUNNELS_PER_CONNECTION):
                    end = H3ClientEnd(client)
                    await end.start("/ws", [])
                    assert end.status == 200
                    ends.append(end)
            return resident(started.worker_pid())

        async with AsyncExitStack() as stack, asyncio.timeout(120):
            before = await more(stack, 1)
            after = await more(stack, 4)
            each = (after - before) / (4 * TUNNELS_PER_CONNECTION)
            assert each < 48 * 1024, f"{each / 1024:.1f} KB per tunnel"
            gauge = 'quicedge_route_tunnels{route="*/"}'
            assert f"{gauge} 500.0" in started.metrics()
            # They are alive.
            for end in (ends[0], ends[-1]):
                await end.write(ws_frame(TEXT, b"still here", mask=MASK))
                assert await end.read() == ws_frame(TEXT, b"still here", mask=MASK)
        await until(lambda: f"{gauge} 0.0" in started.metrics())


async def echo_raw(end: Any) -> None:
    await end.accept()
    while data := await end.read():
        await end.write(data)


def resident(pid: int) -> int:
    """Bytes of resident memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
