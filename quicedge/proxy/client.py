"""What policy, filters, logs and spans know about a client, independent of its protocol."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Protocol

from quicedge.client_auth.certificate import ClientCertificate
from quicedge.client_auth.rules import Identity
from quicedge.config.host_port import HostPort
from quicedge.proxy.alt_svc import AltSvcSource
from quicedge.shares import Client
from quicedge.telemetry.protocols import TransportKind


class Transport(NamedTuple):
    """A snapshot of a connection's transport; None means unknown.

    The figures mean what those of the same names in `telemetry.stats.ConnectionStats` mean.
    """

    kind: TransportKind
    connection_id: str
    version: str | None
    """The QUIC version; None on TCP."""
    smoothed_rtt: float | None
    """Seconds."""
    min_rtt: float | None
    congestion_window: int | None
    bytes_in_flight: int | None
    packets_sent: int | None
    packets_lost: int | None
    early_data: bool
    """The handshake is not complete: received data may be a replay."""

    @property
    def loss_ratio(self) -> float | None:
        """The fraction of sent packets that were lost."""
        if self.packets_sent is None or self.packets_lost is None:
            return None
        return self.packets_lost / self.packets_sent if self.packets_sent else 0.0


class TlsFacts(NamedTuple):
    """What the TLS handshake of a connection has settled; None: unknown."""

    version: str | None = None
    """`TLSv1.3`."""
    cipher: str | None = None
    group: str | None = None
    """Of the key exchange, by its registered name: `X25519MLKEM768`."""
    server_name: str | None = None
    """The name (SNI) that the client asked for."""
    certificate: ClientCertificate | None = None
    """What the client has proved who it is with."""


class ClientInfo(Protocol):
    """The client at the other end of a connection; all properties are current values."""

    share: Client
    """The client that its resources are charged to; unaffected by migration."""
    http_version: bytes
    """As in Via: `3`, `0.9`."""
    first_byte_at: float | None
    """When an origin first began to respond on its connection; set by exchanges."""

    @property
    def address(self) -> tuple[str, int] | None:
        """IP address and port; None until validated, because source addresses can be forged."""

    @property
    def local_address(self) -> tuple[str, int] | None:
        """IP address and port that it connected to; None: unknown."""

    @property
    def alt_svc(self) -> AltSvcSource | None:
        """What is advertised to it; None: nothing."""

    @property
    def tls(self) -> TlsFacts:
        """Facts of its TLS connection."""

    @property
    def identity(self) -> Identity | None:
        """Who it has proved to be; None: its host asks nobody for a certificate."""

    @property
    def early_data(self) -> bool:
        """Its handshake is not complete: its requests may be replays (RFC 8470)."""

    @property
    def transport(self) -> Transport:
        """A snapshot of its connection's transport."""

    def limited_by(self, now: float) -> str | None:
        """What limited sending on its connection the longest; None: nothing."""

    def is_authoritative(self, host: str) -> bool:
        """Whether the connection may carry requests for a host (RFC 9110 section 15.5.20)."""


def address_of(client: ClientInfo) -> str:
    """The client's `host:port`; `-` until its address is validated."""
    address = client.address
    return "-" if address is None else _text_of(address)


@lru_cache(maxsize=1024)
def _text_of(address: tuple[str, int]) -> str:
    """Most clients make many requests."""
    return str(HostPort.of(address))


def host_of(client: ClientInfo) -> str:
    """The client's IP address as text, without zone; `unknown` until it is validated."""
    address = client.address
    return "unknown" if address is None else address[0].partition("%")[0]
