"""Applications behave behind the edge as they do under uvicorn, over every HTTP version."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.applications.conversations import HTTP, WEBSOCKET, Exchange
from tests.support.edge import REPOSITORY, RunningEdge, edge
from tests.support.h3client import H3Client, h3_client
from tests.support.peers import free_edge_port, free_port, process, wait_until

FRAMEWORKS = {"Starlette": True, "FastAPI": True, "Django": False, "Quart": True}
"""Whether they speak WebSocket."""

OF_SERVERS = {"alt-svc", "connection", "date", "server", "transfer-encoding", "via"}
"""Fields that are the server's, not the application's."""

Seen = tuple[int, list[tuple[str, str]], bytes]


def seen(status: int, fields: Any, body: bytes) -> Seen:
    """A response, as far as it is the application's."""
    kept = [(name.lower(), value) for name, value in fields if name.lower() not in OF_SERVERS]
    if b"Traceback" in body or status == 500:
        # Pages of frameworks differ by addresses of objects; uvicorn's own is a line of text.
        return status, [], b""
    if status == 204:
        # RFC 9110 section 8.6: a server MUST NOT send content-length with 204; uvicorn does.
        kept = [(name, value) for name, value in kept if name != "content-length"]
    # Methods come from a set.
    kept = [
        (name, ", ".join(sorted(value.split(", ")))) if name == "allow" else (name, value)
        for name, value in kept
    ]
    return status, sorted(kept), body


def module(framework: str) -> str:
    return f"tests.support.applications.{framework.lower()}_app:app"


@contextmanager
def uvicorn(framework: str, directory: Path) -> Iterator[str]:
    """The application under uvicorn; its URL."""
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", module(framework), "--port", str(port),
        "--proxy-headers", "--log-level", "warning",
    ]  # fmt: skip
    with process(command, directory / "uvicorn.log", cwd=REPOSITORY):
        url = f"http://127.0.0.1:{port}"

        def is_up() -> bool:
            try:
                return httpx.get(f"{url}/hello").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(is_up, "uvicorn")
        yield url


@contextmanager
def edge_with(framework: str, directory: Path) -> Iterator[RunningEdge]:
    application = f'asgi = "{module(framework)}"\napp_directory = "{REPOSITORY}"'
    # What is raised in an application is logged with its traceback.
    with edge(directory, "", upstream_extra=application, tracebacks=True) as running:
        yield running


def context(running: RunningEdge) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(running.certificate.ca))


async def over_http(client: httpx.AsyncClient, item: Exchange) -> Seen:
    # The same authority everywhere: it is part of some answers.
    headers = {"accept-encoding": "identity", "host": "localhost", **item.headers}
    request = client.build_request(item.method, item.target, headers=headers, content=item.body)
    response = await client.send(request, stream=True)
    body = b"".join([piece async for piece in response.aiter_raw()])
    await response.aclose()
    return seen(response.status_code, response.headers.multi_items(), body)


async def over_h3(client: H3Client, item: Exchange) -> Seen:
    headers = {"accept-encoding": "identity", **item.headers}
    if item.body or item.method in ("PUT", "PATCH", "POST"):
        headers["content-length"] = str(len(item.body))
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    answer = await client.ask(
        item.method.encode(), item.target.encode(), fields, item.body, b"localhost"
    )
    assert answer.status is not None
    return seen(
        answer.status,
        [(name.decode(), value.decode("latin-1")) for name, value in answer.fields],
        bytes(answer.body),
    )


@asynccontextmanager
async def client_of(running: RunningEdge, version: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"https://localhost:{running.port}",
        verify=context(running),
        http1=version == "1.1",
        http2=version == "2",
        timeout=30,
    ) as client:
        yield client


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_applications_answer_as_under_uvicorn(framework: str, tmp_path: Path) -> None:
    expected: dict[str, list[Seen]] = {}
    with uvicorn(framework, tmp_path) as url:
        for what, exchanges in HTTP.items():
            expected[what] = []
            for item in exchanges:
                # A connection each: uvicorn closes those on which an application has failed.
                async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                    expected[what].append(await over_http(client, item))
    assert expected["lifespan"][0][2] == b"hello from the lifespan"
    assert expected["exception"][0][0] == 500
    with edge_with(framework, tmp_path) as running:
        for version in ("1.1", "2"):
            async with client_of(running, version) as client:
                for what, exchanges in HTTP.items():
                    answers = [await over_http(client, item) for item in exchanges]
                    assert answers == expected[what], (what, version)
        async with h3_client(running.port) as h3:
            for what, exchanges in HTTP.items():
                answers = [await over_h3(h3, item) for item in exchanges]
                assert answers == expected[what], (what, "3")


async def conversation(url: str, tls: ssl.SSLContext | None) -> list[object]:
    """What a client of `/ws` gets to see."""
    said: list[object] = []
    try:
        async with connect(f"{url}/ws", ssl=tls):
            said.append("accepted")
    except InvalidStatus as error:
        said.append(error.response.status_code)
    async with connect(f"{url}/ws?token=1", ssl=tls, subprotocols=["other", "chat"]) as socket:  # type: ignore[list-item]
        said += [socket.subprotocol, bool(socket.protocol.extensions)]
        for message in ("hällo", "x" * 100_000):
            await socket.send(message)
            said.append(await socket.recv())
        await socket.send("leave")
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        said += [socket.close_code, socket.close_reason]
    return said


@pytest.mark.parametrize("framework", [name for name, speaks in FRAMEWORKS.items() if speaks])
async def test_websockets_are_as_under_uvicorn(framework: str, tmp_path: Path) -> None:
    with uvicorn(framework, tmp_path) as url:
        expected = await conversation(url.replace("http", "ws"), None)
    assert expected[:2] == [403, "chat"]
    assert expected[-2:] == [4001, "as you wish"]
    with edge_with(framework, tmp_path) as running:
        url = f"wss://localhost:{running.port}"
        assert await conversation(url, context(running)) == expected


