"""Scripted origins on the test's event loop, and a handler that records responses."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event, RequestReceived

from quicedge.http.message import Field, Request, Response
from quicedge.shares import Client
from quicedge.upstream.base import OriginStream, UpstreamError, in_pieces
from quicedge.upstream.group import Upstream

TIMEOUT = 10.0
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
E = TypeVar("E", bound=Event)
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Recorder:
    """A `ResponseHandler` that keeps its calls, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.interim: list[Response] = []
        self.head: Response | None = None
        self.body = bytearray()
        self.trailers: list[Field] = []
        self.error: UpstreamError | None = None
        self.request_paused = False
        self._changed = asyncio.Event()

    def _happened(self, what: str) -> None:
        if what != "data" or self.events[-1:] != ["data"]:
            self.events.append(what)
        self._changed.set()

    def informational(self, response: Response) -> None:
        self.interim.append(response)
        self._happened("informational")

    def response(self, response: Response) -> None:
        self.head = response
        self._happened("response")

    def data(self, data: bytes) -> None:
        self.body += data
        self._happened("data")

    def end(self, trailers: Sequence[Field]) -> None:
        self.trailers = list(trailers)
        self._happened("end")

    def whole(self, response: Response, data: bytes) -> None:
        in_pieces(self, response, data)

    def failed(self, error: UpstreamError) -> None:
        self.error = error
        self._happened("failed")

    def pause_request(self) -> None:
        self.request_paused = True
        self._happened("pause")

    def resume_request(self) -> None:
        self.request_paused = False
        self._happened("resume")

    @property
    def is_over(self) -> bool:
        return "end" in self.events or "failed" in self.events

    @property
    def status(self) -> int:
        assert self.head is not None, f"no response but {self.events}, {self.error}"
        return self.head.status

    @property
    def kind(self) -> str:
        assert self.error is not None, f"no failure but {self.events}"
        return self.error.kind

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something recorded; fails after TIMEOUT."""
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def over(self) -> Recorder:
        """Wait for the end, good or bad."""
        await self.until(lambda: self.is_over)
        return self


async def eventually(condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds; fails after TIMEOUT."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.001)


def request(
    method: str = "GET",
    path: str = "/",
    *fields: Field,
    body: bool = False,
    length: int | None = None,
) -> Request:
    return Request(
        method.encode(),
        b"https",
        b"example.com",
        path.encode(),
        list(fields),
        content_length=length,
        ended=not body,
    )


def send(
    upstream: Upstream, message: Request, *body: bytes, client: Client | None = None
) -> tuple[OriginStream, Recorder]:
    """Open a request of a client and, when it has a body, send that and its end."""
    recorder = Recorder()
    stream = upstream.open(message, recorder, client)
    if not message.ended:
        for piece in body:
            stream.write(piece)
        stream.end()
    return stream, recorder


async def fetch(upstream: Upstream, message: Request, *body: bytes) -> Recorder:
    return await send(upstream, message, *body)[1].over()


class Origin:
    """A running origin: its URL, how many connections it has had, and what went wrong in it."""

    def __init__(self, script: Script) -> None:
        self.url = ""
        self.connections = 0
        self.errors: list[BaseException] = []
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._run(reader, writer))
        self._tasks.add(task)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the edge closed: what the script expected of it, its own assertions say
        except Exception as error:
            self.errors.append(error)
        finally:
            writer.close()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def origin(
    script: Script,
    *,
    tls: ssl.SSLContext | None = None,
    unix: str | None = None,
    port: int = 0,
) -> AsyncIterator[Origin]:
    """Run `script` for every connection; what it raises fails the test at the end."""
    running = Origin(script)
    if unix is not None:
        server = await asyncio.start_unix_server(running.accept, unix)
        running.url = f"unix:{unix}"
    else:
        server = await asyncio.start_server(running.accept, "127.0.0.1", port, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        running.url = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
    try:
        yield running
    finally:
        server.close()
        await running.stop()
    if running.errors:
        raise running.errors[0]


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def says(*pieces: bytes, keep: bool = True) -> Script:
    """A script that answers each request head with the same bytes; `keep`: and stays open."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_head(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if not keep:
                return

    return script


def holding(go: asyncio.Event) -> Script:
    """A script that answers each request with OK once it may."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_head(reader)
            await go.wait()
            writer.write(OK)

    return script


class H2Peer:
    """The server's side of an HTTP/2 connection, spoken by `h2`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, **settings: int
    ) -> None:
        self.reader, self.writer = reader, writer
        self.codec = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.codec.initiate_connection()
        if settings:
            self.codec.update_settings({int(code[1:]): value for code, value in settings.items()})
        self.events: list[Event] = []

    async def flush(self) -> None:
        self.writer.write(self.codec.data_to_send())
        await self.writer.drain()

    async def wait(self, kind: type[E], stream_id: int | None = None) -> E:
        """The next event of a kind (on a stream); others are kept for later."""
        while True:
            for event in self.events:
                of_stream = stream_id is None or getattr(event, "stream_id", None) == stream_id
                if isinstance(event, kind) and of_stream:
                    self.events.remove(event)
                    return event
            await self.flush()
            data = await self.reader.read(65536)
            if not data:
                raise ConnectionError("the edge closed")
            self.events += self.codec.receive_data(data)

    async def request(self) -> int:
        """The stream of the next request."""
        event = await self.wait(RequestReceived)
        assert event.stream_id is not None
        return event.stream_id

    async def respond(
        self, stream_id: int, body: bytes = b"", *fields: Field, status: bytes = b"200"
    ) -> None:
        self.codec.send_headers(stream_id, [(b":status", status), *fields], end_stream=not body)
        if body:
            self.codec.send_data(stream_id, body, end_stream=True)
        await self.flush()


def h2_says(body: bytes = b"hello", **settings: int) -> Script:
    """A script that answers every HTTP/2 request with `body`."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer, **settings)
        while True:
            await peer.respond(await peer.request(), body)

    return script


def config_of(*origins: Origin | str, **options: Any) -> Any:
    """The configuration of an upstream with these servers."""
    from quicedge.config.schema import Upstream as UpstreamConfig

    urls = [item if isinstance(item, str) else item.url for item in origins]
    return msgspec.convert({"servers": urls, **options}, UpstreamConfig)


@asynccontextmanager
async def upstream(*origins: Origin | str, **options: Any) -> AsyncIterator[Upstream]:
    """An upstream of these servers, closed at the end."""
    group = Upstream("test", config_of(*origins, **options))
    try:
        yield group
    finally:
        async with asyncio.timeout(TIMEOUT):
            await group.close()
