"""Loads of many connections, by stock aioquic clients: requests, handshakes, idle connections.

Usage: loader.py MODE PORT N [N ...], and every answer is checked; prints a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import uvloop
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, QuicEvent, StreamReset

from bench import answers

SIZE = 100
EXPECTED = answers.body(SIZE)
HANDSHAKES_AT_ONCE = 8


class Client(QuicConnectionProtocol):
    """HTTP/3 requests, one future each."""

    _http: H3Connection | None = None
    broken: str | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self._http = H3Connection(self._quic)
            self._waiting: dict[int, tuple[asyncio.Future[None], list[bytes], int]] = {}
        elif isinstance(event, ConnectionTerminated | StreamReset):
            self.broken = repr(event)
            for future, *_ in getattr(self, "_waiting", {}).values():
                if not future.done():
                    future.set_exception(RuntimeError(self.broken))
        if self._http is not None:
            for item in self._http.handle_event(event):
                self._handle(item)

    def _handle(self, item: H3Event) -> None:
        if not isinstance(item, HeadersReceived | DataReceived):
            return
        entry = self._waiting.get(item.stream_id)
        if entry is None:
            return
        future, pieces, size = entry
        if isinstance(item, HeadersReceived):
            status = dict(item.headers).get(b":status")
            if status != b"200" and not future.done():
                future.set_exception(RuntimeError(f"status {status!r}"))
        else:
            pieces.append(item.data)
        if item.stream_ended and not future.done():
            del self._waiting[item.stream_id]
            if b"".join(pieces) == (EXPECTED if size == SIZE else answers.body(size)):
                future.set_result(None)
            else:
                future.set_exception(RuntimeError("wrong content"))

    def request(self, size: int = SIZE) -> asyncio.Future[None]:
        assert self._http is not None
        if self.broken is not None:
            raise RuntimeError(self.broken)
        stream_id = self._quic.get_next_available_stream_id()
        future = self._loop.create_future()
        self._waiting[stream_id] = future, [], size
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"),
                  (b":path", b"/download?size=%d" % size), (b"user-agent", b"bench")]  # fmt: skip
        self._http.send_headers(stream_id, fields, end_stream=True)
        self.transmit()
        return future


def connection(port: int) -> Any:
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, server_name="localhost",
        max_datagram_size=1452, idle_timeout=120,
    )  # fmt: skip
    return connect("127.0.0.1", port, configuration=configuration, create_protocol=Client)


async def requests(port: int, connections: int, streams: int, total: int) -> dict[str, float]:
    """`total` requests over `connections`, `streams` at a time on each."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connection(port)) for _ in range(connections)]
        latencies: list[float] = []

        async def worker(client: Client, count: int) -> None:
            for _ in range(count):
                started = time.perf_counter()
                await asyncio.wait_for(client.request(), 30)
                latencies.append(time.perf_counter() - started)

        share = total // (connections * streams)
        started = time.perf_counter()
        await asyncio.gather(*(worker(c, share) for c in clients for _ in range(streams)))
        seconds = time.perf_counter() - started
    latencies.sort()
    return {"done": len(latencies), "seconds": seconds, "p50": latencies[len(latencies) // 2],
            "p99": latencies[len(latencies) * 99 // 100]}  # fmt: skip


async def handshakes(port: int, total: int) -> dict[str, float]:
    """`total` full handshakes, several concurrently, without requests."""
    limit = asyncio.Semaphore(HANDSHAKES_AT_ONCE)

    async def one() -> None:
        async with limit, connection(port):
            pass

    await asyncio.gather(*(one() for _ in range(total)))
    return {"done": total}


async def idle(port: int, total: int) -> dict[str, float]:
    """Open `total` connections, report it, and hold them until standard input ends."""
    async with AsyncExitStack() as stack:
        for _ in range(total):
            await stack.enter_async_context(connection(port))
        print(json.dumps({"done": total}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    return {}


if __name__ == "__main__":
    mode = {"requests": requests, "handshakes": handshakes, "idle": idle}[sys.argv[1]]
    print(json.dumps(uvloop.run(mode(*map(int, sys.argv[2:])))))
