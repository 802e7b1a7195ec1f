"""An HTTP/1.1 session on a fake transport and a loop moved by hand, with the test as the origin."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from quicedge.downstream.http1 import Http1Session
from quicedge.http.h1_head import HeadReader
from tests.support.client_info import StubClient
from tests.support.sessions import OriginRequest, StubEdge


class FakeLoop:
    """Callbacks and timers, on a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self._ready: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._timers: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []

    def call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        self._ready.append((call, arguments))

    def call_later(self, after: float, call: Callable[..., object], *arguments: Any) -> Any:
        timer = self.now + after, id(call), call, arguments
        heapq.heappush(self._timers, timer)
        return SimpleNamespace(cancel=lambda: self._cancel(timer))

    def _cancel(self, timer: Any) -> None:
        if timer in self._timers:
            self._timers.remove(timer)
            heapq.heapify(self._timers)

    def run(self) -> None:
        """Run until nothing is ready."""
        while self._ready:
            ready, self._ready = self._ready, []
            for call, arguments in ready:
                call(*arguments)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        while self._timers and self._timers[0][0] <= self.now:
            _, _, call, arguments = heapq.heappop(self._timers)
            call(*arguments)
            self.run()


class FakeTransport:
    """Takes everything at once, unless `stuck`."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.stuck = False
        self.buffered = 0
        self.high, self.low = 65536, 16384
        self.closed = self.aborted = self.reading_paused = False
        self.session: Any

    def write(self, data: bytes) -> None:
        assert not self.is_closing(), "a write after the end"
        self.writes.append(data)
        if self.stuck:
            was = self.buffered
            self.buffered += len(data)
            if was <= self.high < self.buffered:
                self.session.pause_writing()

    def take(self) -> None:
        """The client reads everything."""
        self.buffered = 0
        self.session.resume_writing()

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self.high, self.low = high, low

    def get_write_buffer_size(self) -> int:
        return self.buffered


class FakeConnection:
    """A connection whose client acknowledges what its transport has sent."""

    def __init__(self, transport: FakeTransport) -> None:
        self.transport = transport

    @property
    def bytes_sent(self) -> int:
        return sum(map(len, self.transport.writes))

    def undelivered(self) -> int:
        return self.transport.buffered


class Reply(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes


class H1Client:
    """A client whose bytes arrive when the test says so."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.edge = StubEdge()
        self.transport = FakeTransport()
        self.connection = FakeConnection(self.transport)
        self.ended_sessions: list[object] = []
        host = SimpleNamespace(
            loop=self.loop,
            heads=HeadReader(self.edge.message_limits),
            session_ended=self.ended_sessions.append,
        )
        self.session = Http1Session(
            self.connection, StubClient(http_version=b"1.1"), self.edge, host, b"192.0.2.7",  # type: ignore[arg-type]
        )  # fmt: skip
        self.transport.session = self.session
        self.session.start()

    def send(self, data: bytes) -> None:
        self.session.data_received(data)
        self.loop.run()

    def end(self) -> bool:
        """Close the client's half; whether the edge's stays open."""
        stays = self.session.eof_received()
        self.loop.run()
        return stays

    def lose(self, error: Exception | None = None) -> None:
        self.session.connection_lost(error)
        self.loop.run()

    @property
    def origin(self) -> list[OriginRequest]:
        """Requests that the origin got."""
        return self.edge.at_origin

    def answer(self, index: int = -1, **options: Any) -> None:
        self.origin[index].answer(**options)
        self.loop.run()

    @property
    def received(self) -> bytes:
        return b"".join(self.transport.writes)

    @property
    def is_over(self) -> bool:
        return self.transport.is_closing()

    def replies(self) -> list[Reply]:
        """The final responses, framed by Content-Length or chunks."""
        data, found = self.received, []
        while data:
            head, _, data = data.partition(b"\r\n\r\n")
            status_line, *lines = head.decode("latin-1").split("\r\n")
            fields = dict(line.split(": ", 1) for line in lines)
            status = int(status_line.split(" ")[1])
            if status < 200:
                continue
            if fields.get("transfer-encoding") == "chunked":
                body = b""
                while True:
                    size, _, data = data.partition(b"\r\n")
                    if not int(size, 16):
                        break
                    body += data[: int(size, 16)]
                    data = data[int(size, 16) + 2 :]
                trailers, _, data = (
                    (b"", b"", data[2:]) if data[:2] == b"\r\n" else data.partition(b"\r\n\r\n")
                )
                fields |= dict(
                    line.split(": ", 1) for line in trailers.decode().split("\r\n") if line
                )
            else:
                size_text = fields.get("content-length", "0" if status in (204, 304) else None)
                length = len(data) if size_text is None else int(size_text)
                body, data = data[:length], data[length:]
            found.append(Reply(status, fields, body))
        return found

    @property
    def reply(self) -> Reply:
        (reply,) = self.replies()
        return reply


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def get(path: str = "/", *lines: str, version: str = "1.1", method: str = "GET") -> bytes:
    host = (
        ()
        if any(re.match("host:", line, re.IGNORECASE) for line in lines)
        else ("Host: localhost",)
    )
    return "\r\n".join((f"{method} {path} HTTP/{version}", *host, *lines, "", "")).encode("latin-1")


def post(body: bytes, *lines: str) -> bytes:
    return get("/", f"Content-Length: {len(body)}", *lines, method="POST") + body


def chunked(*chunks: bytes, trailers: str = "", lines: tuple[str, ...] = ()) -> bytes:
    head = get("/", "Transfer-Encoding: chunked", *lines, method="POST")
    pieces = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    return head + b"".join(pieces) + b"0\r\n" + trailers.encode() + b"\r\n"
