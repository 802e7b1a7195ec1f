"""A request of the edge's own, and the response to it as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from quicedge.http.message import Field, Request, Response
from quicedge.proxy.exchange import Exchange, Origin
from quicedge.proxy.reply import Reply
from quicedge.upstream.base import UpstreamError, in_pieces


class ResponseTooLarge(Exception):
    """The response has more content than the edge keeps."""


class _Collector:
    """Takes a response (`upstream.base.ResponseHandler`)."""

    def __init__(self, max_size: int) -> None:
        self.done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._response: Response | None = None
        self._body = bytearray()
        self._max_size = max_size

    def informational(self, response: Response) -> None: ...

    def response(self, response: Response) -> None:
        self._response = response

    def data(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > self._max_size and not self.done.done():
            self.done.set_exception(ResponseTooLarge(f"more than {self._max_size} bytes"))

    def end(self, trailers: Sequence[Field]) -> None:
        if not self.done.done():
            assert self._response is not None
            self.done.set_result(Reply(self._response, bytes(self._body)))

    def whole(self, response: Response, data: bytes) -> None:
        in_pieces(self, response, data)

    def failed(self, error: UpstreamError) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def pause_request(self) -> None: ...

    def resume_request(self) -> None: ...


async def fetch(origin: Origin, request: Request, exchange: Exchange, max_size: int) -> Reply:
    """The response to a request without a body, sent on behalf of an exchange.

    Raises UpstreamError or ResponseTooLarge; the request is abandoned if the caller is cancelled.
    """
    collector = _Collector(max_size)
    stream = origin.open(request, collector, exchange.client.share, exchange.client)
    try:
        return await collector.done
    except BaseException:
        stream.abort()
        raise