def test_an_application_that_cannot_be_served_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import quicedge_no_such_module\n")
    (tmp_path / "q.toml").write_text(
        f'listen = ["127.0.0.1:{free_edge_port()}"]\n[admin]\nenabled = false\n'
        '[upstreams.x]\nasgi = "broken:app"\n[[routes]]\nupstream = "x"\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "quicedge", "serve", "--config", str(tmp_path / "q.toml")],
        capture_output=True, text=True, cwd=tmp_path, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "upstreams.x.asgi: broken:app: ModuleNotFoundError" in done.stderr
    assert "broken.py, line 1" in done.stderr


async def test_an_application_that_fails_costs_its_request_alone(tmp_path: Path) -> None:
    """Without a framework that would answer for it."""
    (tmp_path / "bare.py").write_text(
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan' or scope['path'] == '/raise':\n"
        "        raise LookupError('nothing there')\n"
        "    if scope['path'] == '/silent':\n"
        "        return\n"
        "    fields = [(b'content-length', b'9')]\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': fields})\n"
        "    if scope['path'] == '/half':\n"
        "        await send({'type': 'http.response.body', 'body': b'x', 'more_body': True})\n"
        "        raise LookupError('nothing more')\n"
        "    await send({'type': 'http.response.body', 'body': b'all there'})\n"
    )
    with edge(tmp_path, "", upstream_extra='asgi = "bare:app"', tracebacks=True) as running:
        async with h3_client(running.port) as h3:
            assert (await h3.ask(b"GET", b"/raise")).status == 500
            assert (await h3.ask(b"GET", b"/silent")).status == 500
            assert (await h3.ask(b"GET", b"/half")).reset is not None
            assert bytes((await h3.ask(b"GET", b"/")).body) == b"all there"
        outcomes = {
            "/raise": "origin_application", "/silent": "origin_application",
            "/half": "origin_reset", "/": "complete",
        }  # fmt: skip
        wait_until(
            lambda: {r["path"]: r["outcome"] for r in running.access()} == outcomes, "the log"
        )


def test_a_reload_takes_up_an_application_or_refuses_it(tmp_path: Path) -> None:
    application = f'asgi = "{module("Starlette")}"\napp_directory = "{REPOSITORY}"'
    with edge(tmp_path, "", upstream_extra=application) as running:
        config = tmp_path / "quicedge.toml"
        text = config.read_text()
        (tmp_path / "late.py").write_text(
            "async def app(scope, receive, send):\n"
            "    if scope['type'] == 'lifespan':\n"
            "        await receive()\n"
            "        await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
        )
        config.write_text(text.replace(application, 'asgi = "late:app"'))
        reload = [sys.executable, "-m", "quicedge", "reload", "--config", str(config)]
        refused = subprocess.run(
            reload, capture_output=True, text=True, cwd=REPOSITORY, timeout=60, check=False
        )
        assert refused.returncode == 1
        assert "upstreams.app.asgi: late:app: no database" in refused.stdout + refused.stderr
        assert running.get("/hello").stdout == b"hello from the lifespan"
        config.write_text(text.replace(module("Starlette"), module("Quart")))
        subprocess.run(reload, check=True, cwd=REPOSITORY, timeout=60)
        assert running.get("/hello").stdout == b"hello from the lifespan"
        wait_until(
            lambda: module("Quart") in [record["server"] for record in running.access()],
            "the access record",
        )


def test_serve_reloads_an_application_that_changes(tmp_path: Path) -> None:
    code = (
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200})\n"
        "    await send({'type': 'http.response.body', 'body': b'VERSION'})\n"
    )
    (tmp_path / "main.py").write_text(code.replace("VERSION", "one"))
    port = free_edge_port()
    with (tmp_path / "out").open("wb") as output:
        running = subprocess.Popen(
            [
                sys.executable, "-m", "quicedge", "serve", "--app", "main:app", "--reload",
                "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{free_port()}",
            ],
            stdout=output, stderr=output, cwd=tmp_path,
        )  # fmt: skip
    try:

        def body() -> str:
            try:
                tls = ssl.create_default_context(cafile=str(tmp_path / "certs" / "ca.pem"))
                return httpx.get(f"https://localhost:{port}/", verify=tls).text
            except (OSError, httpx.TransportError):
                return ""

        wait_until(lambda: body() == "one", "the first version")
        (tmp_path / "main.py").write_text(code.replace("VERSION", "broken' '"))
        (tmp_path / "main.py").write_text(code.replace("VERSION", "two"))
        wait_until(lambda: body() == "two", "the second version")
        running.send_signal(signal.SIGTERM)
        assert running.wait(15) == 0
    finally:
        if running.poll() is None:
            running.kill()
            running.wait()


def test_the_table_of_the_documentation_is_what_was_compared() -> None:
    text = (REPOSITORY / "docs" / "applications.md").read_text()
    assert f"| | {' | '.join(FRAMEWORKS)} |" in text
    rows = dict(re.findall(r"^\| ([^|]+) \| (.+) \|$", text, re.MULTILINE))
    rows = {name: cells for name, cells in rows.items() if name in {*HTTP, WEBSOCKET}}
    assert list(rows) == [*HTTP, WEBSOCKET]
    for name, cells in rows.items():
        for framework, cell in zip(FRAMEWORKS, cells.split(" | "), strict=True):
            speaks = name != WEBSOCKET or FRAMEWORKS[framework]
            assert cell == ("same" if speaks else "not spoken"), (name, framework)
