"""Names of the protocols that clients speak, as telemetry shows them."""

from __future__ import annotations

from enum import StrEnum


class TransportKind(StrEnum):
    """What carries a connection."""

    QUIC = "quic"
    TCP = "tcp"


class HttpProtocol(StrEnum):
    """HTTP versions by their ALPN identifier."""

    HTTP_3 = "h3"
    HTTP_2 = "h2"
    HTTP_1_1 = "http/1.1"
    """HTTP/1.0 as well."""


_BY_VERSION = {
    b"2": HttpProtocol.HTTP_2,
    b"1.1": HttpProtocol.HTTP_1_1,
    b"1.0": HttpProtocol.HTTP_1_1,
}


def http_protocol(version: bytes) -> HttpProtocol:
    """The protocol of an HTTP version as Via names it; others than these run on QUIC."""
    return _BY_VERSION.get(version, HttpProtocol.HTTP_3)
