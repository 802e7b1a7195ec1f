"""A DNS server that is asked: exchanges of bounded size, which never hold up the event loop.

dnspython's own exchanges accept answers of any size and read them where they arrive, at about 50 us
per record.
"""

from __future__ import annotations

import asyncio

import dns.asyncbackend
import dns.exception
import dns.message
import dns.nameserver
import dns.query

from quicedge.config import limits
from quicedge.config.host_port import HostPort


class AnswerTooLarge(dns.exception.FormError):
    """An answer exceeds DISCOVERY_ANSWER."""


class DnsServer(dns.nameserver.AddressAndPortNameserver):
    """A server on UDP and TCP, for dnspython's resolver."""

    def kind(self) -> str:
        return "bounded"

    def __str__(self) -> str:
        return str(HostPort(self.address, self.port))

    async def async_query(
        self,
        request: dns.message.QueryMessage,
        timeout: float,
        source: str | None,
        source_port: int,
        max_size: bool,
        backend: dns.asyncbackend.Backend,
        one_rr_per_rrset: bool = False,
        ignore_trailing: bool = False,
    ) -> dns.message.Message:
        wire = request.to_wire()
        try:
            async with asyncio.timeout(timeout):
                data = await (self._over_tcp(wire) if max_size else self._over_udp(wire))
        except TimeoutError:
            raise dns.exception.Timeout(timeout=timeout) from None
        response = await _read(data, raise_on_truncation=not max_size)
        if not request.is_response(response):
            raise dns.query.BadResponse
        return response

    async def _over_udp(self, wire: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        # Connected: the kernel takes nothing from other addresses, and says when nobody listens.
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Answer(wire[:2], answer), remote_addr=(self.address, self.port)
        )
        try:
            transport.sendto(wire)
            return await answer
        finally:
            transport.close()

    async def _over_tcp(self, wire: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self.address, self.port)
        try:
            writer.write(len(wire).to_bytes(2) + wire)
            size = int.from_bytes(await reader.readexactly(2))
            if size > limits.DISCOVERY_ANSWER:
                raise AnswerTooLarge(f"an answer of {size} bytes")
            return await reader.readexactly(size)
        finally:
            writer.close()


class _Answer(asyncio.DatagramProtocol):
    """Waits for the datagram that has the number of the query."""

    def __init__(self, number: bytes, answer: asyncio.Future[bytes]) -> None:
        self._number = number
        self._answer = answer

    def datagram_received(self, data: bytes, address: object) -> None:
        if data[:2] == self._number and not self._answer.done():
            self._answer.set_result(data)

    def error_received(self, error: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)


async def _read(data: bytes, *, raise_on_truncation: bool) -> dns.message.Message:
    """Read an answer; a large one beside the event loop."""
    if len(data) <= limits.DISCOVERY_UDP_SIZE:
        return dns.message.from_wire(data, raise_on_truncation=raise_on_truncation)
    return await asyncio.to_thread(dns.message.from_wire, data)
