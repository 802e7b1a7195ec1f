"""The phases of a filter, and the chain that runs them.

A filter overrides the phases it has; a chain calls those alone, so a phase that no filter has costs
an empty loop. Filters keep nothing about an exchange: what a later phase needs stands on the
exchange itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from quicedge.http.forwarding import Reserved
from quicedge.http.message import Request, Response
from quicedge.proxy.exchange import Exchange


class Filter:
    """One concern of many exchanges."""

    reserved: ClassVar[frozenset[bytes]] = frozenset()
    """Request fields that only this filter writes: a client's are dropped."""

    def on_accept(self, exchange: Exchange) -> None:
        """A request was accepted, whatever becomes of it."""

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        """The head as the origin gets it; return it or another one."""
        return request

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        """The final head as the client gets it, the origin's or the edge's own."""
        return response

    def on_done(self, exchange: Exchange) -> None:
        """The exchange is over."""


class FilterChain:
    """Filters in the order in which requests meet them; responses meet them likewise."""

    __slots__ = ("_accept", "_done", "_request", "_response", "reserved")

    def __init__(self, filters: Sequence[Filter] = (), reserved: Reserved | None = None) -> None:
        self.reserved = reserved or Reserved()
        """Request fields, and trailers, that no client may write."""
        self._accept = tuple(f.on_accept for f in filters if _has(f, "on_accept"))
        self._request = tuple(f.on_request for f in filters if _has(f, "on_request"))
        self._response = tuple(f.on_response for f in filters if _has(f, "on_response"))
        self._done = tuple(f.on_done for f in filters if _has(f, "on_done"))

    def on_accept(self, exchange: Exchange) -> None:
        for phase in self._accept:
            phase(exchange)

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        for phase in self._request:
            request = phase(request, exchange)
        return request

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        for phase in self._response:
            response = phase(response, exchange)
        return response

    def on_done(self, exchange: Exchange) -> None:
        for phase in self._done:
            phase(exchange)


def _has(item: Filter, phase: str) -> bool:
    return getattr(type(item), phase) is not getattr(Filter, phase)
