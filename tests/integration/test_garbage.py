"""Connections and requests that are over leave no reference cycles: workers seldom look for any."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections import Counter

import msgspec
import pytest

from bench.environment import origin
from quicedge.config.schema import Config
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.tls import CertificateStore
from quicedge.udp.socket import UdpSocket
from quicedge.worker.edge import Edge
from tests.support.certs import make_certificate
from tests.support.edge import REPOSITORY

SECRET = b"s" * 32


async def load(*arguments: object) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.loader", *map(str, arguments), cwd=REPOSITORY,
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await process.wait() == 0


async def all_gone(edge: Edge) -> None:
    async with asyncio.timeout(20):
        while edge.endpoint.connections:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("work", [("handshakes", 20), ("requests", 5, 2, 100)])
async def test_what_is_over_is_freed_without_the_collector(work: tuple[object, ...]) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    port = sock.getsockname()[1]
    with origin() as origin_port:
        config = msgspec.convert(
            {
                "listen": [f"127.0.0.1:{port}"],
                "tls": {"certificates": []},
                "upstreams": {"origin": {"servers": [f"http://127.0.0.1:{origin_port}"]}},
                "routes": [{"upstream": "origin"}],
            },
            Config,
        )
        edge = Edge(
            config,
            [UdpSocket(sock)],
            certificates=CertificateStore([make_certificate("localhost")]),
            connection_ids=ConnectionIdIssuer(secret=SECRET),
            secret=SECRET,
            access_log=None,
        )
        name, *numbers = work
        await load(name, port, *numbers)  # what is made once is made now
        await all_gone(edge)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await load(name, port, *numbers)
            await all_gone(edge)
            gc.collect()
            left = Counter(
                type(item).__name__
                for item in gc.garbage
                if type(item).__module__.startswith(("quicedge", "aioquic"))
            )
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
            await edge.close()
            sock.close()
    assert not left
