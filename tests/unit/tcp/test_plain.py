"""Connections without TLS that come through a load balancer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from quicedge.config.host_port import HostPort
from quicedge.shares.connections import AdmissionReason, ConnectionRules, Connections
from quicedge.shares.prefixes import AccessList, Networks
from quicedge.tcp.listener import Listener
from quicedge.tcp.plain import PlainArrivals
from quicedge.tcp.sockets import open_listening_socket

HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.2 1234 80\r\n"
CLIENT = socket.inet_aton("192.0.2.7")


class Echo(asyncio.Protocol):
    def __init__(self, client: HostPort, lost: Callable[[], None]) -> None:
        self._client = client
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data.replace(b"name?", self._client.host.encode()))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


class Front:
    """A listener behind a balancer on loopback, whose time is moved by hand."""

    def __init__(self, **rules: Any) -> None:
        self.now = 100.0
        self.connections = Connections(ConnectionRules(**rules))
        loop = asyncio.get_running_loop()
        self.arrivals = PlainArrivals(
            self.connections, Echo, header_timeout=10.0, loop=loop, clock=lambda: self.now
        )
        self.sock = open_listening_socket(socket.AF_INET, "127.0.0.1", 0)
        self.listener = Listener(self.sock, None, loop, self.arrivals.accept, lambda: self.now)
        self.listener.proxies = Networks(["127.0.0.1/32"])
        self._writers: list[asyncio.StreamWriter] = []

    async def dial(self, *pieces: bytes) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection(*self.sock.getsockname())
        self._writers.append(writer)
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        return reader

    def close(self) -> None:
        self.listener.close()
        self.sock.close()
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def front(**rules: Any) -> AsyncIterator[Front]:
    one = Front(**rules)
    try:
        yield one
    finally:
        one.close()
        await until(lambda: not one.connections)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def is_reset(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(20):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


async def test_the_client_that_the_balancer_names_is_counted_and_served() -> None:
    async with front(max_connections_per_address=1) as one:
        reader = await one.dial(HEADER[:20], HEADER[20:] + b"hello, ", b"name?")
        assert await reader.readexactly(16) == b"hello, 192.0.2.7"
        assert one.connections.crowded(CLIENT) is AdmissionReason.ADDRESS_CONNECTIONS
        assert await is_reset(await one.dial(HEADER + b"again"))
        assert one.arrivals.counters["refused_address_connections"] == 1


async def test_a_balancer_that_speaks_for_itself_is_its_own_client() -> None:
    async with front() as one:
        reader = await one.dial(b"PROXY UNKNOWN\r\nhello")
        assert await reader.readexactly(5) == b"hello"


async def test_denied_clients_strangers_and_bad_headers_are_reset() -> None:
    async with front(access=AccessList(deny=["192.0.2.0/24"])) as one:
        assert await is_reset(await one.dial(HEADER + b"GET / HTTP/1.1\r\n"))
        assert await is_reset(await one.dial(b"GET / HTTP/1.1\r\n"))
        one.listener.proxies = Networks(["198.51.100.0/24"])
        assert await is_reset(await one.dial(HEADER))
        counters = one.arrivals.counters
        assert counters["refused_denied"] == 1
        assert counters["failed_proxy_header"] == 1
        assert counters["refused_untrusted_proxy"] == 1


async def test_a_header_that_does_not_end_is_cut_off_in_time() -> None:
    async with front() as one:
        reader = await one.dial(HEADER[:10])
        await until(lambda: one.connections.open)
        served = await one.dial(HEADER + b"hello")
        assert await served.readexactly(5) == b"hello"
        one.now += 11
        one.arrivals.check(one.now)
        assert await is_reset(reader)
        assert one.arrivals.counters["failed_timeout"] == 1
        await until(lambda: one.connections.open == 1)
