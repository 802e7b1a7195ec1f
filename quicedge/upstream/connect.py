"""Connection setup: TCP or a unix socket, TLS, and negotiation of the HTTP version."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from quicedge.config.limits import (
    UPSTREAM_KEEPALIVE_IDLE,
    UPSTREAM_KEEPALIVE_INTERVAL,
    UPSTREAM_KEEPALIVE_PROBES,
)
from quicedge.config.schema import OriginProtocol
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.errors import OriginFailure
from quicedge.upstream.address import Address
from quicedge.upstream.base import UpstreamError

_ALPN = {
    OriginProtocol.AUTO: ["h2", "http/1.1"],
    OriginProtocol.H2: ["h2"],
    OriginProtocol.HTTP_1_1: ["http/1.1"],
}


def tls_context(config: UpstreamConfig) -> ssl.SSLContext:
    """The TLS context for origins; certificates are verified unless disabled by configuration.

    Raises OSError or ssl.SSLError if `tls_ca` cannot be read.
    """
    context = ssl.create_default_context(cafile=config.tls_ca)
    if not config.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(_ALPN[config.protocol])
    return context


class _Negotiating(asyncio.Protocol):
    """A placeholder protocol until TLS has negotiated the HTTP version."""

    def __init__(self, connector: Connector, make: Callable[[bool], asyncio.Protocol]) -> None:
        self._connector = connector
        self._make = make
        self.connection: asyncio.Protocol | None = None
        self.error: UpstreamError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        try:
            http2 = self._connector.speaks_h2(transport)
        except UpstreamError as error:
            self.error = error
            transport.close()
            return
        _detect_dead_peers(transport)
        connection = self.connection = self._make(http2)
        # Before any byte is read, so that the connection gets all of them.
        transport.set_protocol(connection)
        connection.connection_made(transport)


def _detect_dead_peers(transport: asyncio.BaseTransport) -> None:
    """Let the kernel probe an idle connection: a tunnel may be silent for an hour."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", UPSTREAM_KEEPALIVE_IDLE),
        ("TCP_KEEPINTVL", UPSTREAM_KEEPALIVE_INTERVAL),
        ("TCP_KEEPCNT", UPSTREAM_KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Connector:
    """Connects to one server."""

    def __init__(
        self, address: Address, config: UpstreamConfig, tls: ssl.SSLContext | None
    ) -> None:
        self._address = address
        self._config = config
        self._tls = tls

    async def connect(self, make: Callable[[bool], asyncio.Protocol]) -> None:
        """Establish one connection, whose protocol is `make(http2)`; raises UpstreamError."""
        text = self._address.text
        negotiating = _Negotiating(self, make)
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                await self._open(lambda: negotiating)
        except TimeoutError:
            raise UpstreamError(OriginFailure.CONNECT_TIMEOUT, text) from None
        except ssl.SSLCertVerificationError as error:
            raise UpstreamError(OriginFailure.TLS, f"{text}: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise UpstreamError(OriginFailure.TLS, f"{text}: {error.reason or error}") from error
        except (OSError, UnicodeError) as error:
            # UnicodeError: a host name that IDNA cannot encode.
            raise UpstreamError(OriginFailure.CONNECT, f"{text}: {error}") from error
        except asyncio.CancelledError:
            # On cancellation uvloop closes a new connection without notifying its protocol.
            if negotiating.connection is not None:
                negotiating.connection.connection_lost(None)
            raise
        if negotiating.error is not None:
            raise negotiating.error

    async def _open(self, factory: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        address = self._address
        if address.unix is not None:
            await loop.create_unix_connection(factory, address.unix)
        elif self._tls is None:
            await loop.create_connection(factory, address.host, address.port)
        else:
            await loop.create_connection(
                factory,
                address.host,
                address.port,
                ssl=self._tls,
                server_hostname=self._config.tls_server_name or address.name or address.host,
            )

    def speaks_h2(self, transport: asyncio.BaseTransport) -> bool:
        """By ALPN over TLS, by configuration (prior knowledge) otherwise."""
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is None:
            return self._config.protocol is OriginProtocol.H2
        negotiated = tls.selected_alpn_protocol()
        if self._config.protocol is OriginProtocol.H2 and negotiated != "h2":
            # RFC 9113 section 3.3: implementations MUST use protocol negotiation in TLS.
            raise UpstreamError(
                OriginFailure.TLS, f"{self._address.text}: does not negotiate h2 by ALPN"
            )
        return negotiated == "h2"
