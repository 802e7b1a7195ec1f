"""Hedged requests and circuit breakers on whole edges, over every protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from tests.support.edge import RunningEdge, edge
from tests.support.matrix.clients import CLIENTS, exchange
from tests.support.matrix.spec import Arrivals, Case, Got
from tests.support.origins import eventually


class Pair:
    """Two servers of one upstream; the first of them to be asked hangs as long as it may."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.requests: list[tuple[int, bytes]] = []
        """Server and method."""
        self.hanging = 0
        self.cancelled = asyncio.Event()
        """The request that hung was cancelled by the edge."""
        self.hangs = True
        self.answer_late = asyncio.Event()

    def start(self) -> None:
        """Forget what has been; the next request hangs."""
        self.hanging = 0
        self.hangs = True
        self.requests.clear()
        self.cancelled.clear()
        self.answer_late.clear()

    async def serve(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method = head.split(b" ", 1)[0]
                if method == b"POST":
                    await reader.readexactly(5)
                self.requests.append((number, method))
                if self.hangs and not self.hanging:
                    self.hanging += 1
                    await self._hang(reader)
                body = b"" if method == b"HEAD" else b"ok"
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _hang(self, reader: asyncio.StreamReader) -> None:
        """Until it may answer, or the edge closes the connection."""
        late = asyncio.create_task(self.answer_late.wait())
        closed = asyncio.create_task(reader.read(1))
        done, _ = await asyncio.wait((late, closed), return_when=asyncio.FIRST_COMPLETED)
        late.cancel()
        if closed in done:
            self.cancelled.set()
            raise ConnectionError
        closed.cancel()
        await asyncio.gather(closed, return_exceptions=True)


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    found = Pair()
    async with AsyncExitStack() as stack:
        for number in range(2):

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int = number
            ) -> None:
                await found.serve(number, reader, writer)

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            stack.callback(server.close)
            found.urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        yield found


async def ask(version: str, port: int, case: Case, path: bytes = b"/") -> Got:
    return await exchange(version, port, case, path, Arrivals())


async def test_a_request_that_hangs_is_answered_by_the_other_server_over_every_protocol(
    tmp_path: Path,
) -> None:
    async with pair() as servers:
        settings = f'servers = {json.dumps(servers.urls)}\nhedge = {{ after = "50ms" }}\n'
        with edge(tmp_path, "", upstream_extra=settings) as running:
            for version in CLIENTS:
                await hangs_and_is_answered(servers, running, version)
                await waits_with_content(servers, running, version)
            records = running.access()
            won = [record["hedge"] for record in records].count("won")
            sample = f'quicedge_upstream_hedges_total{{result="won",upstream="app"}} {won}.0'
            assert sample in running.metrics()
            upstreams = await asyncio.to_thread(running.admin, "/api/v1/upstreams")
            assert upstreams["app"]["hedges"]["won"] == won
            assert len(upstreams["app"]["servers"]) == 2


async def hangs_and_is_answered(servers: Pair, running: RunningEdge, version: str) -> None:
    logged = len(running.access())
    for method in (b"GET", b"HEAD"):
        servers.start()
        got = await ask(version, running.port, Case("hedged", method=method))
        assert (got.status, got.complete) == (200, True)
        assert bytes(got.body) == (b"ok" if method == b"GET" else b"")
        await asyncio.wait_for(servers.cancelled.wait(), 10)
        assert {number for number, _ in servers.requests} == {0, 1}
    await eventually(lambda: len(running.access()) == logged + 2)
    assert [record["hedge"] for record in running.access()[logged:]] == ["won", "won"]


async def waits_with_content(servers: Pair, running: RunningEdge, version: str) -> None:
    """What may change something waits for its own server, however long that takes."""
    logged = len(running.access())
    servers.start()
    post = asyncio.create_task(
        ask(version, running.port, Case("post", method=b"POST", body=(b"hello",)))
    )
    await eventually(lambda: servers.hanging == 1)
    servers.hangs = False
    assert (await ask(version, running.port, Case("other"))).status == 200
    await asyncio.sleep(0.2)  # four times as long as hedging waits
    assert [method for _, method in servers.requests].count(b"POST") == 1
    servers.answer_late.set()
    assert (await post).status == 200
    await eventually(lambda: len(running.access()) == logged + 2)
    (record,) = (item for item in running.access()[logged:] if item["method"] == "POST")
    assert record["hedge"] is None


async def test_an_open_circuit_answers_at_once_and_says_when_to_come_back_over_every_protocol(
    tmp_path: Path,
) -> None:
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        with suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                asked += 1
                writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    names = {version: f"up{index}" for index, version in enumerate(CLIENTS)}
    routes = "".join(
        f'[upstreams.{name}]\nservers = ["{url}"]\n'
        'circuit_breaker = { min_requests = 4, open_for = "1h" }\n'
        f'[[routes]]\npath = "/{name}"\nupstream = "{name}"\n'
        for name in names.values()
    )
    with edge(tmp_path, url, routes) as running:
        for version, name in names.items():
            asked = 0
            for number in range(6):
                got = await ask(version, running.port, Case("failing"), f"/{name}".encode())
                assert got.status == 503
                waits = [int(value) for value in got.values(b"retry-after")]
                assert not waits if number < 4 else 3500 < waits[0] <= 3600
            assert asked == 4
        await eventually(lambda: len(running.access()) == 18)
        upstreams = await asyncio.to_thread(running.admin, "/api/v1/upstreams")
        for name in names.values():
            outcomes = [item["outcome"] for item in running.access() if item["upstream"] == name]
            assert outcomes == ["complete"] * 4 + ["origin_circuit_open"] * 2
            assert upstreams[name]["circuits"] == {"open": 1}
            assert upstreams[name]["errors"] == {"circuit_open": 2}
            labels = f'state="open",upstream="{name}",worker="0"'
            assert f"quicedge_upstream_circuit{{{labels}}} 1.0" in running.metrics()
        assert running.log().count("circuit open: requests fail") == 3
    server.close()
