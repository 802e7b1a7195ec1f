"""Tunnels end to end: an edge in this process, and raw clients and origins of each HTTP version.

Clients and origins exchange the bytes of tunnels, so that one specification runs between all of
them. QUIC is that of the worker; HTTP/1.1 and HTTP/2 sessions are on plain TCP.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Protocol

import msgspec
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.settings import SettingCodes

from quicedge.config.schema import Config
from quicedge.downstream.http1 import Http1Session
from quicedge.downstream.http2 import Http2Session
from quicedge.http.h1_head import HeadReader
from quicedge.http.h2 import H2Settings
from quicedge.http.message import Field, Fields
from quicedge.http.upgrade import accept_value
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.tls import CertificateStore
from quicedge.telemetry.access import AccessRecord
from quicedge.udp.socket import UdpSocket, open_socket
from quicedge.worker.edge import Edge
from tests.support.certs import make_certificate
from tests.support.client_info import StubClient
from tests.support.h3client import H3Client, h3_client

TIMEOUT = 15.0
SECRET = bytes(32)
VERSION: Field = (b"sec-websocket-version", b"13")

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def ws_frame(opcode: int, payload: bytes = b"", *, mask: bytes = b"", final: bool = True) -> bytes:
    """One frame; masked as clients must if a mask is given."""
    size = len(payload)
    flag = 0x80 if mask else 0
    head = bytes([(0x80 if final else 0) | opcode])
    if size < 126:
        head += bytes([flag | size])
    elif size < 65536:
        head += bytes([flag | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([flag | 127]) + size.to_bytes(8, "big")
    return head + mask + (masked(payload, mask) if mask else payload)


def masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    value = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return value.to_bytes(size, "big")


def close_payload(code: int) -> bytes:
    return struct.pack("!H", code)


class Frames:
    """Parses the frames of a byte stream."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        self._data += data
        found = []
        while (frame := self._next()) is not None:
            found.append(frame)
        return found

    def _next(self) -> tuple[int, bytes] | None:
        data = self._data
        if len(data) < 2:
            return None
        size, at = data[1] & 0x7F, 2
        if size > 125:
            width = 2 if size == 126 else 8
            if len(data) < 2 + width:
                return None
            size, at = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
        mask = b""
        if data[1] & 0x80:
            mask, at = data[at : at + 4], at + 4
        if len(data) < at + size:
            return None
        payload = data[at : at + size]
        self._data = data[at + size :]
        return data[0] & 0xF, masked(payload, mask) if mask else payload


class End(Protocol):
    """One end of a tunnel, as bytes."""

    async def read(self) -> bytes:
        """Some bytes; empty once the other side has ended, None-like errors if it was lost."""

    async def write(self, data: bytes) -> None: ...

    async def end(self) -> None:
        """End our half."""

    def abort(self) -> None:
        """Vanish."""


class Lost(Exception):
    """The tunnel did not end, but break."""


# --- origins ------------------------------------------------------------------------------------


class OriginEnd(End, Protocol):
    path: str
    fields: dict[bytes, bytes]

    async def accept(self, *fields: Field) -> None: ...

    async def answer(self, status: int, body: bytes = b"") -> None: ...


Behaviour = Callable[[Any], Awaitable[None]]


