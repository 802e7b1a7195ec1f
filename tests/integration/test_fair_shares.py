"""Clients that take nothing leave others what they need: whole edges, attackers, honest twins.

Attackers come from 127.0.0.1, honest clients from ::1: another address of another network.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from tests.support.edge import RunningEdge, edge
from tests.support.h3client import H3Client, h3_client
from tests.support.origin import demo_origin

HONEST = "::1"


async def honest_requests(running: RunningEdge, count: int = 10) -> list[int | None]:
    """Statuses of small requests from an honest client."""
    async with h3_client(running.port, HONEST) as client:
        return [(await client.ask(b"GET", b"/echo")).status for _ in range(count)]


async def attackers(stack: AsyncExitStack, running: RunningEdge, count: int) -> list[H3Client]:
    """Clients that grant no stream data."""
    return [
        await stack.enter_async_context(h3_client(running.port, max_stream_data=0))
        for _ in range(count)
    ]


def status(running: RunningEdge) -> dict[str, int]:
    worker = running.admin("/api/v1/status")["workers"][0]
    counts: dict[str, int] = worker["stats"]["requests_refused"]
    return counts


async def servers(running: RunningEdge) -> dict[str, int]:
    stats = await asyncio.to_thread(running.admin, "/api/v1/status")
    (figures,) = stats["workers"][0]["stats"]["servers"]["app"].values()
    found: dict[str, int] = figures
    return found


async def eventually(running: RunningEdge, active: int) -> None:
    async with asyncio.timeout(15):
        while (await servers(running))["active"] != active:
            await asyncio.sleep(0.05)


async def test_readers_that_take_nothing_leave_origin_connections_to_others(
    tmp_path: Path,
) -> None:
    with (
        demo_origin() as origin,
        edge(tmp_path, origin, upstream_extra="max_connections = 9") as running,
    ):
        async with AsyncExitStack() as stack:
            for client in await attackers(stack, running, 3):
                for _ in range(100):
                    client.open(b"GET", b"/download?size=1MB")
            await eventually(running, 6)
            assert await honest_requests(running) == [200] * 10


async def test_bodies_that_never_come_leave_origin_connections_to_others(tmp_path: Path) -> None:
    with (
        demo_origin() as origin,
        edge(tmp_path, origin, upstream_extra="max_connections = 9") as running,
    ):
        async with AsyncExitStack() as stack:
            for client in await attackers(stack, running, 2):
                for _ in range(100):
                    stream_id = client.open(
                        b"POST", b"/upload", [(b"content-length", b"1000000")], end=False
                    )
                    client.send(stream_id, b"x")
            await eventually(running, 6)
            assert await honest_requests(running) == [200] * 10


@asynccontextmanager
async def origin_that_reads_no_uploads() -> AsyncIterator[str]:
    """Answers GET, and never reads what comes with POST."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"
        over.set()


async def test_uploads_that_an_origin_does_not_read_leave_it_to_others(tmp_path: Path) -> None:
    async with origin_that_reads_no_uploads() as origin:
        with edge(tmp_path, origin, upstream_extra="max_connections = 9") as running:
            async with AsyncExitStack() as stack:
                for _ in range(2):
                    client = await stack.enter_async_context(h3_client(running.port))
                    for _ in range(128):
                        client.send(client.open(b"POST", b"/upload", end=False), bytes(8_000))
                await eventually(running, 6)
                assert await honest_requests(running) == [200] * 10
            await eventually(running, 0)


async def test_readers_that_take_nothing_leave_open_files_to_others(tmp_path: Path) -> None:
    root = tmp_path / "www"
    root.mkdir()
    (root / "large").write_bytes(bytes(2_000_000))
    (root / "echo").write_bytes(b"small")
    extra = f"""
[upstreams.www]
root = "{root}"

[[routes]]
host = "*"
path = "/"
upstream = "www"
"""
    with edge(tmp_path, "http://127.0.0.1:9", extra=extra, hosts="unused.example") as running:
        async with AsyncExitStack() as stack:
            for client in await attackers(stack, running, 5):
                for _ in range(128):
                    client.open(b"GET", b"/large")
            assert await honest_requests(running) == [200] * 10


async def test_unread_responses_take_a_share_of_the_memory_and_are_cut(tmp_path: Path) -> None:
    """Responses that lie whole in our buffer are somebody's: they count, and they end."""
    extra = '[limits]\nresponse_memory = "12MB"'
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        assert await honest_requests(running) == [200] * 10
        before = resident_of(running)
        async with AsyncExitStack() as stack:
            clients = await attackers(stack, running, 5)
            for client in clients:
                for _ in range(128):
                    client.open(b"GET", b"/download?size=240KB")
            for _ in range(5):
                assert await honest_requests(running) == [200] * 10
            assert resident_of(running) - before < 48 * 1024 * 1024
            async with asyncio.timeout(30):
                while not any(a.reset for c in clients for a in c.answers.values()):
                    for client in clients:
                        client.quic.send_ping(1)
                        client.transmit()
                    await asyncio.sleep(0.2)
            assert status(running)["stalled"] > 0
            assert await honest_requests(running) == [200] * 10


def resident_of(running: RunningEdge) -> int:
    pages = Path(f"/proc/{running.worker_pid()}/statm").read_text().split()[1]
    return int(pages) * 4096


async def test_a_client_with_many_slow_responses_gets_them_all(tmp_path: Path) -> None:
    """The honest twin: a hundred images over one connection, each larger than its window."""
    extra = '[limits]\nresponse_memory = "4MB"'
    with (
        demo_origin() as origin,
        edge(tmp_path, origin, extra=extra, upstream_extra="max_connections = 9") as running,
    ):
        async with h3_client(running.port, max_stream_data=16_384) as client:
            streams = [client.open(b"GET", b"/download?size=200KB") for _ in range(100)]
            answers = [await client.answer(stream_id) for stream_id in streams]
            assert [(a.status, len(a.body)) for a in answers] == [(200, 200_000)] * 100
