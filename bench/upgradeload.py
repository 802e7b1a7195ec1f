"""Honest clients of the upgrade soak, of every protocol; every byte is checked.

Usage: upgradeload.py QUIC_PORT TCP_PORT CLIENTS UPGRADE_DRAIN. Says `{"ready": ...}`, then works
until standard input ends; each line on it says that workers are being replaced. Then prints what
was done, what was lost, and which new connections were refused.

Says too for how long clients stood still: servers rightly give up whoever says nothing for as long
as a handshake or a drain takes.

Clients go elsewhere when they are asked to (GOAWAY, `connection: close`, a WebSocket's close), and
repeat what the server says it has not begun. That is no loss; everything else is.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import random
import ssl
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import h2.connection
import h2.events
import uvloop
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.buffer import Buffer, BufferReadError
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import (
    ConnectionTerminated,
    ProtocolNegotiated,
    QuicEvent,
    StreamDataReceived,
    StreamReset,
)

from bench import answers
from bench.soakload import say
from bench.upgradeorigin import read_frame

LARGE, SMALL, UPLOAD = 100_000, 300, 40_000
REQUEST_TIMEOUT = 45.0
CONNECT_TIMEOUT = 30.0
PING_SECONDS = 3.0
WATCH_SECONDS = 0.1
AT_ONCE = 16
_GOAWAY = 7
_NO_ERROR, _REJECTED = 0x100, 0x10B
"""RFC 9114 sections 7.2.6 and 8.1."""

SHARES = {"download": 25, "upload": 10, "idle": 30, "h1": 10, "h2": 10, "ws": 8, "sse": 7}
"""Clients of each kind in a hundred."""


class Moved(Exception):
    """The server asked to go elsewhere and has not begun the request."""


class Lost(Exception):
    """An exchange that was not completed; the message says how."""


class Soak:
    """What happened so far."""

    def __init__(self, quic_port: int, tcp_port: int, clients: int, upgrade_drain: float) -> None:
        self.quic_port, self.tcp_port = quic_port, tcp_port
        self.upgrade_drain = upgrade_drain
        self.stopping = asyncio.Event()
        self.switched_at = float("-inf")
        self.done: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        self.handshakes = asyncio.Semaphore(AT_ONCE)
        self.connected = 0
        self.stalled = 0.0
        """Seconds for which all clients stood still at most, as this process got no processor."""
        self.interval = max(1.0, clients / 50)
        """Seconds between the requests of a client; aioquic takes a core for 2 MB per second."""
        self.tls = ssl.create_default_context()
        self.tls.check_hostname = False
        self.tls.verify_mode = ssl.CERT_NONE

    async def pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), random.uniform(0.5, 1.5) * seconds)

    async def watch(self) -> None:
        """Measure how late the event loop is."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + WATCH_SECONDS
            await asyncio.sleep(WATCH_SECONDS)
            self.stalled = max(self.stalled, loop.time() - due)

    async def tcp(self, alpn: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols([alpn])
        async with self.handshakes, asyncio.timeout(CONNECT_TIMEOUT):
            return await asyncio.open_connection(
                "127.0.0.1", self.tcp_port, ssl=context, server_hostname="localhost"
            )

    async def live(self, kind: str, one: Callable[[Soak, str], Awaitable[None]]) -> None:
        """One client, over as many connections as it takes."""
        while not self.stopping.is_set():
            try:
                await one(self, kind)
            except Moved:
                self.moved[kind] += 1
            except Lost as error:
                self.lost[f"{kind}: {error}"] += 1


# --- HTTP/3 -------------------------------------------------------------------------------------


class _Http(H3Connection):
    """Stock aioquic, which skips GOAWAY."""

    goaway: int | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unidirectional: dict[int, bytes] = {}

    def handle_event(self, event: QuicEvent) -> list[H3Event]:
        if isinstance(event, StreamDataReceived) and event.stream_id & 3 == 3:
            known = self._unidirectional.get(event.stream_id, b"") + event.data
            self._unidirectional[event.stream_id] = known
            if known[:1] == b"\0":
                self._read_control(known)
        return super().handle_event(event)

    def _read_control(self, stream: bytes) -> None:
        buffer = Buffer(data=stream)
        buffer.pull_uint_var()
        with contextlib.suppress(BufferReadError):
            while not buffer.eof():
                kind, content = buffer.pull_uint_var(), buffer.pull_bytes(buffer.pull_uint_var())
                if kind == _GOAWAY:
                    self.goaway = Buffer(data=content).pull_uint_var()


class QuicClient(QuicConnectionProtocol):
    _http: _Http | None = None
    ended: str | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: dict[int, tuple[asyncio.Future[bytes], list[bytes]]] = {}

    @property
    def is_leaving(self) -> bool:
        return self.ended is not None or (self._http is not None and self._http.goaway is not None)

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self._http = _Http(self._quic)
        elif isinstance(event, StreamReset):
            self._fail(event.stream_id, event.error_code == _REJECTED, f"reset {event.error_code}")
        elif isinstance(event, ConnectionTerminated):
            self.ended = f"closed {event.error_code:#x} {event.reason_phrase}"
            for stream_id in list(self._waiting):
                goaway = self._http.goaway if self._http is not None else None
                unseen = event.error_code == _NO_ERROR and goaway is not None
                self._fail(stream_id, unseen and stream_id >= (goaway or 0), self.ended)
        for item in self._http.handle_event(event) if self._http is not None else ():
            if isinstance(item, HeadersReceived | DataReceived) and item.stream_id in self._waiting:
                future, pieces = self._waiting[item.stream_id]
                if isinstance(item, DataReceived):
                    pieces.append(item.data)
                elif (status := dict(item.headers).get(b":status")) != b"200":
                    self._fail(item.stream_id, False, f"status {status!r}")
                    continue
                if item.stream_ended and not future.done():
                    del self._waiting[item.stream_id]
                    future.set_result(b"".join(pieces))

    def _fail(self, stream_id: int, unseen: bool, reason: str) -> None:
        future, _ = self._waiting.pop(stream_id, (None, None))
        if future is not None and not future.done():
            future.set_exception(Moved() if unseen else Lost(reason))

    async def ask(self, path: str, body: bytes | None = None) -> bytes:
        assert self._http is not None
        if self.ended is not None:
            raise Moved
        stream_id = self._quic.get_next_available_stream_id()
        future = self._loop.create_future()
        self._waiting[stream_id] = future, []
        fields = [(b":method", b"GET" if body is None else b"POST"), (b":scheme", b"https"),
                  (b":authority", b"localhost"), (b":path", path.encode())]  # fmt: skip
        self._http.send_headers(stream_id, fields, end_stream=body is None)
        if body is not None:
            self._http.send_data(stream_id, body, end_stream=True)
        self.transmit()
        for _ in range(round(REQUEST_TIMEOUT / PING_SECONDS)):
            # A client whose NAT has changed its port, and that owes nothing, would wait for ever.
            await asyncio.wait({future}, timeout=PING_SECONDS)
            if future.done():
                return bytes(future.result())
            self.ping()
        del self._waiting[stream_id]
        raise Lost("timeout")

    def ping(self) -> None:
        if self.ended is None:
            self._quic.send_ping(0)
            self.transmit()


async def over_quic(soak: Soak, kind: str) -> None:
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, server_name="localhost",
        max_datagram_size=1452, idle_timeout=60,
    )  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with soak.handshakes, asyncio.timeout(CONNECT_TIMEOUT):
                client: Any = await stack.enter_async_context(
                    connect("127.0.0.1", soak.quic_port, configuration=configuration,
                            create_protocol=QuicClient)
                )  # fmt: skip
        except (ConnectionError, TimeoutError) as error:
            soak.refused[f"{kind}: {error or 'timeout'}"] += 1
            return
        soak.connected += 1
        turn = 0
        while not soak.stopping.is_set() and not client.is_leaving:
            if kind == "idle" and turn % 5:
                client.ping()
            else:
                await _exchange(soak, kind, client.ask)
            turn += 1
            await soak.pause(PING_SECONDS if kind == "idle" else soak.interval)


