"""A stand-in for an upstream that cannot be built: only its routes answer 503."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, HttpVersion, Request
from quicedge.shares import Client
from quicedge.upstream.base import OriginStream, ResponseHandler, UpstreamError
from quicedge.upstream.proxy_header import Peer


class UnusableUpstream:
    """Fails every request with the reason; has the interface of `group.Upstream`.

    The next reload tries to build the upstream again.
    """

    def __init__(
        self, name: str, config: UpstreamConfig, reason: str, *, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.name = name
        self.config = config
        self.reason = reason
        self.loop = loop

    def open(
        self,
        request: Request,
        handler: ResponseHandler,
        client: Client | None = None,
        peer: Peer | None = None,
    ) -> OriginStream:
        """Fail a request; the handler is called after this returns."""
        return FailedStream(self.loop, handler, UpstreamError(OriginFailure.NO_SERVER, self.reason))

    @property
    def is_usable(self) -> bool:
        """Whether a reload may keep it."""
        return False

    @property
    def is_contended(self) -> bool:
        """Whether requests wait for resources that others hold."""
        return False

    def reclaim(self) -> None:
        """Nothing to do."""

    def stats(self) -> dict[str, dict[str, int]]:
        """Empty: there are no servers."""
        return {}

    def retire(self) -> None:
        """Nothing to do."""

    async def close(self, grace: float = 0.0) -> None:
        """Nothing to do."""


class FailedStream:
    """The `OriginStream` of a failed request."""

    stalled = False
    server = ""
    queue_seconds = 0.0
    connect_seconds = 0.0
    http_version: HttpVersion | None = None
    scheme = ""
    retries = 0

    def __init__(
        self, loop: asyncio.AbstractEventLoop, handler: ResponseHandler, error: UpstreamError
    ) -> None:
        self._telling = loop.call_soon(handler.failed, error)

    def write(self, data: bytes) -> None:
        """Ignored."""

    def end(self, trailers: Sequence[Field] = ()) -> None:
        """Ignored."""

    def abort(self) -> None:
        self._telling.cancel()

    def pause(self) -> None:
        """There is no response to pause."""

    def resume(self) -> None:
        """There is no response to resume."""
