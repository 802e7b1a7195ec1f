"""The edge as the QUIC interop runner's server: one process, a directory as its upstream, HTTP/0.9
beside HTTP/3."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import Any

from interop.endpoint.environment import Environment
from interop.endpoint.http09 import ALPN_HTTP09, http09_codec
from quicedge.config.loader import parse_config
from quicedge.config.schema import Config
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.tls import read_certificate
from quicedge.udp.socket import UdpSocket, open_socket
from quicedge.worker.edge import Edge, load_certificates

HANDSHAKE_TIMEOUT = 60
"""Seconds: some cases lose three packets in ten."""
PREFERRED_PORT = 4433
"""UDP port of the preferred address; its host is the one that the client connected to."""


def configuration(environment: Environment) -> Config:
    """The edge's configuration for a case."""
    quic: dict[str, Any] = {"handshake_timeout": HANDSHAKE_TIMEOUT}
    if environment.case == "retry":
        quic["retry"] = "always"
    if environment.case == "zerortt":
        quic["early_data"] = True
    if environment.case == "v2":
        quic["versions"] = ["v2", "v1"]
    if environment.case == "connectionmigration":
        quic["preferred_address"] = _wildcards(PREFERRED_PORT)
    document = {
        "listen": [address for port in _ports(environment) for address in _wildcards(port)],
        "tls": {"certificates": [{"cert": "cert.pem", "key": "priv.key"}]},
        "upstreams": {"www": {"root": str(environment.www.absolute())}},
        "routes": [{"upstream": "www"}],
        "alt_svc": {"enabled": False},
        "quic": quic,
    }
    return parse_config(document, "interop", environment.certs.absolute())


def _ports(environment: Environment) -> tuple[int, ...]:
    if environment.case == "connectionmigration":
        return environment.port, PREFERRED_PORT
    return (environment.port,)


def _wildcards(port: int) -> list[str]:
    return [f"0.0.0.0:{port}", f"[::]:{port}"]


async def serve(environment: Environment) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    # Process 1 of a container gets no default handlers.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    sockets = [
        UdpSocket(open_socket(family, host, port))
        for port in _ports(environment)
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))
    ]
    secret = os.urandom(32)
    cert, key = environment.certs / "cert.pem", environment.certs / "priv.key"
    edge = Edge(
        configuration(environment),
        sockets,
        # The runner mounts one key for all, readable by everyone.
        certificates=load_certificates([read_certificate(cert, key, private=False)]),
        connection_ids=ConnectionIdIssuer(secret=secret),
        secret=secret,
        access_log=None,
        extra_codecs={ALPN_HTTP09: http09_codec},
    )
    await stopped.wait()
    await edge.close()
