"""Tunnels to origins: the handshake of each protocol, the pool, and what goes wrong."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from h2.events import DataReceived, RequestReceived, StreamEnded

from quicedge.config.limits import UPSTREAM_KEEPALIVE_IDLE
from quicedge.http.message import Field, Request, Response
from quicedge.http.upgrade import accept_value
from quicedge.upstream.connect import Connector
from quicedge.upstream.group import Upstream
from tests.support.certs import write_certificate
from tests.support.origins import (
    H2Peer,
    Recorder,
    eventually,
    fetch,
    h2_says,
    origin,
    read_head,
    request,
    says,
    upstream,
)

ENABLE_CONNECT_PROTOCOL = 8
KEY: Field = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


class Opened(Recorder):
    """A `TunnelHandler` that keeps what it is told."""

    def established(self, response: Response) -> None:
        self.head = response
        self._happened("established")


def tunnel(*fields: Field) -> Request:
    return Request(
        b"CONNECT", b"https", b"example.com", b"/chat", list(fields), protocol=b"websocket"
    )


def open_tunnel(group: Upstream, *fields: Field) -> tuple[object, Opened]:
    handler = Opened()
    return group.open(tunnel(*fields), handler), handler


def key_of(head: bytes) -> bytes:
    return next(
        line.split(b": ")[1]
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    )


def switch(head: bytes) -> bytes:
    return SWITCH + b"Sec-WebSocket-Accept: " + accept_value(key_of(head)) + b"\r\n\r\n"


async def test_the_head_on_the_wire_and_bytes_behind_the_answer() -> None:
    heads: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        writer.write(switch(heads[0]) + b"first")
        writer.write(await reader.readexactly(4))
        await reader.read()

    async with origin(script) as server, upstream(server) as group:
        stream, handler = open_tunnel(group, (b"origin", b"https://a"), (b"te", b"trailers"))
        stream.write(b"held")  # type: ignore[attr-defined]
        await handler.until(lambda: bytes(handler.body) == b"firstheld")
        assert handler.events == ["established", "data"]
        assert handler.head is not None
        assert (handler.head.status, handler.head.fields) == (200, [])
        stream.abort()  # type: ignore[attr-defined]
    (head,) = heads
    assert head.startswith(
        b"GET /chat HTTP/1.1\r\nhost: example.com\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"origin: https://a\r\nsec-websocket-key: "
    )
    assert b"te:" not in head
    assert b"transfer-encoding" not in head


async def test_the_clients_key_and_the_origins_accept_pass() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert key_of(head) == KEY[1]
        writer.write(SWITCH + b"Sec-WebSocket-Accept: for the client to check\r\n\r\n")
        await reader.read()

    async with origin(script) as server, upstream(server) as group:
        stream, handler = open_tunnel(group, KEY)
        await handler.until(lambda: bool(handler.events))
        assert handler.head is not None
        assert handler.head.fields == [(b"sec-websocket-accept", b"for the client to check")]
        stream.abort()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (SWITCH + b"Sec-WebSocket-Accept: wrong\r\n\r\n", "protocol"),
        (SWITCH + b"\r\n", "protocol"),
        (b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "protocol"),
        (b"HTTP/1.1 101 X\r\n\r\n", "protocol"),
        (b"", "reset"),
    ],
)
async def test_a_faulty_answer_fails_the_request(answer: bytes, kind: str) -> None:
    async with origin(says(answer, keep=bool(answer))) as server, upstream(server) as group:
        _, handler = open_tunnel(group)
        await handler.over()
        assert handler.kind == kind


async def test_a_switch_that_nobody_asked_for_is_refused() -> None:
    async with origin(says(SWITCH + b"\r\n")) as server, upstream(server) as group:
        answer = await fetch(group, request())
        assert answer.kind == "protocol"


async def test_a_refusal_leaves_the_connection_to_the_pool_and_a_tunnel_does_not() -> None:
    answers = [b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", b"", b""]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            answer = answers.pop(0) if b"upgrade" in head else b""
            if b"upgrade" in head:
                writer.write(answer or switch(head))
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async with origin(script) as server, upstream(server, max_connections=1) as group:
        _, refused = open_tunnel(group)
        await refused.over()
        assert (refused.status, bytes(refused.body)) == (403, b"no")
        stream, opened = open_tunnel(group)
        await opened.until(lambda: "established" in opened.events)
        assert server.connections == 1, "the refused request's connection was used again"
        answer = await fetch(group, request())
        assert (answer.status, server.connections) == (200, 2)
        (stats,) = group.stats().values()
        assert (stats["open"], stats["active"]) == (2, 1)
        stream.abort()  # type: ignore[attr-defined]


async def test_a_connection_that_was_just_closed_is_no_reason_to_fail() -> None:
    """Idle connections end at any time: the handshake is a GET, and nothing of the tunnel sent."""
    used = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal used
        used += 1
        head = await read_head(reader)
        if used == 1:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await read_head(reader)
            return  # it had been closing
        writer.write(switch(head))
        await reader.read()

    async with origin(script) as server, upstream(server) as group:
        await fetch(group, request())
        stream, handler = open_tunnel(group)
        await handler.until(lambda: bool(handler.events))
        assert handler.events == ["established"]
        stream.abort()  # type: ignore[attr-defined]


async def test_extended_connect_waits_for_the_settings_that_allow_it() -> None:
    heads: list[list[Field]] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        preface = await reader.readexactly(24)  # the edge could send its request now
        await asyncio.sleep(0.05)
        peer = H2Peer(reader, writer, **{f"s{ENABLE_CONNECT_PROTOCOL}": 1})
        peer.codec.receive_data(preface)
        event = await peer.wait(RequestReceived)
        heads.append([(bytes(n), bytes(v)) for n, v in event.headers or ()])
        stream_id = event.stream_id or 0
        peer.codec.send_headers(stream_id, [(b":status", b"200"), (b"content-length", b"0")])
        data = await peer.wait(DataReceived)
        peer.codec.send_data(stream_id, data.data or b"")
        await peer.wait(StreamEnded)
        peer.codec.send_data(stream_id, b"bye", end_stream=True)
        await peer.flush()
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        stream, handler = open_tunnel(group, KEY, (b"sec-websocket-version", b"13"))
        await handler.until(lambda: "established" in handler.events)
        assert handler.head is not None
        assert handler.head.fields == []
        stream.write(b"hello")  # type: ignore[attr-defined]
        await handler.until(lambda: bytes(handler.body) == b"hello")
        stream.end()  # type: ignore[attr-defined]
        await handler.over()
        assert bytes(handler.body) == b"hellobye"
        (stats,) = group.stats().values()
        assert (stats["open"], stats["active"]) == (1, 0)
    assert heads == [
        [
            (b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"),
            (b":authority", b"example.com"), (b":path", b"/chat"),
            (b"sec-websocket-version", b"13"),
        ]
    ]  # fmt: skip


async def test_an_http2_origin_without_extended_connect_is_named() -> None:
    async with origin(h2_says()) as server, upstream(server, protocol="h2") as group:
        _, handler = open_tunnel(group)
        await handler.over()
        assert handler.kind == "no_tunnel"
        assert handler.error is not None
        assert "RFC 8441" in handler.error.detail
        assert handler.error.kind.status == 501
        assert (await fetch(group, request())).status == 200, "the connection is fine"


async def test_an_http2_connection_half_full_of_tunnels_takes_no_more_requests() -> None:
    """Otherwise tunnels, which last, would use up the connections of all requests."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        settings = {f"s{ENABLE_CONNECT_PROTOCOL}": 1, "s3": 4}
        peer = H2Peer(reader, writer, **settings)
        while True:
            event = await peer.wait(RequestReceived)
            stream_id = event.stream_id or 0
            if dict(event.headers or ())[b":method"] == b"CONNECT":
                peer.codec.send_headers(stream_id, [(b":status", b"200")])
                await peer.flush()
            else:
                await peer.respond(stream_id, b"ok")

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        streams = []
        for _ in range(40):
            stream, handler = open_tunnel(group)
            await handler.until(lambda handler=handler: bool(handler.events))  # type: ignore[misc]
            assert handler.events == ["established"]
            streams.append(stream)
        assert server.connections == 20, "more than a pool of requests may have"
        answer = await fetch(group, request())
        assert (answer.status, server.connections) == (200, 21)
        for stream in streams:
            stream.abort()  # type: ignore[attr-defined]
        await eventually(lambda: next(iter(group.stats().values()))["open"] == 1)