async def _exchange(
    soak: Soak, kind: str, ask: Callable[[str, bytes | None], Awaitable[bytes]]
) -> None:
    """One request, and a look at every byte of its response."""
    if kind == "upload":
        body = os.urandom(UPLOAD)
        right = await ask("/upload", body) == hashlib.sha256(body).hexdigest().encode()
    else:
        size = LARGE if kind == "download" else SMALL
        right = await ask(f"/download?size={size}", None) == answers.body(size)
    if not right:
        raise Lost("wrong content")
    soak.done[kind] += 1


# --- HTTP/2 and HTTP/1.1 ------------------------------------------------------------------------


async def _connected(soak: Soak, kind: str, alpn: str) -> Any:
    try:
        streams = await soak.tcp(alpn)
    except (OSError, TimeoutError) as error:
        soak.refused[f"{kind}: {error or 'timeout'}"] += 1
        await asyncio.sleep(0.1)
        return None
    soak.connected += 1
    return streams


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and fields; raises Moved when the connection was closed before a response."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        # RFC 9112 section 9.3.1: a request that can be repeated, on a connection that was idle.
        raise (Lost("response cut") if error.partial else Moved()) from None
    except ConnectionError:
        raise Moved from None
    line, *rest = head.decode("latin-1").split("\r\n")
    fields = dict(item.lower().split(": ", 1) for item in rest if ": " in item)
    return int(line.split(" ")[1]), fields


