"""A named group of origin servers."""

from __future__ import annotations

import asyncio
from itertools import count

from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.message import Request
from quicedge.upstream.base import OriginStream, ResponseHandler
from quicedge.upstream.server import Server, parse_server
from quicedge.upstream.stream import UpstreamStream


class Upstream:
    """Opens requests on its servers, one after the other (round robin)."""

    def __init__(
        self, name: str, config: UpstreamConfig, *, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        loop = loop or asyncio.get_running_loop()
        self.name = name
        self.config = config
        self.retries = 0
        self.servers = [Server(parse_server(url), config, loop) for url in config.servers]
        self._turn = count()

    def open(self, request: Request, handler: ResponseHandler) -> OriginStream:
        """Send a request; what comes of it, failures too, is told to the handler."""
        stream = UpstreamStream(self, request, handler)
        stream.start()
        return stream

    def choose(self, avoid: Server | None = None) -> Server:
        """The server whose turn it is; another than `avoid` when there is one."""
        server = self.servers[next(self._turn) % len(self.servers)]
        if server is avoid and len(self.servers) > 1:
            server = self.servers[next(self._turn) % len(self.servers)]
        return server

    def stats(self) -> dict[str, dict[str, int]]:
        """Counters by server."""
        return {server.address.text: server.stats() for server in self.servers}

    def retire(self) -> None:
        """No new request will come: let idle connections go, leave running ones alone."""
        for server in self.servers:
            server.close_idle()

    async def close(self) -> None:
        for server in self.servers:
            await server.close()
