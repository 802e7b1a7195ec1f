"""A DNS server on loopback, over UDP and TCP, whose records a test changes while it runs."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class Asked(NamedTuple):
    """A query that has come."""

    name: str
    kind: str
    over_tcp: bool = False


class Zone:
    """What it answers: records by name and type; names without any do not exist."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.ttl = 60
        self.asked: list[Asked] = []
        self.broken: set[tuple[str, str]] = set()
        """Answered SERVFAIL."""
        self.is_silent = False
        self.truncated: set[tuple[str, str]] = set()
        """Answered over UDP without records, and with a reference to TCP."""
        self.delay = 0.0
        self.answering = self.most_answering = 0
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def names(self, name: str, *hosts: str, kind: str = "A") -> None:
        """Let a name stand for these addresses, or records of another type."""
        self.records[name, kind] = list(hosts)

    async def answer(self, wire: bytes, over_tcp: bool) -> bytes | None:
        query = dns.message.from_wire(wire)
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append(Asked(name, kind, over_tcp))
        if self.is_silent:
            return None
        self.answering += 1
        self.most_answering = max(self.most_answering, self.answering)
        if self.delay:
            await asyncio.sleep(self.delay)
        self.answering -= 1
        response = dns.message.make_response(query, recursion_available=True)
        found = self.records.get((name, kind), [])
        if (name, kind) in self.broken:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif (name, kind) in self.truncated and not over_tcp:
            response.flags |= dns.flags.TC
        elif found:
            response.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, *found))
        elif not any(known == name for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire(max_size=65535)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone, tasks: set[asyncio.Task[None]]) -> None:
        self._zone = zone
        self._tasks = tasks
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, client: tuple[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(data, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, client: tuple[str, int]) -> None:
        response = await self._zone.answer(data, over_tcp=False)
        if response is not None:
            self._transport.sendto(response, client)


@asynccontextmanager
async def dns_zone() -> AsyncIterator[Zone]:
    """A running server, on the test's event loop."""
    zone, tasks = Zone(), set[asyncio.Task[None]]()

    async def over_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            response = await zone.answer(await reader.readexactly(size), over_tcp=True)
            if response is not None:
                writer.write(struct.pack("!H", len(response)) + response)
                await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    while True:
        streams = await asyncio.start_server(over_tcp, "127.0.0.1", 0)
        zone.port = streams.sockets[0].getsockname()[1]
        try:
            datagrams, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(zone, tasks), ("127.0.0.1", zone.port)
            )
        except OSError:  # somebody else's UDP port
            streams.close()
            continue
        break
    try:
        yield zone
    finally:
        for task in tasks:
            task.cancel()
        datagrams.close()
        streams.close()
