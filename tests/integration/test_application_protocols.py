"""Which application protocols an edge offers by ALPN: HTTP/3, and those that it is given."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived

from interop.endpoint.http09 import ALPN_HTTP09, http09_codec
from quicedge.config.schema import Config
from quicedge.downstream.http3 import CodecFactory
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.settings import ALPN_H3
from quicedge.quic.tls import CertificateStore
from quicedge.udp.socket import UdpSocket, open_socket
from quicedge.worker.edge import Edge
from tests.support.certs import make_certificate
from tests.support.h3client import h3_client

SECRET = b"s" * 32
NO_APPLICATION_PROTOCOL = 0x100 + 120
"""CRYPTO_ERROR with the TLS alert (RFC 9001 section 8.1)."""


class Peer(QuicConnectionProtocol):
    """A client without HTTP of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.content = b""
        self.ended = asyncio.Event()
        self.closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event: Any) -> None:
        if isinstance(event, StreamDataReceived):
            self.content += event.data
            if event.end_stream:
                self.ended.set()
        elif isinstance(event, ConnectionTerminated) and not self.closed.done():
            self.closed.set_result(event.error_code)


@asynccontextmanager
async def edge_on_loopback(root: Path, codecs: Mapping[str, CodecFactory]) -> AsyncIterator[int]:
    """The port of an edge that serves the files of a directory."""
    sock = UdpSocket(open_socket(socket.AF_INET, "127.0.0.1", 0))
    port = sock.address[1]
    config = msgspec.convert(
        {
            "listen": [f"127.0.0.1:{port}"],
            "tls": {"certificates": []},
            "upstreams": {"files": {"root": str(root)}},
            "routes": [{"upstream": "files"}],
        },
        Config,
    )
    edge = Edge(
        config,
        [sock],
        certificates=CertificateStore([make_certificate("localhost")]),
        connection_ids=ConnectionIdIssuer(secret=SECRET),
        secret=SECRET,
        access_log=None,
        extra_codecs=codecs,
    )
    try:
        yield port
    finally:
        await edge.close()
        sock.close()


def offering(*protocols: str) -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=list(protocols), verify_mode=ssl.CERT_NONE, server_name="localhost"
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"content")
    return tmp_path


async def test_http09_is_refused_by_an_edge_that_was_not_given_it(root: Path) -> None:
    async with (
        edge_on_loopback(root, {}) as port,
        connect(
            "127.0.0.1", port, configuration=offering(ALPN_HTTP09), create_protocol=Peer,
            wait_connected=False,
        ) as peer,
        asyncio.timeout(20),
    ):  # fmt: skip
        assert isinstance(peer, Peer)
        peer.transmit()
        assert await peer.closed == NO_APPLICATION_PROTOCOL


async def test_a_codec_given_to_the_edge_serves_its_protocol_and_is_preferred(root: Path) -> None:
    async with (
        edge_on_loopback(root, {ALPN_HTTP09: http09_codec}) as port,
        connect(
            "127.0.0.1", port, configuration=offering(ALPN_H3, ALPN_HTTP09), create_protocol=Peer
        ) as peer,
        asyncio.timeout(20),
    ):
        assert isinstance(peer, Peer)
        peer._quic.send_stream_data(0, b"GET /file\r\n", end_stream=True)
        peer.transmit()
        await peer.ended.wait()
        assert peer.content == b"content"


async def test_http3_is_served_beside_the_codecs_given(root: Path) -> None:
    async with (
        edge_on_loopback(root, {ALPN_HTTP09: http09_codec}) as port,
        h3_client(port) as client,
        asyncio.timeout(20),
    ):
        answer = await client.ask(b"GET", b"/file")
        assert (answer.status, bytes(answer.body)) == (200, b"content")
