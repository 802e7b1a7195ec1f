"""The client of a connection on TCP, as seen by policy, filters and logs."""

from __future__ import annotations

from quicedge.client_auth.rules import Identity
from quicedge.downstream.authority import is_authoritative
from quicedge.proxy.alt_svc import AltSvcSource
from quicedge.proxy.client import TlsFacts, Transport
from quicedge.shares import Client
from quicedge.tcp.connection import TcpConnection
from quicedge.tcp.limits import limited_seconds, main_limit
from quicedge.telemetry.protocols import TransportKind


class TcpClient:
    """A `proxy.client.ClientInfo` on top of a TCP connection."""

    __slots__ = (
        "_address", "_authoritative", "_connection", "alt_svc", "first_byte_at", "http_version",
        "share",
    )  # fmt: skip

    def __init__(
        self, connection: TcpConnection, http_version: bytes, alt_svc: AltSvcSource | None
    ) -> None:
        self._connection = connection
        self._address = (connection.remote.host, connection.remote.port)
        self.http_version = http_version
        self.alt_svc = alt_svc
        self.first_byte_at: float | None = None
        self._authoritative: str | None = None
        """A host that the connection may carry requests for."""
        self.share: Client = connection.share

    @property
    def address(self) -> tuple[str, int] | None:
        return self._address

    @property
    def local_address(self) -> tuple[str, int] | None:
        local = self._connection.local
        return local.host, local.port

    @property
    def tls(self) -> TlsFacts:
        connection = self._connection
        identity = connection.identity
        return TlsFacts(
            connection.tls_version,
            connection.cipher,
            connection.group,
            connection.server_name,
            identity.certificate if identity is not None else None,
        )

    @property
    def identity(self) -> Identity | None:
        return self._connection.identity

    @property
    def early_data(self) -> bool:
        return False

    @property
    def transport(self) -> Transport:
        connection = self._connection
        info = connection.info()
        return Transport(
            kind=TransportKind.TCP,
            connection_id=connection.id,
            version=None,
            smoothed_rtt=info.smoothed_rtt if info is not None else None,
            min_rtt=info.minimum_rtt if info is not None else None,
            congestion_window=info.congestion_window if info is not None else None,
            bytes_in_flight=info.bytes_in_flight if info is not None else None,
            packets_sent=info.data_segs_out if info is not None else None,
            packets_lost=info.total_retrans if info is not None else None,
            early_data=False,
        )

    def limited_by(self, now: float) -> str | None:
        info = self._connection.info()
        return None if info is None else main_limit(limited_seconds(info))

    def is_authoritative(self, host: str) -> bool:
        if host == self._authoritative:
            return True
        connection = self._connection
        if is_authoritative(connection.certificate, connection.server_name, host):
            self._authoritative = host
            return True
        return False
