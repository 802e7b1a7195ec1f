"""A server of an upstream with all that belongs to it."""

from __future__ import annotations

import asyncio
import ssl

import msgspec

from quicedge.config.schema import OriginProtocol
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.message import Request
from quicedge.upstream.address import Address
from quicedge.upstream.base import OriginStream, ResponseHandler
from quicedge.upstream.connect import Connector
from quicedge.upstream.deadline import DeadlinePool
from quicedge.upstream.health import Prober
from quicedge.upstream.selection import Selection
from quicedge.upstream.server import Server
from quicedge.upstream.stream import UpstreamStream


class OneServer:
    """A single server as the target of health checks, regardless of its health."""

    def __init__(
        self,
        server: Server,
        config: UpstreamConfig,
        loop: asyncio.AbstractEventLoop,
        deadlines: DeadlinePool,
    ) -> None:
        # One attempt: a failure is the result.
        self.config = msgspec.structs.replace(config, retries=0)
        self.loop = loop
        self.deadlines = deadlines
        self.selection = Selection((server,), self.config)

    def open(self, request: Request, handler: ResponseHandler) -> OriginStream:
        """Send a request to this server."""
        stream = UpstreamStream(self, request, handler)
        stream.start()
        return stream


class TlsContexts:
    """For connections to the servers of an upstream; None where no server has TLS."""

    def __init__(self, requests: ssl.SSLContext | None, tunnels: ssl.SSLContext | None) -> None:
        self.requests = requests
        self.tunnels = tunnels
        """Of a second pool, of HTTP/1.1, where ALPN decides the version of the first.

        Every origin that serves WebSockets at all does so in HTTP/1.1; few that speak HTTP/2 also
        offer extended CONNECT (RFC 8441).
        """


class Member:
    """A server, its pool of connections for tunnels if it needs one, and its health checks.

    `depart` when it is no member anymore, `retire` or `stop` with the whole upstream; `stop`
    precedes `close`.
    """

    def __init__(
        self,
        address: Address,
        config: UpstreamConfig,
        tls: TlsContexts,
        loop: asyncio.AbstractEventLoop,
        deadlines: DeadlinePool,
    ) -> None:
        context = tls.requests if address.tls else None
        connector = Connector(address, config, context)
        self.server = Server(address, config, connector, loop)
        self.pools: tuple[Server, ...] = (self.server,)
        if address.tls and tls.tunnels is not None:
            http1 = msgspec.structs.replace(config, protocol=OriginProtocol.HTTP_1_1)
            connector = Connector(address, http1, tls.tunnels)
            self.server.tunnels = Server(address, http1, connector, loop, main=self.server)
            self.pools += (self.server.tunnels,)
        self._prober: Prober | None = None
        if config.health_path is not None:
            opener = OneServer(self.server, config, loop, deadlines).open
            self._prober = Prober(address, config, self.server.health, opener, loop)

    @property
    def is_empty(self) -> bool:
        """Whether no connection is left."""
        return all(pool.is_empty for pool in self.pools)

    def depart(self) -> None:
        """Finish what runs; requests that wait go to other servers."""
        self._stop_checking()
        for pool in self.pools:
            pool.depart()

    def retire(self) -> None:
        """Finish what is on its way."""
        self._stop_checking()
        for pool in self.pools:
            pool.retire()

    def stop(self) -> None:
        """Finish what runs; requests that wait fail."""
        self._stop_checking()
        for pool in self.pools:
            pool.stop()

    def _stop_checking(self) -> None:
        if self._prober is not None:
            self._prober.close()
            self._prober = None

    async def close(self, grace: float) -> None:
        """Wait up to `grace` seconds for running requests, then fail the rest."""
        await asyncio.gather(*(pool.close(grace) for pool in self.pools))