async def test_tunnels_of_origins_with_both_versions_use_http1(tmp_path: Path) -> None:
    """Most HTTP/2 origins offer no extended CONNECT: what ALPN has chosen for requests is not
    asked for tunnels."""
    cert, key = write_certificate(tmp_path, "localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    tls.set_alpn_protocols(["h2", "http/1.1"])

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ssl_object: ssl.SSLObject = writer.get_extra_info("ssl_object")
        if ssl_object.selected_alpn_protocol() == "h2":
            await h2_says()(reader, writer)
        writer.write(switch(await read_head(reader)))
        writer.write(await reader.readexactly(4))
        await reader.read()

    async with origin(script, tls=tls) as server, upstream(server, tls_verify=False) as group:
        assert (await fetch(group, request())).status == 200
        stream, handler = open_tunnel(group)
        stream.write(b"ping")  # type: ignore[attr-defined]
        await handler.until(lambda: bytes(handler.body) == b"ping")
        assert server.connections == 2
        (stats,) = group.stats().values()
        assert (stats["open"], stats["active"], stats["requests"]) == (2, 1, 2)
        stream.abort()  # type: ignore[attr-defined]


async def test_a_tls_origin_learns_soon_that_its_client_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS cannot be half-closed: the origin gets some time, then the end of the connection."""
    monkeypatch.setattr("quicedge.upstream.h1_tunnel.TUNNEL_CLOSE_TIMEOUT", 0.1)
    cert, key = write_certificate(tmp_path, "localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    told = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(switch(await read_head(reader)))
        assert await reader.readexactly(3) == b"bye"
        writer.write(b"bye to you")
        assert await reader.read() == b""
        told.set()

    async with origin(script, tls=tls) as server, upstream(server, tls_verify=False) as group:
        stream, handler = open_tunnel(group)
        await handler.until(lambda: bool(handler.events))
        stream.write(b"bye")  # type: ignore[attr-defined]
        stream.end()  # type: ignore[attr-defined]
        await asyncio.wait_for(told.wait(), 10)
        await handler.over()
        assert handler.events == ["established", "data", "end"]
        assert bytes(handler.body) == b"bye to you"


async def test_the_kernel_probes_silent_connections() -> None:
    """An origin that has lost its power says nothing, and a tunnel may be silent for an hour."""
    async with origin(says(SWITCH + b"\r\n")) as server, upstream(server) as group:
        seen: list[int] = []

        def made(http2: bool) -> asyncio.Protocol:
            return Probe(seen)

        connector = Connector(group.servers[0].address, group.config, None)
        await connector.connect(made)
        assert seen == [1, UPSTREAM_KEEPALIVE_IDLE]


class Probe(asyncio.Protocol):
    def __init__(self, seen: list[int]) -> None:
        self._seen = seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sock = transport.get_extra_info("socket")
        self._seen += (
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        )
        transport.close()
