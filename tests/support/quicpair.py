"""A client and a server connection, either stock aioquic's or ours, over `simnet`."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509

from quicedge.quic.connection import Connection
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.tls import CertificateStore, ServerCertificate, load_certificate
from tests.support.certs import write_certificate
from tests.support.simnet import Link, Pair, Peer

CLIENT_ADDRESS = ("192.0.2.1", 50000)
SERVER_ADDRESS = ("198.51.100.1", 443)
SECRET = b"s" * 32


@cache
def _certificate() -> tuple[ServerCertificate, x509.Certificate]:
    """As our server takes it, and as aioquic's own does."""
    with tempfile.TemporaryDirectory() as directory:
        cert_file, key_file = write_certificate(Path(directory), "localhost")
        return (
            load_certificate(cert_file, key_file),
            x509.load_pem_x509_certificate(cert_file.read_bytes()),
        )


@cache
def store() -> CertificateStore:
    return CertificateStore([_certificate()[0]])


def server_configuration(**options: Any) -> QuicConfiguration:
    certificate, leaf = _certificate()
    options.setdefault("max_datagram_size", 1452)
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3", "test"], **options)
    configuration.certificate = leaf
    configuration.private_key = certificate.private_key
    return configuration


def client_configuration(**options: Any) -> QuicConfiguration:
    options = {
        "max_datagram_size": 1452,
        "alpn_protocols": ["test"],
        "server_name": "localhost",
        **options,
    }
    return QuicConfiguration(is_client=True, verify_mode=ssl.CERT_NONE, **options)


def make_pair(
    up: Link | None = None,
    down: Link | None = None,
    *,
    seed: int = 1,
    client_options: dict[str, Any] | None = None,
    server_options: dict[str, Any] | None = None,
    mtu_ceiling: int | None = None,
    own_client: bool = False,
    stock_server: bool = False,
    token_handler: Callable[[bytes], None] | None = None,
    **server_arguments: Any,
) -> Pair:
    """A pair about to shake hands.

    The client is stock aioquic's, or ours with `own_client`; the server is ours, or stock
    aioquic's with `stock_server`.

    `server_arguments` are more of those that our server connection takes.
    """
    now = 1000.0
    configuration = client_configuration(**(client_options or {}))
    client: QuicConnection
    if own_client:
        client = Connection(
            configuration=configuration,
            now=now,
            mtu_ceiling=mtu_ceiling,
            token_handler=token_handler,
        )
    else:
        client = QuicConnection(configuration=configuration)
    client.connect(SERVER_ADDRESS, now)
    server: Any
    server_side = server_configuration(**(server_options or {}))
    if stock_server:
        server = QuicConnection(
            configuration=server_side,
            original_destination_connection_id=client.original_destination_connection_id,
        )
    else:
        server = Connection(
            configuration=server_side,
            now=now,
            certificates=server_arguments.pop("certificates", None) or store(),
            connection_ids=ConnectionIdIssuer(secret=SECRET),
            mtu_ceiling=mtu_ceiling,
            original_destination_connection_id=client.original_destination_connection_id,
            **server_arguments,
        )
    return Pair(
        Peer(client, CLIENT_ADDRESS),
        Peer(server, SERVER_ADDRESS),
        up or Link(),
        down or Link(),
        seed,
        now,
    )


def is_confirmed(connection: Any) -> bool:
    """Whether the handshake of a connection, ours or aioquic's, is confirmed."""
    if isinstance(connection, QuicConnection):
        return bool(connection._handshake_confirmed)
    return bool(connection.handshake_confirmed)


def has_stream(connection: Any, stream_id: int) -> bool:
    if isinstance(connection, QuicConnection):
        return stream_id in connection._streams
    return stream_id in connection.streams


def unsent(connection: Any, stream_id: int) -> int:
    """Bytes of a stream that were written and have never been sent."""
    if isinstance(connection, QuicConnection):
        sender = connection._streams[stream_id].sender
        return int(sender._buffer_stop - sender.highest_offset)
    return int(connection.streams.unsent(stream_id))