class _StreamEnd:
    """An end on a TCP connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def read(self) -> bytes:
        try:
            return await self.reader.read(65536)
        except ConnectionError as error:
            raise Lost from error

    async def write(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError as error:
            raise Lost from error

    async def end(self) -> None:
        self.writer.write_eof()

    def abort(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class H1OriginEnd(_StreamEnd):
    path = ""

    async def start(self) -> None:
        head = await self.reader.readuntil(b"\r\n\r\n")
        line, *lines = head[:-4].split(b"\r\n")
        method, path, _ = line.split(b" ")
        assert method == b"GET", head
        self.path = path.decode()
        pairs = (line.split(b": ", 1) for line in lines)
        self.fields = {name.lower(): value for name, value in pairs}

    async def accept(self, *fields: Field) -> None:
        assert self.fields[b"connection"] == b"upgrade"
        assert self.fields[b"upgrade"] == b"websocket"
        lines = [
            b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + accept_value(self.fields[b"sec-websocket-key"]),
            *(name + b": " + value for name, value in fields),
        ]  # fmt: skip
        await self.write(b"\r\n".join(lines) + b"\r\n\r\n")

    async def answer(self, status: int, body: bytes = b"") -> None:
        await self.write(
            b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body
        )


class _H2End:
    """An end on an HTTP/2 stream, the only one of its connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool
    ) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection(
            H2Configuration(
                client_side=client, header_encoding=None, validate_outbound_headers=False,
                validate_inbound_headers=False,
            )
        )  # fmt: skip
        self.stream_id = 0
        self.head: Fields = []
        self.ready = asyncio.Event()
        """The head of the other side came."""
        self.settings_seen = asyncio.Event()
        self.changed = asyncio.Event()
        self.received = b""
        self.ended = False
        self.lost = False
        self.credits = True
        """Return credit as bytes are read."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while data := await self.reader.read(65536):
                for event in self.h2.receive_data(data):
                    self._handle(event)
                self.flush()
        except ConnectionError:
            pass
        if not self.ended:
            self.lost = True
        self.ready.set()
        self.changed.set()

    def _handle(self, event: Any) -> None:
        if isinstance(event, RequestReceived | ResponseReceived):
            self.stream_id = event.stream_id or 0
            self.head = [(bytes(name), bytes(value)) for name, value in event.headers or ()]
            self.ready.set()
        elif isinstance(event, DataReceived):
            self.received += event.data or b""
        elif isinstance(event, StreamEnded):
            self.ended = True
        elif isinstance(event, StreamReset):
            self.lost = True
            self.ready.set()
        elif isinstance(event, RemoteSettingsChanged):
            self.settings_seen.set()
        if isinstance(event, DataReceived | StreamEnded | StreamReset | WindowUpdated):
            self.changed.set()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def read(self) -> bytes:
        while not self.received:
            if self.lost:
                raise Lost
            if self.ended:
                return b""
            self.changed.clear()
            await self.changed.wait()
        data, self.received = self.received, b""
        if self.credits and not self.ended:
            self.h2.acknowledge_received_data(len(data), self.stream_id)
            self.flush()
        return data

    async def write(self, data: bytes) -> None:
        while data:
            if self.lost:
                raise Lost
            room = min(
                self.h2.local_flow_control_window(self.stream_id), self.h2.max_outbound_frame_size
            )
            if room > 0:
                self.h2.send_data(self.stream_id, data[:room])
                data = data[room:]
                self.flush()
                await self.writer.drain()
            else:
                self.changed.clear()
                await self.changed.wait()

    async def end(self) -> None:
        self.h2.end_stream(self.stream_id)
        self.flush()

    def abort(self) -> None:
        self.h2.reset_stream(self.stream_id, 8)
        self.flush()

    def close(self) -> None:
        self._task.cancel()
        self.writer.close()


class H2OriginEnd(_H2End):
    path = ""

    async def start(self) -> None:
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        self.flush()
        await self.ready.wait()
        self.fields = dict(self.head)
        if self.fields:
            self.path = self.fields[b":path"].decode()

    async def accept(self, *fields: Field) -> None:
        assert self.fields[b":method"] == b"CONNECT"
        assert self.fields[b":protocol"] == b"websocket"
        assert b"sec-websocket-key" not in self.fields
        self.h2.send_headers(self.stream_id, [(b":status", b"200"), *fields])
        self.flush()

    async def answer(self, status: int, body: bytes = b"") -> None:
        self.h2.send_headers(self.stream_id, [(b":status", b"%d" % status)], end_stream=not body)
        if body:
            self.h2.send_data(self.stream_id, body, end_stream=True)
        self.flush()


ORIGINS: dict[str, type[H1OriginEnd] | type[H2OriginEnd]] = {
    "http/1.1": H1OriginEnd,
    "h2": H2OriginEnd,
}


@asynccontextmanager
async def tunnel_origin(version: str, behaviour: Behaviour) -> AsyncIterator[str]:
    """The URL of an origin that runs `behaviour` for every connection."""
    tasks: set[asyncio.Task[None]] = set()
    failed: list[BaseException] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        end: Any = (
            H1OriginEnd(reader, writer)
            if version == "http/1.1"
            else H2OriginEnd(reader, writer, client=False)
        )
        try:
            await end.start()
            if end.path:
                await behaviour(end)
                if isinstance(end, H2OriginEnd):
                    await asyncio.sleep(3600)  # the connection is the edge's to close
        except (Lost, asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as error:
            failed.append(error)
        finally:
            if isinstance(end, H2OriginEnd):
                end.close()
            else:
                writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if failed:
        raise failed[0]


# --- the edge -----------------------------------------------------------------------------------


class TunnelEdge:
    """An edge on loopback, and its ports by protocol."""

    def __init__(self, edge: Edge, ports: dict[str, int], records: list[AccessRecord]) -> None:
        self.edge = edge
        self.ports = ports
        self.records = records
        """The access log."""

    async def record(self) -> AccessRecord:
        """The access record of the only exchange."""
        await self.until(lambda: bool(self.records))
        (record,) = self.records
        return record

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                await asyncio.sleep(0.01)

    @property
    def tunnels(self) -> int:
        """Tunnels now, as counted by the metrics."""
        return sum(route.tunnels for route in self.edge.gateway.metrics.routes.values())


class _Accepting(asyncio.Protocol):
    """Hands an accepted connection to its session, as the worker does after TLS."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        session = self._make(transport)
        transport.set_protocol(session)
        session.start()


