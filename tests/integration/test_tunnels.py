"""WebSockets: every HTTP version of clients with every one of origins, by one specification."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from quicedge.config import limits
from quicedge.proxy import tunnel as tunnel_module
from quicedge.telemetry.outcomes import Outcome
from tests.support.tunnels import (
    BINARY,
    CLOSE,
    ORIGINS,
    PING,
    PONG,
    TEXT,
    Frames,
    Lost,
    TunnelEdge,
    close_payload,
    tunnel_client,
    tunnel_edge,
    tunnel_origin,
    ws_frame,
)

MASK = b"\x11\x92\x83\x74"
CLIENTS = ("http/1.1", "h2", "h3")
PAIRS = list(itertools.product(CLIENTS, ORIGINS))
every_pair = pytest.mark.parametrize(("client", "origin"), PAIRS)


async def settled(value: Callable[[], int]) -> int:
    """The value once it has stayed the same for a whole second, above zero."""
    still = 0
    async with asyncio.timeout(30):
        while still < 20:
            before = value()
            await asyncio.sleep(0.05)
            still = still + 1 if value() == before and before else 0
    return before


async def echo(end: Any) -> None:
    """A WebSocket server: echoes messages frame by frame, answers PING, closes as RFC 6455 asks."""
    if end.path != "/echo":
        await end.answer(404, b"no such socket")
        return
    chosen = [
        (name, end.fields[name].split(b",")[0])
        for name in (b"sec-websocket-protocol", b"sec-websocket-extensions")
        if name in end.fields
    ]
    await end.accept(*chosen)
    frames = Frames()
    while data := await end.read():
        for opcode, payload in frames.feed(data):
            if opcode == CLOSE:
                await end.write(ws_frame(CLOSE, payload))
                await end.end()
                return
            await end.write(ws_frame(PONG if opcode == PING else opcode, payload))


class Peer:
    """A client end, by frames."""

    def __init__(self, end: Any) -> None:
        self.end = end
        self._frames = Frames()
        self._got: list[tuple[int, bytes]] = []
        self.is_over = False

    async def send(self, opcode: int, payload: bytes = b"", *, final: bool = True) -> None:
        await self.end.write(ws_frame(opcode, payload, mask=MASK, final=final))

    async def frame(self) -> tuple[int, bytes]:
        while not self._got:
            data = await self.end.read()
            assert data, "the tunnel ended"
            self._got += self._frames.feed(data)
        return self._got.pop(0)

    async def over(self) -> bool:
        """Whether the tunnel ends, and not with a loss."""
        try:
            return not self._got and await self.end.read() == b""
        except Lost:
            return False


@every_pair
async def test_messages_pings_and_the_closing_handshake(client: str, origin: str) -> None:
    async with (
        tunnel_origin(origin, echo) as url,
        tunnel_edge(url, origin) as edge,
        tunnel_client(edge, client) as end,
    ):
        assert end.status == (101 if client == "http/1.1" else 200)
        peer = Peer(end)
        for opcode, payload in ((TEXT, b"hello"), (BINARY, bytes(range(256))), (TEXT, b"")):
            await peer.send(opcode, payload)
            assert await peer.frame() == (opcode, payload)
        await peer.send(PING, b"are you there")
        assert await peer.frame() == (PONG, b"are you there")
        assert edge.tunnels == 1
        await peer.send(CLOSE, close_payload(4001))
        assert await peer.frame() == (CLOSE, close_payload(4001))
        assert await peer.over()
        await end.end()
        record = await edge.record()
        assert (record.outcome, record.status) == (Outcome.COMPLETE, end.status)
        assert record.method == ("GET" if client == "http/1.1" else "CONNECT"), "as it was sent"
        assert record.tunnel == {
            "protocol": "websocket", "client_close_code": 4001, "origin_close_code": 4001,
            "ended_first": "origin",
        }  # fmt: skip
        assert record.bytes_received > 256
        assert record.bytes_sent > 256
        assert edge.tunnels == 0


@every_pair
async def test_a_large_message_in_fragments(client: str, origin: str) -> None:
    piece = hashlib.sha256(b"seed").digest() * 2048  # 64 KB
    count = 16
    async with (
        tunnel_origin(origin, echo) as url,
        tunnel_edge(url, origin) as edge,
        tunnel_client(edge, client) as end,
    ):
        peer = Peer(end)

        async def send() -> None:
            for index in range(count):
                await peer.send(0 if index else BINARY, piece, final=index == count - 1)

        sending = asyncio.create_task(send())
        got = [await peer.frame() for _ in range(count)]
        await sending
        assert all(payload == piece for _, payload in got)


@every_pair
async def test_subprotocols_and_extensions_pass_and_the_origin_chooses(
    client: str, origin: str
) -> None:
    fields = (
        (b"sec-websocket-protocol", b"chat.v2, chat"),
        (b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits"),
        (b"origin", b"https://app.example"),
    )
    async with (
        tunnel_origin(origin, echo) as url,
        tunnel_edge(url, origin) as edge,
        tunnel_client(edge, client, "/echo", *fields) as end,
    ):
        assert end.fields[b"sec-websocket-protocol"] == b"chat.v2"
        extension = b"permessage-deflate; client_max_window_bits"
        assert end.fields[b"sec-websocket-extensions"] == extension
        # A compressed message (RSV1) is passed as it is.
        compressed = bytes([0xC1, 0x85]) + MASK + b"\x01\x02\x03\x04\x05"
        await end.write(compressed)
        _, payload = await Peer(end).frame()
        assert len(payload) == 5


@every_pair
async def test_a_refusal_of_the_origin_is_an_ordinary_response(client: str, origin: str) -> None:
    async with (
        tunnel_origin(origin, echo) as url,
        tunnel_edge(url, origin) as edge,
        tunnel_client(edge, client, "/nothing") as end,
    ):
        assert (end.status, end.body) == (404, b"no such socket")
        record = await edge.record()
        assert (record.outcome, record.tunnel) == (Outcome.COMPLETE, None)
        assert edge.tunnels == 0


@every_pair
async def test_a_client_that_vanishes_ends_the_origins_half(client: str, origin: str) -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def watch(end: Any) -> None:
        await end.accept()
        try:
            while await end.read():
                pass
            told.set_result("ended")
        except Lost:
            told.set_result("lost")

    async with tunnel_origin(origin, watch) as url, tunnel_edge(url, origin) as edge:
        async with tunnel_client(edge, client) as end:
            await Peer(end).send(TEXT, b"x")
            end.abort()
            await asyncio.wait_for(told, 10)
            record = await edge.record()
        assert record.outcome in (Outcome.CLIENT_GONE, Outcome.CLIENT_ABORTED)


@every_pair
async def test_an_origin_that_vanishes_breaks_the_clients_tunnel(client: str, origin: str) -> None:
    async def vanish(end: Any) -> None:
        await end.accept()
        await end.read()
        end.abort()

    async with (
        tunnel_origin(origin, vanish) as url,
        tunnel_edge(url, origin) as edge,
        tunnel_client(edge, client) as end,
    ):
        peer = Peer(end)
        await peer.send(TEXT, b"x")
        # Without TLS, HTTP/1.1 cannot tell the one from the other but by the missing Close frame.
        assert await peer.over() is (client == "http/1.1")
        record = await edge.record()
        assert record.outcome is Outcome.ORIGIN_RESET
        assert record.status == end.status


@every_pair
async def test_a_client_that_ends_its_half_still_gets_what_follows(
    client: str, origin: str
) -> None:
    async def late(end: Any) -> None:
        await end.accept()
        got = b""
        while data := await end.read():
            got += data
        await end.write(b"all of " + got)
        await end.end()

    async with (
        tunnel_origin(origin, late) as url,
        tunnel_edge(url, origin) as edge,
        tunnel_client(edge, client) as end,
    ):
        await end.write(b"my words")
        await end.end()
        got = b""
        while data := await end.read():
            got += data
        assert got == b"all of my words"
        record = await edge.record()
        assert record.outcome is Outcome.COMPLETE
        assert record.tunnel is not None
        assert record.tunnel["ended_first"] == "client"


@every_pair
async def test_an_origin_that_ends_its_half_still_gets_what_follows(
    client: str, origin: str
) -> None:
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def early(end: Any) -> None:
        await end.accept()
        await end.write(b"that is all")
        await end.end()
        heard = b""
        while data := await end.read():
            heard += data
        got.set_result(heard)

    async with (
        tunnel_origin(origin, early) as url,
        tunnel_edge(url, origin) as edge,
        tunnel_client(edge, client) as end,
    ):
        said = b""
        while data := await end.read():
            said += data
        assert said == b"that is all"
        await end.write(b"not yet")
        await end.end()
        assert await asyncio.wait_for(got, 10) == b"not yet"
        record = await edge.record()
        assert record.outcome is Outcome.COMPLETE
        assert record.tunnel is not None
        assert record.tunnel["ended_first"] == "origin"


@every_pair
async def test_a_client_that_does_not_read_holds_the_origin_back(client: str, origin: str) -> None:
    written = 0

    async def flood(end: Any) -> None:
        nonlocal written
        await end.accept()
        while written < 64 << 20:
            await end.write(bytes(65536))
            written += 65536

    async with (
        tunnel_origin(origin, flood) as url,
        tunnel_edge(url, origin) as edge,
        tunnel_client(edge, client) as end,
    ):
        if client == "h3":
            end.client.grant_no_more()
        elif client == "h2":
            end.credits = False
        else:
            end.writer.transport.pause_reading()
        assert await settled(lambda: written) < 24 << 20, "more than buffers hold"


@every_pair
async def test_an_origin_that_does_not_read_holds_the_client_back(client: str, origin: str) -> None:
    async def deaf(end: Any) -> None:
        await end.accept()
        if origin == "h2":
            end.credits = False
        else:
            end.writer.transport.pause_reading()
        await asyncio.sleep(3600)

    async with (
        tunnel_origin(origin, deaf) as url,
        tunnel_edge(url, origin) as edge,
        tunnel_client(edge, client) as end,
    ):
        sent = 0

        async def send() -> None:
            nonlocal sent
            while sent < 64 << 20:
                await end.write(bytes(65536))
                sent += 65536

        if client == "h3":
            # Stock aioquic buffers without limit: what the edge credits is what counts.
            await end.write(bytes(16 << 20))
            (session,) = edge.edge.sessions
            (stream,) = session.streams.values()
            assert stream.exchange is not None
            exchange = stream.exchange
            assert 0 < await settled(lambda: exchange.bytes_received) < 16 << 20
            return
        sending = asyncio.create_task(send())
        most = await settled(lambda: sent)
        sending.cancel()
        assert most < 24 << 20


async def test_tunnels_without_traffic_are_closed_with_1001() -> None:
    async def converse(edge: TunnelEdge, client: str) -> None:
        async with tunnel_client(edge, client) as end:
            peer = Peer(end)
            for _ in range(4):  # pings keep it open
                await peer.send(PING)
                assert await peer.frame() == (PONG, b"")
                await asyncio.sleep(0.9)
            assert await peer.frame() == (CLOSE, close_payload(1001))
            await peer.send(CLOSE, close_payload(1001))
            assert await peer.over()
            await end.end()

    async with (
        tunnel_origin("http/1.1", echo) as url,
        tunnel_edge(url, "http/1.1", route={"tunnel_idle_timeout": 2}) as edge,
    ):
        await asyncio.gather(*(converse(edge, client) for client in CLIENTS))
        await edge.until(lambda: len(edge.records) == 3)
        for record in edge.records:
            assert record.outcome is Outcome.TUNNEL_IDLE
            assert record.tunnel == {
                "protocol": "websocket", "client_close_code": 1001, "origin_close_code": 1001,
                "ended_first": "edge",
            }  # fmt: skip


@every_pair
async def test_a_drain_closes_with_1001_between_two_frames(client: str, origin: str) -> None:
    halfway, proceed = asyncio.Event(), asyncio.Event()

    async def slow(end: Any) -> None:
        await end.accept()
        frame = ws_frame(TEXT, b"x" * 1000)
        await end.write(frame[:500])
        halfway.set()
        await proceed.wait()
        await end.write(frame[500:] + ws_frame(TEXT, b"must not follow a Close frame"))
        while await end.read():
            pass
        await end.end()

    async with (
        tunnel_origin(origin, slow) as url,
        tunnel_edge(url, origin) as edge,
        tunnel_client(edge, client) as end,
    ):
        peer = Peer(end)
        await halfway.wait()
        edge.edge.gateway.tunnels.drain(4, edge.edge.gateway.now())
        proceed.set()
        assert await peer.frame() == (TEXT, b"x" * 1000)
        assert await peer.frame() == (CLOSE, close_payload(1001))
        await peer.send(CLOSE, close_payload(1001))
        await end.end()
        record = await edge.record()
        assert record.outcome is Outcome.TUNNEL_DRAINED


async def test_a_client_that_ignores_the_close_has_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tunnel_module, "TUNNEL_CLOSE_TIMEOUT", 0.5)
    async with (
        tunnel_origin("http/1.1", echo) as url,
        tunnel_edge(url, "http/1.1") as edge,
        tunnel_client(edge, "h3") as end,
    ):
        edge.edge.gateway.tunnels.drain(4, edge.edge.gateway.now())
        peer = Peer(end)
        assert await peer.frame() == (CLOSE, close_payload(1001))
        assert await peer.over()
        assert (await edge.record()).outcome is Outcome.TUNNEL_DRAINED


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_route_without_upgrades_serves_no_tunnel(client: str) -> None:
    async def plain(end: Any) -> None:
        assert b"upgrade" not in end.fields
        await end.answer(200, b"a page")

    async with (
        tunnel_origin("http/1.1", plain) as url,
        tunnel_edge(url, "http/1.1", route={"upgrade": []}) as edge,
        tunnel_client(edge, client) as end,
    ):
        # RFC 9110 section 7.8: an HTTP/1.1 server may ignore Upgrade.
        assert end.status == (200 if client == "http/1.1" else 501)


@pytest.mark.parametrize("client", CLIENTS)
async def test_an_origin_that_answers_200_has_not_opened_a_tunnel(client: str) -> None:
    async def ignores_upgrade(end: Any) -> None:
        await end.answer(200, b"a page")

    async with (
        tunnel_origin("http/1.1", ignores_upgrade) as url,
        tunnel_edge(url, "http/1.1") as edge,
        tunnel_client(edge, client) as end,
    ):
        assert end.status == (200 if client == "http/1.1" else 501)
        expected = Outcome.COMPLETE if client == "http/1.1" else Outcome.ORIGIN_NO_TUNNEL
        assert (await edge.record()).outcome is expected


async def test_tunnels_of_a_route_are_limited_and_shared() -> None:
    async with (
        tunnel_origin("http/1.1", echo) as url,
        tunnel_edge(url, "http/1.1", route={"max_tunnels": 3}) as edge,
        tunnel_client(edge, "h2") as one,
        tunnel_client(edge, "h2") as two,
    ):
        assert (one.status, two.status) == (200, 200)
        async with tunnel_client(edge, "h2") as three:
            assert three.status == 503, "one address gets two thirds"
            assert three.fields[b"retry-after"]
        async with tunnel_client(edge, "h3") as other:
            assert other.status == 200, "another address gets the rest"


async def test_tunnels_are_beside_the_connections_for_requests() -> None:
    """Many more tunnels than connections for requests, which are still there for requests."""
    async with (
        tunnel_origin("http/1.1", echo) as url,
        tunnel_edge(url, "http/1.1", max_connections=2) as edge,
        AsyncExitStack() as stack,
    ):
        for _ in range(8):
            end = await stack.enter_async_context(tunnel_client(edge, "h2"))
            assert end.status == 200
        await edge.until(lambda: edge.tunnels == 8)
        end = await stack.enter_async_context(tunnel_client(edge, "h3", "/nothing"))
        assert end.status == 404


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_chatty_tunnel_meets_no_limit(client: str) -> None:
    """Twenty thousand messages, a thousand at a time."""
    async with (
        tunnel_origin("http/1.1", echo) as url,
        tunnel_edge(url, "http/1.1") as edge,
        tunnel_client(edge, client) as end,
    ):
        peer = Peer(end)
        batch = b"".join(ws_frame(TEXT, b"tick", mask=MASK) for _ in range(1000))
        for _ in range(20):
            await end.write(batch)
            for _ in range(1000):
                assert await peer.frame() == (TEXT, b"tick")
        await peer.send(CLOSE, close_payload(1000))
        assert await peer.frame() == (CLOSE, close_payload(1000))


def test_the_closing_handshake_takes_less_than_the_drain() -> None:
    assert limits.TUNNEL_CLOSE_TIMEOUT < limits.DRAIN_TIMEOUT / 2


async def test_bytes_behind_a_refused_upgrade_are_the_next_request() -> None:
    """Whoever believes in a tunnel that the origin has refused lets requests be smuggled."""
    paths: list[str] = []

    async def refuse(end: Any) -> None:
        while True:
            paths.append(end.path)
            await end.answer(404, b"no such socket")
            await end.start()

    async with (
        tunnel_origin("http/1.1", refuse) as url,
        tunnel_edge(url, "http/1.1", route={"path": "/open"}) as edge,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.ports["http/1.1"])
        writer.write(
            b"GET /open HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            b"GET /secret HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        async with asyncio.timeout(10):
            got = await reader.read()
        writer.close()
        assert got.count(b"HTTP/1.1 404") == 2
        assert paths == ["/open"], "the other has no route"
        assert [record.path for record in edge.records] == ["/open", "/secret"]


async def test_bytes_that_come_before_the_101_belong_to_the_tunnel() -> None:
    async with tunnel_origin("http/1.1", echo) as url, tunnel_edge(url, "http/1.1") as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.ports["http/1.1"])
        writer.write(
            b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            + ws_frame(TEXT, b"eager", mask=MASK)
        )
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            assert await reader.readexactly(7) == ws_frame(TEXT, b"eager")
        writer.close()


@pytest.mark.parametrize("key", [b"", b"Sec-WebSocket-Key: short\r\n"])
async def test_a_malformed_opening_handshake_is_answered_400(key: bytes) -> None:
    async with tunnel_origin("http/1.1", echo) as url, tunnel_edge(url, "http/1.1") as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.ports["http/1.1"])
        writer.write(
            b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            + key
            + b"\r\n"
        )
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_a_field_section_in_an_http2_tunnel_resets_the_stream() -> None:
    async with (
        tunnel_origin("h2", echo) as url,
        tunnel_edge(url, "h2") as edge,
        tunnel_client(edge, "h2") as end,
    ):
        end.h2.send_headers(end.stream_id, [(b"a", b"b")], end_stream=True)
        end.flush()
        assert not await Peer(end).over()


async def test_a_field_section_in_an_http3_tunnel_ends_the_connection() -> None:
    async with (
        tunnel_origin("http/1.1", echo) as url,
        tunnel_edge(url, "http/1.1") as edge,
        tunnel_client(edge, "h3") as end,
    ):
        end.client.h3.send_headers(end.stream_id, [(b"a", b"b")])
        end.client.transmit()
        await end.client.until(lambda: end.client.closed is not None)
        assert end.client.closed.error_code == 0x105
