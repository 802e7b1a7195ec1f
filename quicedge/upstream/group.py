"""A named group of origin servers."""

from __future__ import annotations

import asyncio
import ssl

import msgspec

from quicedge.config.schema import OriginProtocol
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.config.unusable import UnusableError
from quicedge.http.message import Request
from quicedge.shares import Client
from quicedge.upstream.address import parse_server
from quicedge.upstream.base import OriginStream, ResponseHandler
from quicedge.upstream.connect import Connector, tls_context
from quicedge.upstream.deadline import DeadlinePool
from quicedge.upstream.health import Prober
from quicedge.upstream.proxy_header import Peer
from quicedge.upstream.selection import Selection
from quicedge.upstream.server import Server
from quicedge.upstream.stream import UpstreamStream


class OneServer:
    """A single server as the target of health checks, regardless of its health."""

    def __init__(self, group: Upstream, server: Server) -> None:
        # One attempt: a failure is the result.
        self.config = msgspec.structs.replace(group.config, retries=0)
        self.loop = group.loop
        self.deadlines = group.deadlines
        self.selection = Selection((server,), self.config)

    def open(self, request: Request, handler: ResponseHandler) -> OriginStream:
        """Send a request to this server."""
        stream = UpstreamStream(self, request, handler)
        stream.start()
        return stream


class Upstream:
    """Opens requests on its servers.

    It is immutable: a reload builds a new one and calls `retire` on this one; `close` is the last
    call. Raises UnusableError if a server or the CA file of `config` is invalid.
    """

    def __init__(
        self, name: str, config: UpstreamConfig, *, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self.name = name
        self.config = config
        self.loop = loop or asyncio.get_running_loop()
        self.deadlines = DeadlinePool(self.loop)
        try:
            addresses = [parse_server(origin.url) for origin in config.origins]
        except ValueError as error:
            raise UnusableError(f"upstreams.{name}.servers", error) from None
        tls: ssl.SSLContext | None = None
        if any(address.tls for address in addresses):
            try:
                tls = tls_context(config)
            except ssl.SSLError as error:
                raise UnusableError(
                    f"upstreams.{name}.tls_ca", f"{config.tls_ca}: holds no PEM certificate"
                ) from error
            except OSError as error:
                reason = f"{config.tls_ca}: {error.strerror or error}"
                raise UnusableError(f"upstreams.{name}.tls_ca", reason) from error
        self.servers = tuple(
            Server(
                address,
                config,
                Connector(address, config, tls if address.tls else None),
                self.loop,
                weight=origin.weight,
                tier=origin.tier,
            )
            for address, origin in zip(addresses, config.origins, strict=True)
        )
        self._pools = self.servers
        if tls is not None and config.protocol is OriginProtocol.AUTO:
            self._pools += self._add_tunnel_pools()
        self.selection = Selection(self.servers, config)
        self._probers = [
            Prober(server.address, config, server.health, OneServer(self, server).open, self.loop)
            for server in (self.servers if config.health_path else ())
        ]

    def _add_tunnel_pools(self) -> tuple[Server, ...]:
        """Give origins whose HTTP version ALPN decides a second pool, of HTTP/1.1, for tunnels.

        Every origin that serves WebSockets at all does so in HTTP/1.1; few that speak HTTP/2 also
        offer extended CONNECT (RFC 8441).
        """
        config = msgspec.structs.replace(self.config, protocol=OriginProtocol.HTTP_1_1)
        tls = tls_context(config)
        added = []
        for server in self.servers:
            if server.address.tls:
                connector = Connector(server.address, config, tls)
                pool = Server(server.address, config, connector, self.loop, main=server)
                server.tunnels = pool
                added.append(pool)
        return tuple(added)

    def open(
        self,
        request: Request,
        handler: ResponseHandler,
        client: Client | None = None,
        peer: Peer | None = None,
    ) -> OriginStream:
        """Send a client's request; failures are reported to the handler after this returns."""
        stream = UpstreamStream(self, request, handler, client, peer)
        stream.start()
        return stream

    @property
    def is_usable(self) -> bool:
        """Whether a reload may keep it."""
        return True

    @property
    def is_contended(self) -> bool:
        """Whether requests wait for resources that others hold."""
        return any(pool.is_contended for pool in self._pools)

    def reclaim(self) -> None:
        """Take resources that others wait for from stalled clients; call about once per second."""
        for pool in self._pools:
            pool.reclaim()

    def stats(self) -> dict[str, dict[str, int]]:
        """Gauges and counters per server (`Server.stats`)."""
        return {server.address.text: server.stats() for server in self.servers}

    def retire(self) -> None:
        """Accept no more requests: close idle connections now, the others when they become idle."""
        for prober in self._probers:
            prober.close()
        for pool in self._pools:
            pool.retire()

    async def close(self, grace: float = 0.0) -> None:
        """Retire, wait up to `grace` seconds for running requests, then fail the rest and close."""
        self.retire()
        await asyncio.gather(*(pool.close(grace) for pool in self._pools))
