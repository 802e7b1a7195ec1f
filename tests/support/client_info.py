"""A client without a connection, as gateway, filters and logs see it (`proxy.client`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from quicedge.client_auth.rules import Identity
from quicedge.proxy.alt_svc import AltSvcSource
from quicedge.proxy.client import TlsFacts, Transport
from quicedge.shares import Client
from quicedge.telemetry.protocols import TransportKind


@dataclass
class StubClient:
    """Known and complete, unless the test says otherwise."""

    address: tuple[str, int] | None = ("192.0.2.1", 50000)
    local_address: tuple[str, int] | None = ("198.51.100.1", 443)
    http_version: bytes = b"3"
    alt_svc: AltSvcSource | None = None
    first_byte_at: float | None = None
    identity: Identity | None = None
    early_data: bool = False
    authoritative: bool = True
    tls: TlsFacts = field(
        default_factory=lambda: TlsFacts(
            "TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768", "a.test"
        )
    )
    share: Client = field(default_factory=lambda: Client(b"\xc0\x00\x02\x01", b"\xc0\x00\x02"))
    transport: Transport = field(
        default_factory=lambda: Transport(
            TransportKind.QUIC, "c0", "v1", 0.0123, 0.01, 14720, 0, 1000, 2, False
        )
    )

    def limited_by(self, now: float) -> str | None:
        return None

    def is_authoritative(self, host: str) -> bool:
        return self.authoritative