class _Connection:
    """What sessions need of a TCP connection."""

    bytes_sent = bytes_received = 0

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def undelivered(self) -> int:
        return int(self.transport.get_write_buffer_size())


@asynccontextmanager
async def tunnel_edge(
    url: str, version: str, *, route: dict[str, Any] | None = None, **upstream: Any
) -> AsyncIterator[TunnelEdge]:
    """An edge before one origin."""
    loop = asyncio.get_running_loop()
    sock = UdpSocket(open_socket(socket.AF_INET, "127.0.0.1", 0))
    config = msgspec.convert(
        {
            "listen": [f"127.0.0.1:{sock.address[1]}"],
            "upstreams": {"app": {"servers": [url], "protocol": version, **upstream}},
            "routes": [{"upstream": "app", **(route or {})}],
        },
        Config,
    )
    records: list[AccessRecord] = []
    edge = Edge(
        config,
        [sock],
        certificates=CertificateStore([make_certificate("localhost")]),
        connection_ids=ConnectionIdIssuer(secret=SECRET),
        secret=SECRET,
        access_log=SimpleNamespace(log=records.append, dropped=0),  # type: ignore[arg-type]
    )
    sessions: set[Any] = set()
    host: Any = SimpleNamespace(
        loop=loop,
        heads=HeadReader(edge.gateway.message_limits),
        h2_settings=H2Settings(extended_connect=True),
        session_ended=sessions.discard,
    )

    def http1(transport: Any) -> Any:
        client = StubClient(http_version=b"1.1")
        session = Http1Session(_Connection(transport), client, edge.gateway, host, b"localhost")
        sessions.add(session)
        return session

    def http2(transport: Any) -> Any:
        client = StubClient(http_version=b"2")
        session = Http2Session(_Connection(transport), client, edge.gateway, host)
        sessions.add(session)
        return session

    servers = {
        "http/1.1": await loop.create_server(lambda: _Accepting(http1), "127.0.0.1", 0),
        "h2": await loop.create_server(lambda: _Accepting(http2), "127.0.0.1", 0),
    }
    ports = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
    running = TunnelEdge(edge, {**ports, "h3": sock.address[1]}, records)
    try:
        yield running
    finally:
        for session in list(sessions):
            session.close(0x100, "the test is over")
        for server in servers.values():
            server.close()
        await edge.close()
        sock.close()


# --- clients ------------------------------------------------------------------------------------


class ClientEnd(End, Protocol):
    status: int
    fields: dict[bytes, bytes]
    body: bytes
    """Of a refusal."""


class H1ClientEnd(_StreamEnd):
    status = 0
    body = b""

    async def start(self, path: str, fields: Sequence[Field]) -> None:
        key = base64.b64encode(os.urandom(16))
        lines = [
            b"GET %b HTTP/1.1" % path.encode(), b"Host: localhost", b"Connection: Upgrade",
            b"Upgrade: websocket", b"Sec-WebSocket-Key: " + key,
            *(name + b": " + value for name, value in (VERSION, *fields)),
        ]  # fmt: skip
        await self.write(b"\r\n".join(lines) + b"\r\n\r\n")
        head = await self.reader.readuntil(b"\r\n\r\n")
        line, *rest = head[:-4].split(b"\r\n")
        self.status = int(line.split(b" ")[1])
        self.fields = {k.lower(): v for k, v in (item.split(b": ", 1) for item in rest)}
        if self.status == 101:
            assert self.fields[b"upgrade"] == b"websocket"
            assert self.fields[b"connection"] == b"upgrade"
            assert self.fields[b"sec-websocket-accept"] == accept_value(key)
        else:
            self.body = await self._content()

    async def _content(self) -> bytes:
        if b"content-length" in self.fields:
            return await self.reader.readexactly(int(self.fields[b"content-length"]))
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()
        return body


