"""Exceptions of whoever handles a response, as failures of the request."""

from __future__ import annotations

import asyncio

from quicedge.http.errors import OriginFailure
from quicedge.http.validation import MessageError
from quicedge.upstream.base import UpstreamError


def failure_of(cause: BaseException | None, loop: asyncio.AbstractEventLoop) -> UpstreamError:
    """How a request fails by an exception in handling its response; logs unexpected ones."""
    if isinstance(cause, UpstreamError):
        return cause
    if isinstance(cause, MessageError):
        return UpstreamError(OriginFailure.PROTOCOL, str(cause))
    context = {"message": "handling a response failed", "exception": cause}
    loop.call_exception_handler(context)
    return UpstreamError(OriginFailure.RESET, "internal error")
