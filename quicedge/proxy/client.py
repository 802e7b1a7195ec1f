"""What policy, filters, logs and spans know of a client, whatever it speaks."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from quicedge.shares import Client
from quicedge.udp.address import format_address


class Transport(NamedTuple):
    """A connection's transport at one moment; None is unknown."""

    connection_id: str
    version: str | None
    """Of QUIC."""
    smoothed_rtt: float | None
    """Seconds."""
    min_rtt: float | None
    congestion_window: int
    bytes_in_flight: int
    packets_sent: int
    packets_lost: int
    early_data: bool
    """The handshake is not complete: what came may be a replay."""

    @property
    def loss_ratio(self) -> float:
        """Lost packets in all that were sent."""
        return self.packets_lost / self.packets_sent if self.packets_sent else 0.0


class ClientInfo(Protocol):
    """The client at the other end of a connection; every answer is about this moment."""

    share: Client
    """Whom what it holds is counted for; a client that migrates keeps its first address."""
    http_version: bytes
    """As Via has it: `3`, `0.9`."""

    @property
    def address(self) -> tuple[str, int] | None:
        """IP address and port, once validated: what a packet merely claims proves nothing."""

    @property
    def local_port(self) -> int | None:
        """The port that it came to."""

    @property
    def early_data(self) -> bool:
        """Its handshake is not complete: what it sends may be a replay (RFC 8470)."""

    @property
    def transport(self) -> Transport:
        """A snapshot of its connection's transport."""

    def limited_by(self, now: float) -> str | None:
        """What held its connection's sending back for longest; None: nothing did."""

    def is_authoritative(self, host: str) -> bool:
        """Whether the connection may carry requests for a host (RFC 9110 section 15.5.20)."""


def address_of(client: ClientInfo) -> str:
    """The client's `host:port`; `-` until its address is validated."""
    address = client.address
    return "-" if address is None else format_address(address)


def host_of(client: ClientInfo) -> str:
    """The client's IP address as text, without zone; `unknown` until it is validated."""
    address = client.address
    return "unknown" if address is None else address[0].partition("%")[0]