class H2ClientEnd(_H2End):
    status = 0
    body = b""

    async def start(self, path: str, fields: Sequence[Field]) -> None:
        self.h2.initiate_connection()
        self.flush()
        await self.settings_seen.wait()
        assert self.h2.remote_settings.enable_connect_protocol == 1
        self.stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(self.stream_id, _extended_connect(path, fields))
        self.flush()
        await self.ready.wait()
        self.fields = dict(self.head)
        self.status = int(self.fields.get(b":status", b"0"))
        _check_opening(self.status, self.fields)
        if self.status != 200:
            try:
                while data := await self.read():
                    self.body += data
            except Lost:
                pass


class H3ClientEnd:
    """An RFC 9220 client on stock aioquic."""

    def __init__(self, client: H3Client) -> None:
        self.client = client
        self.stream_id = 0
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self._taken = 0

    @property
    def _answer(self) -> Any:
        return self.client.answers[self.stream_id]

    @property
    def body(self) -> bytes:
        return bytes(self._answer.body)

    async def start(self, path: str, fields: Sequence[Field]) -> None:
        client = self.client
        await client.until(lambda: client.h3.received_settings is not None)
        assert (client.h3.received_settings or {}).get(8) == 1
        self.stream_id = client.quic.get_next_available_stream_id()
        client.answers[self.stream_id] = _new_answer()
        client.h3.send_headers(self.stream_id, _extended_connect(path, fields))
        client.transmit()
        await client.until(
            lambda: self._answer.status is not None or self._answer.reset is not None
        )
        self.status, self.fields = self._answer.status or 0, dict(self._answer.fields)
        _check_opening(self.status, self.fields)
        if self.status != 200:
            await client.until(self._answer.over.is_set)

    async def read(self) -> bytes:
        answer = self._answer
        await self.client.until(
            lambda: (
                len(answer.body) > self._taken
                or answer.over.is_set()
                or self.client.closed is not None
            )
        )
        data = bytes(answer.body[self._taken :])
        self._taken += len(data)
        if not data and (answer.reset is not None or self.client.closed is not None):
            raise Lost
        return data

    async def write(self, data: bytes) -> None:
        for at in range(0, len(data), 65536):
            self.client.send(self.stream_id, data[at : at + 65536])
            await asyncio.sleep(0)

    async def end(self) -> None:
        self.client.send_fin(self.stream_id)

    def abort(self) -> None:
        self.client.cancel(self.stream_id)


def _new_answer() -> Any:
    from tests.support.h3client import Answer

    return Answer()


def _extended_connect(path: str, fields: Sequence[Field]) -> Fields:
    return [
        (b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"https"),
        (b":authority", b"localhost"), (b":path", path.encode()), VERSION, *fields,
    ]  # fmt: skip


def _check_opening(status: int, fields: dict[bytes, bytes]) -> None:
    """RFC 8441 section 5: no accept, no Upgrade, no Connection; RFC 9110: no content-length."""
    if status == 200:
        unwanted = (b"sec-websocket-accept", b"upgrade", b"connection", b"content-length")
        assert not any(name in fields for name in unwanted), fields


@asynccontextmanager
async def tunnel_client(
    edge: TunnelEdge, version: str, path: str = "/echo", *fields: Field
) -> AsyncIterator[Any]:
    """A client that has asked for a tunnel and got an answer."""
    port = edge.ports[version]
    async with asyncio.timeout(60):
        if version == "h3":
            async with h3_client(port) as client:
                end: Any = H3ClientEnd(client)
                await end.start(path, fields)
                yield end
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            if version == "h2":
                end = H2ClientEnd(reader, writer, client=True)
            else:
                end = H1ClientEnd(reader, writer)
            await end.start(path, fields)
            yield end
        finally:
            if isinstance(end, H2ClientEnd):
                end.close()
            writer.close()
