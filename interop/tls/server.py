"""The edge in this process, which notes what each handshake negotiated."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from quicedge.config.loader import parse_config
from quicedge.downstream.http3 import Http3Session
from quicedge.http.errors import H3ErrorCode
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.tls import read_certificate
from quicedge.tcp.connection import TcpConnection
from quicedge.udp.socket import UdpSocket, open_socket
from quicedge.worker.edge import Edge, load_certificates
from quicedge.worker.tcp_front import TcpSession, TcpSocket

HOST = "127.0.0.1"
FILE = "handshake.txt"
"""What clients ask for; its content is its name."""


class Facts(NamedTuple):
    """What one handshake negotiated; None: unknown."""

    began_at: float
    group: str | None
    hello_retry: bool
    cipher: str | None
    signature: str | None
    compression: str | None
    resumed: bool
    early_data: bool


def _of_quic(session: Http3Session) -> Facts:
    connection = session.connection
    handshake = connection.handshake
    return Facts(
        began_at=connection.created_at,
        group=handshake.group.name if handshake.group is not None else None,
        hello_retry=handshake.hello_retried,
        cipher=handshake.cipher,
        signature=handshake.signature,
        compression=handshake.compression,
        resumed=handshake.resumed,
        early_data=handshake.early_data_accepted,
    )


def _of_tcp(connection: TcpConnection) -> Facts:
    return Facts(
        began_at=connection.created_at,
        group=connection.group,
        hello_retry=connection.hello_retried,
        cipher=(connection.cipher or "").removeprefix("TLS_"),
        signature=None,
        compression=None,
        resumed=connection.resumed,
        early_data=False,
    )


class RecordingEdge(Edge):
    """An edge that keeps the facts of connections that have ended."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._ended: list[Facts] = []
        super().__init__(*arguments, **options)

    def session_ended(self, session: Http3Session) -> None:
        if session.connection.handshake_complete:
            self._ended.append(_of_quic(session))
        super().session_ended(session)

    def _tcp_ended(self, session: TcpSession, connection: TcpConnection) -> None:
        self._ended.append(_of_tcp(connection))
        super()._tcp_ended(session, connection)

    @property
    def facts(self) -> list[Facts]:
        """Of all completed handshakes, in their order."""
        live = [_of_quic(one) for one in self.sessions if one.connection.handshake_complete]
        live += [_of_tcp(connection) for connection in self.tcp.sessions.values()]
        return sorted([*self._ended, *live])


def _sockets() -> tuple[socket.socket, socket.socket]:
    """One for UDP and one for TCP on the same port, which the kernel finds for UDP alone."""
    while True:
        udp = open_socket(socket.AF_INET, HOST, 0)
        try:
            return udp, socket.create_server((HOST, udp.getsockname()[1]), backlog=16)
        except OSError as error:
            udp.close()
            if error.errno != errno.EADDRINUSE:
                raise


@asynccontextmanager
async def recording_edge(
    certs: Path, www: Path, groups: list[str] | None
) -> AsyncIterator[tuple[RecordingEdge, int]]:
    """A running edge on loopback and its port; `groups`: all it has, default: the usual ones."""
    udp, tcp = _sockets()
    port = udp.getsockname()[1]
    tcp.setblocking(False)
    tls: dict[str, Any] = {"certificates": [{"cert": "cert.pem", "key": "priv.key"}]}
    if groups is not None:
        tls["groups"] = groups
    document = {
        "listen": [f"{HOST}:{port}"],
        "tls": tls,
        "upstreams": {"www": {"root": str(www)}},
        "routes": [{"upstream": "www"}],
        "quic": {"early_data": True},
    }
    secret = os.urandom(32)
    certificate = read_certificate(certs / "cert.pem", certs / "priv.key", private=False)
    edge = RecordingEdge(
        parse_config(document, "interop tls", certs),
        [UdpSocket(udp)],
        [TcpSocket(tcp, 0)],
        certificates=load_certificates([certificate]),
        connection_ids=ConnectionIdIssuer(secret=secret),
        secret=secret,
        access_log=None,
    )
    try:
        yield edge, port
    finally:
        for session in edge.all_sessions:
            session.close(H3ErrorCode.NO_ERROR, "the case is over")
        await asyncio.sleep(0)
        await edge.close()
        udp.close()
        tcp.close()
