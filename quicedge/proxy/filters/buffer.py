"""Buffers bodies between slow clients and origins that serve few requests at once."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator

from quicedge.config import filters as config
from quicedge.http.message import Request, Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.buffer_stage import BufferStage
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RequestResult, RouteFilter
from quicedge.proxy.spill import Spill, SpillPools


class Buffer(RouteFilter):
    """Sends requests to the origin when they are complete, and takes responses as fast as the
    origin sends them."""

    timeout = None  # as long as the client keeps sending (`limits.body_timeout`)

    def __init__(self, settings: config.Buffer, pools: SpillPools) -> None:
        self._settings = settings
        self._pools = pools

    def on_request(
        self, request: Request, exchange: Exchange
    ) -> RequestResult | Awaitable[RequestResult]:
        # A tunnel has no end to wait for.
        if not self._settings.request or request.ended or request.protocol is not None:
            return request
        return self._collected(request, exchange)

    async def _collected(self, request: Request, exchange: Exchange) -> RequestResult:
        settings = self._settings
        spill = Spill(settings.memory, self._pools, exchange.client.share)
        fields = request.fields
        if any(name == b"expect" for name, _ in fields):
            # RFC 9110 section 10.1.1: the client waits for it, and the origin will not send it.
            exchange.downstream.informational(Response(100))
            fields = [line for line in fields if line[0] != b"expect"]
        await exchange.collect_request(spill, settings.max_size)
        if request.content_length is None and spill.size:
            fields = [*fields, (b"content-length", b"%d" % spill.size)]
        whole = request.with_fields(fields)
        if spill.size:
            whole.content_length = spill.size
        return whole

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        if self._settings.response:
            spill = Spill(self._settings.memory, self._pools, exchange.client.share)
            assert exchange.run is not None
            stage = BufferStage(spill, self._settings.max_size, exchange.run.guard)
            exchange.transform_response(stage)
        return response


def build(given: config.Buffer, where: str, resources: Resources) -> Iterator[RouteFilter]:
    yield Buffer(given, resources.spilling)