async def over_h1(soak: Soak, kind: str) -> None:
    if (streams := await _connected(soak, kind, "http/1.1")) is None:
        return
    reader, writer = streams
    is_leaving = False

    async def ask(path: str, body: bytes | None) -> bytes:
        nonlocal is_leaving
        writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        status, fields = await _read_head(reader)
        if status != 200:
            raise Lost(f"status {status}")
        is_leaving = fields.get("connection") == "close"
        try:
            return await reader.readexactly(int(fields["content-length"]))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Lost("content cut") from None

    try:
        while not soak.stopping.is_set() and not is_leaving:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                await _exchange(soak, kind, ask)
            await soak.pause(1.0)
    except TimeoutError:
        raise Lost("timeout") from None
    finally:
        writer.transport.abort()


class _H2Frames:
    """Frames as they come, without GOAWAY, after which h2 would take no other."""

    def __init__(self) -> None:
        self.goaway: int | None = None
        self._buffer = b""

    def feed(self, data: bytes) -> bytes:
        """The complete frames for h2."""
        self._buffer += data
        passed = b""
        while len(self._buffer) >= 9:
            end = 9 + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < end:
                break
            frame, self._buffer = self._buffer[:end], self._buffer[end:]
            if frame[3] == _GOAWAY:
                self.goaway = int.from_bytes(frame[9:13], "big")
            else:
                passed += frame
        return passed


async def over_h2(soak: Soak, kind: str) -> None:
    if (streams := await _connected(soak, kind, "h2")) is None:
        return
    reader, writer = streams
    http = h2.connection.H2Connection()
    http.initiate_connection()
    frames = _H2Frames()

    async def ask(path: str, body: bytes | None) -> bytes:
        stream_id = http.get_next_available_stream_id()
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"),
                  (":path", path)]  # fmt: skip
        http.send_headers(stream_id, fields, end_stream=True)
        content = b""
        while True:
            writer.write(http.data_to_send())
            data = await reader.read(65536)
            if not data:
                unseen = frames.goaway is not None and stream_id > frames.goaway
                raise Moved if unseen else Lost("closed")
            for event in http.receive_data(frames.feed(data)):
                match event:
                    case h2.events.DataReceived():
                        content += event.data
                        http.acknowledge_received_data(event.flow_controlled_length, stream_id)
                    case h2.events.StreamEnded():
                        writer.write(http.data_to_send())
                        return content
                    case h2.events.StreamReset():
                        raise Moved if event.error_code == 7 else Lost(f"reset {event.error_code}")
            if frames.goaway is not None and stream_id > frames.goaway:
                raise Moved

    try:
        while not soak.stopping.is_set() and frames.goaway is None:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                await _exchange(soak, kind, ask)
            await soak.pause(1.0)
            # What came meanwhile, a GOAWAY perhaps.
            with contextlib.suppress(TimeoutError):
                data = await asyncio.wait_for(reader.read(65536), 0.01)
                http.receive_data(frames.feed(data))
                if not data:
                    return
    except TimeoutError:
        raise Lost("timeout") from None
    except ConnectionError:
        raise Lost("connection reset") from None
    finally:
        writer.transport.abort()


