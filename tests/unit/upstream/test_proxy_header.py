"""The PROXY header towards origins: what it says, and that it is true of all that follows it."""

from __future__ import annotations

import asyncio

import pytest

from quicedge.config.host_port import HostPort
from quicedge.config.schema import ProxyVersion
from quicedge.tcp.proxy_protocol import ProxyHeader, read_header
from quicedge.upstream.group import Upstream
from quicedge.upstream.proxy_header import proxy_header
from tests.support.client_info import StubClient
from tests.support.origins import Recorder, Script, eventually, origin, read_head, request, upstream

BOTH = pytest.mark.parametrize("version", list(ProxyVersion))


def told(version: ProxyVersion, client: StubClient | None) -> ProxyHeader:
    data = proxy_header(version, client)
    header = read_header(data)
    assert header is not None
    assert header.size == len(data)
    return header


@BOTH
def test_the_header_names_client_and_listening_address(version: ProxyVersion) -> None:
    header = told(version, StubClient())
    assert header.source == HostPort("192.0.2.1", 50000)
    assert header.destination == HostPort("198.51.100.1", 443)


@BOTH
def test_ipv6_clients_are_named_without_their_zone(version: ProxyVersion) -> None:
    client = StubClient(address=("fe80::7%eth0", 5000), local_address=("2001:db8::1", 443))
    header = told(version, client)
    assert header.source == HostPort("fe80::7", 5000)
    assert header.destination == HostPort("2001:db8::1", 443)


@BOTH
def test_both_addresses_are_of_the_family_of_the_client(version: ProxyVersion) -> None:
    mapped = StubClient(address=("::ffff:192.0.2.1", 5000), local_address=("::", 443))
    header = told(version, mapped)
    assert header.source == HostPort("192.0.2.1", 5000)
    assert header.destination == HostPort("0.0.0.0", 443)


@BOTH
@pytest.mark.parametrize("client", [None, StubClient(address=None)], ids=["edge", "unvalidated"])
def test_without_a_client_the_edge_speaks_for_itself(
    version: ProxyVersion, client: StubClient | None
) -> None:
    header = told(version, client)
    assert header.source is header.destination is None


# --- the connections ------------------------------------------------------------------------------


class Told:
    """An origin that answers each request with the header of its connection."""

    def __init__(self) -> None:
        self.hold = asyncio.Event()
        self.hold.set()
        self.closed = 0

    @property
    def script(self) -> Script:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            header = (await reader.readline()).rstrip()
            try:
                while True:
                    await read_head(reader)
                    await self.hold.wait()
                    writer.write(
                        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(header), header)
                    )
            finally:
                self.closed += 1

        return script


def send(group: Upstream, port: int, path: str = "/") -> Recorder:
    client = StubClient(address=("192.0.2.1", port))
    recorder = Recorder()
    group.open(request(path=path), recorder, client.share, client)
    return recorder


def named(port: int) -> bytes:
    return b"PROXY TCP4 192.0.2.1 198.51.100.1 %d 443" % port


async def test_a_connection_carries_the_requests_of_one_client_only() -> None:
    async with origin(Told().script) as server, upstream(server, proxy_protocol=1) as group:
        for port in (1001, 1002, 1001, 1002, 1001):
            answer = await send(group, port).over()
            assert (answer.status, bytes(answer.body)) == (200, named(port))
        assert server.connections == 2


async def test_concurrent_requests_are_each_told_their_own_client() -> None:
    origin_side = Told()
    origin_side.hold.clear()
    async with origin(origin_side.script) as server, upstream(server, proxy_protocol=1) as group:
        sent = {port: send(group, port) for port in range(1001, 1009)}
        await eventually(lambda: server.connections == 8)
        origin_side.hold.set()
        for port, recorder in sent.items():
            assert bytes((await recorder.over()).body) == named(port)


async def test_idle_connections_of_others_make_room_at_the_limit() -> None:
    """Otherwise those who came first would keep everybody else out until they are idle."""
    origin_side = Told()
    async with (
        origin(origin_side.script) as server,
        upstream(server, proxy_protocol=1, max_connections=3) as group,
    ):
        for port in range(1001, 1008):
            assert bytes((await send(group, port).over()).body) == named(port)
        await eventually(lambda: origin_side.closed == 4)
        (stats,) = group.stats().values()
        assert (stats["open"], stats["idle"]) == (3, 3)


async def test_requests_that_wait_get_connections_of_their_own_clients() -> None:
    origin_side = Told()
    origin_side.hold.clear()
    async with (
        origin(origin_side.script) as server,
        upstream(server, proxy_protocol=1, max_connections=2) as group,
    ):
        sent = [(1001 + n % 5, send(group, 1001 + n % 5)) for n in range(20)]
        await eventually(lambda: server.connections == 2)
        origin_side.hold.set()
        for port, recorder in sent:
            answer = await recorder.over()
            assert (answer.status, bytes(answer.body)) == (200, named(port))
        (stats,) = group.stats().values()
        assert stats["open"] <= 2


async def test_a_retry_on_a_new_connection_begins_with_a_header_again() -> None:
    answered = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        header = (await reader.readline()).rstrip()
        await read_head(reader)
        answered += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(header), header))
        await read_head(reader)  # and closes instead of an answer

    async with origin(once) as server, upstream(server, proxy_protocol=1) as group:
        for _ in range(3):
            assert bytes((await send(group, 1001).over()).body) == named(1001)
        assert answered == server.connections == 3


async def test_health_checks_speak_for_the_edge() -> None:
    seen = asyncio.Queue[bytes]()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.put_nowait(await reader.readline())
        await read_head(reader)
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")

    async with origin(script) as server, upstream(server, proxy_protocol=1, health_path="/up"):
        async with asyncio.timeout(20):
            assert await seen.get() == b"PROXY UNKNOWN\r\n"
