"""The client of an HTTP/3 connection, as seen by policy, filters and logs."""

from __future__ import annotations

from quicedge.client_auth.rules import Identity
from quicedge.downstream.authority import is_authoritative
from quicedge.proxy.alt_svc import QuicSource
from quicedge.proxy.client import TlsFacts, Transport
from quicedge.quic.connection import Connection
from quicedge.quic.packet import VERSION_NAMES
from quicedge.shares import Client
from quicedge.shares.prefixes import packed, prefix_of
from quicedge.telemetry.protocols import TransportKind


class Http3Client:
    """A `proxy.client.ClientInfo` on top of a QUIC connection."""

    __slots__ = (
        "_address",
        "_authoritative",
        "_connection",
        "_path",
        "alt_svc",
        "first_byte_at",
        "http_version",
        "share",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._path: object = None
        """The path that `_address` is of."""
        self._address: tuple[str, int]
        self._authoritative: str | None = None
        """A host that the connection may carry requests for."""
        self.http_version = b"3"
        self.alt_svc: QuicSource | None = None
        self.first_byte_at: float | None = None
        address = packed(str(connection.came_from.remote[0]))
        self.share = Client(address, prefix_of(address))

    @property
    def address(self) -> tuple[str, int] | None:
        path = self._connection.validated_path
        if path is None:
            return None
        if path is not self._path:
            self._path = path
            self._address = str(path.remote[0]), path.remote[1]
        return self._address

    @property
    def local_address(self) -> tuple[str, int] | None:
        path = self._connection.validated_path
        if path is None:
            return None
        bound = path.socket.address
        return path.local_host or bound[0], bound[1]

    @property
    def tls(self) -> TlsFacts:
        handshake = self._connection.handshake
        group, identity = handshake.group, handshake.identity
        return TlsFacts(
            "TLSv1.3",
            handshake.cipher,
            group.name if group is not None else None,
            handshake.server_name,
            identity.certificate if identity is not None else None,
        )

    @property
    def identity(self) -> Identity | None:
        return self._connection.handshake.identity

    @property
    def early_data(self) -> bool:
        return not self._connection.handshake_complete

    @property
    def transport(self) -> Transport:
        connection = self._connection
        version = connection.handshake.version
        recovery, rtt = connection.recovery, connection.recovery.rtt
        return Transport(
            kind=TransportKind.QUIC,
            connection_id=connection.id,
            version=VERSION_NAMES.get(version) or hex(version),
            smoothed_rtt=rtt.smoothed if rtt.initialized else None,
            min_rtt=rtt.min if rtt.initialized else None,
            congestion_window=recovery.congestion_window,
            bytes_in_flight=recovery.bytes_in_flight,
            packets_sent=connection.counters.packets_sent,
            packets_lost=recovery.packets_lost,
            early_data=not connection.handshake_complete,
        )

    def limited_by(self, now: float) -> str | None:
        return self._connection.limited_by(now)

    def is_authoritative(self, host: str) -> bool:
        if host == self._authoritative:
            return True
        handshake = self._connection.handshake
        if is_authoritative(handshake.certificate, handshake.server_name, host):
            self._authoritative = host
            return True
        return False
