"""Several workers: clients whose address changes keep their connection, steered or forwarded."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import uvloop
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, QuicEvent

from tests.support.edge import edge
from tests.support.origin import demo_origin

CLIENTS = 200
AT_ONCE = 20
SIZE = 40_000
CONTENT = (bytes(range(256)) * 256)[:SIZE]

UNSTEERED = """
from quicedge.udp.connection_id_codec import ConnectionIdCodec
def refuse(*args, **options):
    raise OSError("no steering here")
ConnectionIdCodec.steer = refuse
from quicedge.cli import main
main()
"""


class Client(QuicConnectionProtocol):
    """Fetches, and takes a new port towards the edge as a NAT would give it."""

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
            self.waiting: dict[int, tuple[asyncio.Future[bytes], list[bytes]]] = {}
        elif isinstance(event, ConnectionTerminated):
            for future, _ in self.waiting.values():
                if not future.done():
                    future.set_exception(ConnectionError(event.reason_phrase))
        for item in self.http.handle_event(event) if hasattr(self, "http") else ():
            if isinstance(item, HeadersReceived | DataReceived):
                future, pieces = self.waiting[item.stream_id]
                if isinstance(item, DataReceived):
                    pieces.append(item.data)
                if item.stream_ended:
                    future.set_result(b"".join(pieces))

    def request(self) -> asyncio.Future[bytes]:
        stream_id = self._quic.get_next_available_stream_id()
        future = self._loop.create_future()
        self.waiting[stream_id] = future, []
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"),
                  (b":path", b"/download?size=%d" % SIZE)]  # fmt: skip
        self.http.send_headers(stream_id, fields, end_stream=True)
        self.transmit()
        return future

    async def rebind(self) -> None:
        old = self._transport
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        # `connection_made` takes it for ours.
        await self._loop.create_datagram_endpoint(lambda: self, sock=sock)
        assert old is not None
        old.close()
        # A client that is owed an answer and owes nothing would wait for ever at its new port.
        self._quic.send_ping(1)
        self.transmit()


async def fetch_all(port: int) -> int:
    limit = asyncio.Semaphore(AT_ONCE)
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, server_name="localhost"
    )
    done = 0

    async def one() -> None:
        nonlocal done
        async with (
            limit,
            connect("127.0.0.1", port, configuration=configuration, create_protocol=Client) as c,
        ):
            assert isinstance(c, Client)
            await c.wait_connected()
            assert await asyncio.wait_for(c.request(), 30) == CONTENT
            under_way = c.request()
            await c.rebind()
            assert await asyncio.wait_for(under_way, 30) == CONTENT
            assert await asyncio.wait_for(c.request(), 30) == CONTENT
            done += 1

    await asyncio.gather(*(one() for _ in range(CLIENTS)))
    return done


@pytest.mark.parametrize("steered", [True, False], ids=["steered", "forwarded"])
def test_two_hundred_rebinding_clients_lose_no_exchange(tmp_path: Path, steered: bool) -> None:
    program = ("-m", "quicedge") if steered else ("-c", UNSTEERED)
    with (
        demo_origin() as origin,
        edge(tmp_path, origin, options="workers = 4", program=program) as running,
    ):
        assert uvloop.run(fetch_all(running.port)) == CLIENTS
        status = running.admin("/api/v1/status")
        workers = [worker["stats"] for worker in status["workers"]]
        records = running.access()
    assert len(workers) == 4
    # Each has its share: the kernel spreads new connections by the ID that the client chose.
    assert all(worker["connections_total"] > CLIENTS / 16 for worker in workers)
    forwarded = sum(worker["datagrams_forwarded"] for worker in workers)
    assert (forwarded == 0) if steered else (forwarded > CLIENTS)
    assert [listener["steering"] for listener in status["listeners"]] == [steered, steered]
    assert {record["outcome"] for record in records} == {"complete"}
