"""The embedded origin of `quicedge demo`: a small HTTP/1.1 server with various resources."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

import httptools

from quicedge.cli import site
from quicedge.config.convert import parse_size

_BLOCK = bytes(range(256)) * 256
"""64 KB that `/download` repeats."""
MAX_DOWNLOAD = 10 * 10**9


class _Bad(Exception):
    """An invalid query (400)."""


class DemoOrigin:
    """`await start()` listens on a free loopback port; `url` says where."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self.url = ""

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(_serve, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await _Exchange(reader, writer).run():
            pass
    except (ConnectionError, asyncio.IncompleteReadError, httptools.HttpParserError):
        pass
    finally:
        writer.close()


class _Exchange:
    """One request and its response on a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: list[tuple[str, str]] = []
        self._head_done = False
        self._body_done = False
        self._chunks: list[bytes] = []

    # httptools callbacks

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self._head_done = True

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        self._body_done = True

    # the exchange

    async def _feed(self) -> bool:
        data = await self._reader.read(65536)
        if data:
            self._parser.feed_data(data)
        return bool(data)

    async def run(self) -> bool:
        """Answer one request; returns whether the connection can be reused."""
        while not self._head_done:
            if not await self._feed():
                return False
        if ("expect", "100-continue") in self._fields:
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts = urlsplit(self._target.decode("latin-1"))
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        handler = _HANDLERS.get(parts.path)
        try:
            if handler is not None:
                await handler(self, query)
            elif parts.path.startswith("/status/") and parts.path[8:].isdigit():
                await self._status(int(parts.path[8:]))
            else:
                await self._page(parts.path)
        except (_Bad, ValueError) as error:
            await self.respond(400, "text/plain", f"{error}\n".encode())
        async for _ in self.body():
            pass
        return self._parser.should_keep_alive()

    async def body(self) -> AsyncIterator[bytes]:
        """The request body, piece by piece."""
        while True:
            chunks, self._chunks = self._chunks, []
            for chunk in chunks:
                yield chunk
            if self._body_done and not self._chunks:
                return
            if not self._body_done and not await self._feed():
                raise ConnectionError("the request was cut off")

    @property
    def method(self) -> str:
        return str(self._parser.get_method().decode())

    def head(self, status: int, fields: list[tuple[str, str]]) -> None:
        lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in fields)]
        self._writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def respond(
        self, status: int, kind: str, body: bytes, fields: list[tuple[str, str]] | None = None
    ) -> None:
        length = [] if status in (204, 304) else [("content-length", str(len(body)))]
        self.head(status, [("content-type", kind), *length, *(fields or [])])
        if self.method != "HEAD" and length:
            self._writer.write(body)
        await self._writer.drain()

    async def chunk(self, data: bytes) -> None:
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self._writer.drain()

    def last_chunk(self, trailers: list[tuple[str, str]] | None = None) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in trailers or [])
        self._writer.write(b"0\r\n" + lines.encode() + b"\r\n")

    # resources

    async def _page(self, path: str) -> None:
        found = site.page(path)
        if found is None:
            await self.respond(404, "text/plain", b"Not found.\n")
        else:
            await self.respond(200, *found)

    async def _status(self, status: int) -> None:
        if not 200 <= status <= 599:
            raise _Bad("a status is 200 to 599")
        await self.respond(status, "text/plain", f"{status}\n".encode())

    async def echo(self, query: dict[str, str]) -> None:
        digest, size = await self._digest()
        answer = {
            "method": self.method,
            "target": self._target.decode("latin-1"),
            "fields": self._fields,
            "body": {"bytes": size, "sha256": digest},
        }
        await self.respond(200, "application/json", json.dumps(answer, indent=1).encode() + b"\n")

    async def upload(self, query: dict[str, str]) -> None:
        digest, size = await self._digest()
        answer = json.dumps({"bytes": size, "sha256": digest}).encode() + b"\n"
        await self.respond(200, "application/json", answer)

    async def _digest(self) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        async for data in self.body():
            digest.update(data)
            size += len(data)
        return digest.hexdigest(), size

    async def download(self, query: dict[str, str]) -> None:
        try:
            size = parse_size(query.get("size", "1MB"))
        except ValueError as error:
            raise _Bad("size is bytes, or such as 64KB or 10MB") from error
        if size > MAX_DOWNLOAD:
            raise _Bad("that is too large")
        fields = [("content-type", "application/octet-stream"), ("content-length", str(size))]
        self.head(200, fields)
        if self.method == "HEAD":
            return
        for _ in range(size // len(_BLOCK)):
            self._writer.write(_BLOCK)
            await self._writer.drain()
        self._writer.write(_BLOCK[: size % len(_BLOCK)])
        await self._writer.drain()

    async def slow(self, query: dict[str, str]) -> None:
        seconds = min(float(query.get("seconds", "5")), 600.0)
        self.head(200, [("content-type", "text/plain"), ("transfer-encoding", "chunked")])
        for tick in range(int(seconds)):
            await self.chunk(f"tick {tick}\n".encode())
            await asyncio.sleep(1)
        self.last_chunk()

    async def delay(self, query: dict[str, str]) -> None:
        await asyncio.sleep(min(float(query.get("seconds", "1")), 600.0))
        await self.respond(200, "text/plain", b"at last\n")

    async def events(self, query: dict[str, str]) -> None:
        count = min(int(query.get("count", "10")), 10_000)
        interval = min(float(query.get("interval", "1")), 60.0)
        self.head(200, [("content-type", "text/event-stream"), ("transfer-encoding", "chunked")])
        for number in range(count):
            await self.chunk(f"id: {number}\ndata: event {number}\n\n".encode())
            await asyncio.sleep(interval)
        self.last_chunk()

    async def early_hints(self, query: dict[str, str]) -> None:
        self.head(103, [("link", "</style.css>; rel=preload; as=style")])
        await self.respond(200, "text/plain", b"after an early hint\n")

    async def trailers(self, query: dict[str, str]) -> None:
        self.head(200, [("content-type", "text/plain"), ("transfer-encoding", "chunked"),
                        ("trailer", "x-checksum")])  # fmt: skip
        body = b"a body with a trailer\n"
        await self.chunk(body)
        self.last_chunk([("x-checksum", hashlib.sha256(body).hexdigest())])


_Handler = Callable[[_Exchange, dict[str, str]], Awaitable[None]]
_HANDLERS: dict[str, _Handler] = {
    "/echo": _Exchange.echo,
    "/upload": _Exchange.upload,
    "/download": _Exchange.download,
    "/slow": _Exchange.slow,
    "/delay": _Exchange.delay,
    "/events": _Exchange.events,
    "/early-hints": _Exchange.early_hints,
    "/trailers": _Exchange.trailers,
}
