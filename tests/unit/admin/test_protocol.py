"""Whoever reaches the admin port, with or without a token, holds little of it and not for long."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from quicedge.admin import protocol
from quicedge.admin.server import AdminServer
from quicedge.config.limits import ADMIN_MAX_CONCURRENCY, ADMIN_MAX_EVENT_STREAMS, ADMIN_MAX_REQUEST
from quicedge.config.schema import Admin
from quicedge.telemetry.stats import ConnectionStats
from tests.unit.admin.test_admin import ROWS, Client, FakeEdge

HEAD = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n"
EVENTS = HEAD.replace(b"healthz", b"api/v1/connections/00ff/events?interval=0.1") + b"\r\n"
TIMEOUT = 20.0


@pytest.fixture
async def server() -> AsyncIterator[AdminServer]:
    server = AdminServer(Admin(listen="127.0.0.1:0"), FakeEdge())
    server.start()
    yield server
    await server.close()


async def connect(server: AdminServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = server.address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Wait until the server closes, whatever it still says."""
    async with asyncio.timeout(TIMEOUT):
        try:
            await reader.read()
        except ConnectionError:
            pass
    return True


async def status(server: AdminServer) -> int:
    answer = await Client(server, FakeEdge()).get("/api/v1/status")
    return int(answer[0])


async def endless(writer: asyncio.StreamWriter, start: bytes, piece: bytes) -> int:
    """Send without end; the bytes after which the server had enough."""
    sent = 0
    writer.write(start)
    try:
        while sent < 64 * ADMIN_MAX_REQUEST:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
    except ConnectionError:
        pass
    return sent


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD, b"x: y\r\n" * 1000),
        (b"GET /", b"a" * 6000),
        (HEAD.replace(b"GET", b"POST") + b"content-length: 1000000000\r\n\r\n", b" " * 6000),
    ],
    ids=["fields", "path", "content"],
)
async def test_requests_without_end_are_cut_off(
    server: AdminServer, start: bytes, piece: bytes
) -> None:
    reader, writer = await connect(server)
    taken = 0
    feed = protocol.HttpToolsProtocol.data_received

    def count(self: protocol.HttpToolsProtocol, data: bytes) -> None:
        nonlocal taken
        taken += len(data)
        feed(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol.HttpToolsProtocol, "data_received", count)
        await endless(writer, start, piece)
        assert await is_closed(reader)
    assert taken <= ADMIN_MAX_REQUEST
    assert await status(server) == 200


async def test_content_that_is_too_long_is_refused_in_words(server: AdminServer) -> None:
    post = HEAD.replace(b"GET /healthz", b"POST /api/v1/config")
    reader, writer = await connect(server)
    writer.write(
        post + b"content-type: application/toml\r\nexpect: 100-continue\r\n"
        b"content-length: %d\r\n\r\n" % (ADMIN_MAX_REQUEST + 1)
    )
    async with asyncio.timeout(TIMEOUT):
        assert await reader.readline() == b"HTTP/1.1 413 Request Entity Too Large\r\n"
        assert b"which `quicedge reload` reads" in await reader.readuntil(b"}")
    writer.close()


async def test_a_length_with_thousands_of_zeros_is_its_number(
    server: AdminServer, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await connect(server)
    writer.write(HEAD + b"content-length: %b\r\n\r\n" % (b"0" * 5000))
    async with asyncio.timeout(TIMEOUT):
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.close()
    assert caplog.records == []


async def test_clients_that_leave_during_a_request_are_no_errors(
    server: AdminServer, caplog: pytest.LogCaptureFixture
) -> None:
    post = HEAD.replace(b"GET /healthz", b"POST /api/v1/log-level")
    reader, writer = await connect(server)
    writer.write(
        post + b"content-type: application/json\r\nexpect: 100-continue\r\n"
        b"content-length: 100\r\n\r\n"
    )
    async with asyncio.timeout(TIMEOUT):
        assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    writer.close()
    assert await is_closed(reader)
    assert await status(server) == 200
    assert caplog.records == []


async def test_connections_that_ask_nothing_keep_nobody_out(server: AdminServer) -> None:
    silent = [await connect(server) for _ in range(2 * ADMIN_MAX_CONCURRENCY)]
    for _, writer in silent[::2]:
        writer.write(HEAD + b"x: ")
    assert await status(server) == 200
    for reader, _ in silent[:ADMIN_MAX_CONCURRENCY]:
        assert await is_closed(reader)


async def test_a_request_that_trickles_is_cut_off(
    server: AdminServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "ADMIN_REQUEST_TIMEOUT", 0.3)
    reader, writer = await connect(server)
    closed = asyncio.create_task(is_closed(reader))
    writer.write(HEAD)
    while not closed.done():
        writer.write(b"x: y\r\n")
        await asyncio.sleep(0.05)
    assert await closed


async def test_a_second_request_that_trickles_is_cut_off(
    server: AdminServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "ADMIN_REQUEST_TIMEOUT", 0.3)
    reader, writer = await connect(server)
    writer.write(HEAD + b"\r\n")
    assert await reader.readuntil(b"ok\n")
    closed = asyncio.create_task(is_closed(reader))
    writer.write(HEAD)
    while not closed.done():
        writer.write(b"x: y\r\n")
        await asyncio.sleep(0.05)
    assert await closed


class TalkativeEdge(FakeEdge):
    """Its events soon fill what the kernel buffers."""

    async def connection(self, connection_id: str) -> ConnectionStats | None:
        return structs.replace(ROWS[0], sni="x" * 4_000_000)


async def events_status(server: AdminServer) -> tuple[int, asyncio.StreamWriter]:
    reader, writer = await connect(server)
    writer.write(EVENTS)
    status = int((await reader.readline()).split()[1])
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    return status, writer


async def test_event_streams_that_nobody_reads_give_their_places_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "ADMIN_SEND_TIMEOUT", 0.3)
    server = AdminServer(Admin(listen="127.0.0.1:0"), TalkativeEdge())
    server.start()
    unread = [(await events_status(server))[1] for _ in range(ADMIN_MAX_EVENT_STREAMS)]
    async with asyncio.timeout(TIMEOUT):
        while (await events_status(server))[0] == 503:
            await asyncio.sleep(0.1)
    for writer in unread:
        writer.close()
    await server.close()


async def test_event_streams_that_are_read_go_on(
    server: AdminServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The honest twin: dashboards that stay open, one that asks again now and then."""
    for name in ("ADMIN_SEND_TIMEOUT", "ADMIN_REQUEST_TIMEOUT"):
        monkeypatch.setattr(protocol, name, 0.3)
    streams = [await connect(server) for _ in range(ADMIN_MAX_EVENT_STREAMS)]
    for _, writer in streams:
        writer.write(EVENTS)
    reader, writer = await connect(server)
    for _ in range(8):
        writer.write(HEAD + b"\r\n")
        assert b" 200 " in await reader.readline()
        assert await reader.readuntil(b"ok\n")
        for stream, _ in streams:
            assert await stream.readuntil(b"event: stats\n")
    for _, each in [*streams, (reader, writer)]:
        each.close()
