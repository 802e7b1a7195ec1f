"""The stand-in for an upstream that cannot be built: its routes answer 503, the others are well."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, HttpVersion, Request
from quicedge.shares import Client
from quicedge.upstream.base import OriginStream, ResponseHandler, UpstreamError


class UnusableUpstream:
    """Fails every request with the reason (as `group.Upstream` opens them on its servers).

    Until the next reload: that builds the upstream again.
    """

    def __init__(
        self, name: str, config: UpstreamConfig, reason: str, *, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.name = name
        self.config = config
        self.reason = reason
        self.loop = loop

    def open(
        self, request: Request, handler: ResponseHandler, client: Client | None = None
    ) -> OriginStream:
        """Fail a request; the handler is told after this returns."""
        return _FailedStream(self, handler)

    @property
    def is_contended(self) -> bool:
        """Whether requests wait for what others hold."""
        return False

    def reclaim(self) -> None:
        """Nothing is held."""

    def stats(self) -> dict[str, dict[str, int]]:
        """No server, no figures."""
        return {}

    def retire(self) -> None:
        """Nothing is held."""

    async def close(self, grace: float = 0.0) -> None:
        """Nothing is held."""


class _FailedStream:
    """The `OriginStream` of a request that goes nowhere."""

    stalled = False
    server = ""
    queue_seconds = 0.0
    connect_seconds = 0.0
    http_version: HttpVersion | None = None
    scheme = ""
    retries = 0

    def __init__(self, upstream: UnusableUpstream, handler: ResponseHandler) -> None:
        self._telling = upstream.loop.call_soon(
            handler.failed, UpstreamError(OriginFailure.NO_SERVER, upstream.reason)
        )

    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    def end(self, trailers: Sequence[Field] = ()) -> None:
        """Nobody reads it."""

    def abort(self) -> None:
        self._telling.cancel()

    def pause(self) -> None:
        """There is no response to hold back."""

    def resume(self) -> None:
        """There is no response to go on with."""
