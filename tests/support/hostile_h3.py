"""The stock aioquic client that attackers of the soak test build upon."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aioquic import tls
from aioquic.asyncio import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, QuicEvent

CONNECT_TIMEOUT = 5.0


class HostileClient(QuicConnectionProtocol):
    """A client that sends requests and reads no response."""

    ended = False
    _http: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self._http = H3Connection(self._quic)
        self.ended |= isinstance(event, ConnectionTerminated)

    def ask(self, path: bytes, method: bytes = b"GET", end: bool = True) -> int:
        assert self._http is not None
        stream_id = self._quic.get_next_available_stream_id()
        fields = [(b":method", method), (b":scheme", b"https"), (b":authority", b"localhost"),
                  (b":path", path)]  # fmt: skip
        self._http.send_headers(stream_id, fields, end_stream=end)
        return stream_id

    def write(self, stream_id: int, data: bytes) -> None:
        """More of a request's content."""
        assert self._http is not None
        self._http.send_data(stream_id, data, end_stream=False)

    def cancel(self, stream_id: int) -> None:
        self._quic.reset_stream(stream_id, 0x10C)
        self._quic.stop_stream(stream_id, 0x10C)

    def ping(self) -> None:
        self._quic.send_ping(1)
        self.transmit()

    def may_open(self) -> bool:
        opened = self._quic._local_next_stream_id_bidi // 4
        return bool(opened < self._quic._remote_max_streams_bidi)

    def send_frames(self, frames: bytes) -> None:
        """One 1-RTT packet with these frames."""
        quic = self._quic
        crypto = quic._cryptos[tls.Epoch.ONE_RTT]
        number = quic._packet_number
        quic._packet_number += 1
        header = bytes((0x41 | crypto.key_phase << 2,)) + quic._peer_cid.cid
        header += (number & 0xFFFF).to_bytes(2, "big")
        packet = crypto.send.encrypt_packet(header, frames.ljust(4, b"\0"), number)
        self._transport.sendto(packet, quic._network_paths[0].addr)


Transport = Callable[[asyncio.DatagramTransport], Any]


@asynccontextmanager
async def hostile_client(
    port: int, source: str, wrap: Transport = lambda transport: transport, **options: Any
) -> AsyncIterator[HostileClient]:
    """Connect from the loopback address `source`; datagrams leave through `wrap(transport)`."""
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE,
        server_name="localhost", **options,
    )  # fmt: skip
    quic = QuicConnection(configuration=configuration)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((source, 0))
    transport, client = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: HostileClient(quic), sock=sock
    )
    try:
        client._transport = wrap(transport)
        client.connect(("127.0.0.1", port))
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await client.wait_connected()
        yield client
    finally:
        client.close()
        transport.close()
