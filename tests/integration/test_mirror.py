"""Mirrored requests on whole edges: nothing of them reaches clients, and differences are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.edge import RunningEdge, edge
from tests.support.h3client import h3_client

Answer = Callable[[str, bytes], Awaitable[tuple[int, str, bytes]]]


class Origin:
    """An HTTP/1.1 origin that records requests: method, target and body."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.url = ""
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, target, _ = head.decode("latin-1").split(" ", 2)
                fields = dict(
                    line.lower().split(": ", 1)
                    for line in head.decode("latin-1").split("\r\n")[1:-2]
                )
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                self.requests.append((method, target, body))
                status, more, content = await self._answer(target, body)
                writer.write(
                    f"HTTP/1.1 {status} X\r\n{more}content-length: {len(content)}\r\n\r\n".encode()
                )
                writer.write(content)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def origin(answer: Answer) -> AsyncIterator[Origin]:
    found = Origin(answer)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()


async def plain(target: str, body: bytes) -> tuple[int, str, bytes]:
    return 200, "content-type: text/plain\r\n", b"answer to " + target.encode() + body


def configured(shadow: Origin, mirror: str = "") -> str:
    return (
        f'[upstreams.shadow]\nservers = ["{shadow.url}"]\nretries = 0\n'
        f'[[filters]]\nmirror = {{ upstream = "shadow"{mirror} }}\n'
    )


async def results(running: RunningEdge, expected: int) -> dict[str, int]:
    """The results that are not zero, once there are so many."""
    async with asyncio.timeout(15):
        while True:
            found = await asyncio.to_thread(running.admin, "/api/v1/mirrors")
            counts = found.get("shadow", {"results": {}})["results"]
            if sum(counts.values()) >= expected:
                return {name: count for name, count in counts.items() if count}
            await asyncio.sleep(0.02)


async def test_copies_are_sent_and_compared_and_clients_see_nothing(tmp_path: Path) -> None:
    async def other(target: str, body: bytes) -> tuple[int, str, bytes]:
        status, fields, content = await plain(target, body)
        if target == "/status":
            return 500, fields, content
        if target == "/headers":
            return status, "content-type: text/html\r\ncache-control: no-store\r\n", content
        if target == "/size":
            return status, fields, content + b"!"
        return status, fields + "date: Thu, 01 Jan 1970 00:00:00 GMT\r\nserver: new\r\n", content

    async with origin(plain) as real, origin(other) as shadow:
        with edge(tmp_path, real.url, configured(shadow)) as running:
            async with h3_client(running.port) as client:
                for path in ("/same", "/status", "/headers", "/size"):
                    answer = await client.ask(b"GET", path.encode())
                    assert (answer.status, bytes(answer.body)) == (
                        200,
                        f"answer to {path}".encode(),
                    )
                assert (await client.ask(b"POST", b"/post", [], b"x")).status == 200
                assert await results(running, 4) == {
                    "same": 1, "status": 1, "headers": 1, "size": 1,
                }  # fmt: skip
            assert [item[1] for item in shadow.requests] == [
                "/same",
                "/status",
                "/headers",
                "/size",
            ]
            log = running.log()
            assert "mirrored response differs" in log
            assert '"headers": ["cache-control", "content-type"]' in log


async def test_bodies_are_copied_for_methods_that_are_named(tmp_path: Path) -> None:
    async with origin(plain) as real, origin(plain) as shadow:
        extra = configured(shadow, ', methods = ["POST"], max_body = "100 KB"')
        with edge(tmp_path, real.url, extra) as running:
            async with h3_client(running.port) as client:
                body = bytes(range(256)) * 200
                length = [(b"content-length", b"%d" % len(body))]
                await client.ask(b"POST", b"/a", length, body)
                assert await results(running, 1) == {"same": 1}
                assert shadow.requests == [("POST", "/a", body)]
                long = [(b"content-length", b"200000")]
                answer = await client.ask(b"POST", b"/long", long, bytes(200_000))
                assert answer.status == 200
                assert await results(running, 2) == {"same": 1, "skipped": 1}


async def test_an_upstream_that_hangs_costs_its_copies_alone(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def hang(target: str, body: bytes) -> tuple[int, str, bytes]:
        await release.wait()
        return await plain(target, body)

    async with origin(plain) as real, origin(hang) as shadow:
        extra = configured(shadow, ", max_running = 5")
        with edge(tmp_path, real.url, extra) as running:
            async with h3_client(running.port) as client:
                answers = [await client.ask(b"GET", b"/%d" % number) for number in range(20)]
                assert all(answer.status == 200 for answer in answers)
                assert await results(running, 15) == {"skipped": 15}
                release.set()
                assert await results(running, 20) == {"skipped": 15, "same": 5}


async def test_an_upstream_that_is_down_is_counted(tmp_path: Path) -> None:
    async with origin(plain) as down:
        pass  # nobody listens there any more
    async with origin(plain) as real:
        with edge(tmp_path, real.url, configured(down)) as running:
            async with h3_client(running.port) as client:
                assert (await client.ask(b"GET", b"/")).status == 200
                assert await results(running, 1) == {"failed": 1}


async def test_a_share_of_the_requests_is_copied(tmp_path: Path) -> None:
    async with origin(plain) as real, origin(plain) as shadow:
        with edge(tmp_path, real.url, configured(shadow, ", share = 0.5")) as running:
            async with h3_client(running.port) as client:
                for number in range(100):
                    await client.ask(b"GET", b"/%d" % number)
                # Seven standard deviations on either side.
                assert 15 < len(shadow.requests) < 85