async def over_websocket(soak: Soak, kind: str) -> None:
    if (streams := await _connected(soak, kind, "http/1.1")) is None:
        return
    reader, writer = streams
    key = base64.b64encode(os.urandom(16)).decode()
    try:
        writer.write(
            "GET /ws HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            f"sec-websocket-key: {key}\r\nsec-websocket-version: 13\r\n\r\n".encode()
        )
        status, _ = await _read_head(reader)
        if status != 101:
            raise Lost(f"status {status}")
        while not soak.stopping.is_set():
            words = b"%d" % random.randrange(10**9)
            writer.write(bytes((0x81, 0x80 | len(words))) + bytes(4) + words)
            async with asyncio.timeout(REQUEST_TIMEOUT):
                opcode, content = await read_frame(reader)
            if opcode == 8:
                raise Moved  # 1001: go elsewhere
            if content != words:
                raise Lost("wrong echo")
            soak.done[kind] += 1
            await soak.pause(1.0)
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
        raise Lost(f"cut: {type(error).__name__}") from None
    finally:
        writer.transport.abort()


async def over_events(soak: Soak, kind: str) -> None:
    if (streams := await _connected(soak, kind, "http/1.1")) is None:
        return
    reader, writer = streams
    try:
        writer.write(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n")
        status, _ = await _read_head(reader)
        if status != 200:
            raise Lost(f"status {status}")
        expected = 0
        while not soak.stopping.is_set():
            async with asyncio.timeout(REQUEST_TIMEOUT):
                size = int(await reader.readline() or b"x", 16)
                event = await reader.readexactly(size + 2)
            if event.strip() != b"data: %d" % expected:
                raise Lost("an event is missing")
            expected += 1
            soak.done[kind] += 1
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError, ValueError):
        # A stream without end is closed when its time at replaced workers is over, not before.
        since = time.monotonic() - soak.switched_at
        if since < soak.upgrade_drain - 1:
            raise Lost(f"cut {since:.1f} s after workers were replaced") from None
        raise Moved from None
    finally:
        writer.transport.abort()


KINDS = {
    "download": over_quic, "upload": over_quic, "idle": over_quic, "h1": over_h1, "h2": over_h2,
    "ws": over_websocket, "sse": over_events,
}  # fmt: skip


async def main(quic_port: int, tcp_port: int, clients: int, upgrade_drain: float) -> None:
    soak = Soak(quic_port, tcp_port, clients, upgrade_drain)
    tasks = [
        asyncio.create_task(soak.live(kind, KINDS[kind]))
        for kind, share in SHARES.items()
        for _ in range(max(1, round(clients * share / 100)))
    ]
    watching = asyncio.create_task(soak.watch())
    while soak.connected < len(tasks):
        await asyncio.sleep(0.1)
    say(ready=len(tasks))
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        soak.switched_at = time.monotonic()
    soak.stopping.set()
    await asyncio.gather(*tasks)
    watching.cancel()
    say(
        stalled=soak.stalled,
        connections=soak.connected,
        done=soak.done,
        lost=soak.lost,
        refused=soak.refused,
        moved=soak.moved,
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case [quic, tcp, clients, drain]:
            uvloop.run(main(int(quic), int(tcp), int(clients), float(drain)))
        case _:
            sys.exit(__doc__)
