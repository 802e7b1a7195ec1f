"""The phases of the edge's own filters, and the chain that runs them.

Those of a route's filters are in `route_filter`. A filter overrides the phases it needs, and a
chain calls only those: a phase without filters costs an empty loop. Filters keep no state per
exchange: later phases read the exchange.

Per exchange the phases run in this order, each at most once: `on_accept`, `on_request` (not if the
edge answers the request itself), `on_response` (not if there is no response), `on_done`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from quicedge.http.forwarding import Reserved
from quicedge.http.message import Request, Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.phases import Phases
from quicedge.proxy.filters.run import FilterRun


class Filter:
    """One concern, applied to every exchange."""

    reserved: ClassVar[frozenset[bytes]] = frozenset()
    """Request fields that only this filter may write: those of clients are dropped."""

    def on_accept(self, exchange: Exchange) -> None:
        """A request was accepted."""

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        """Return the head for the origin: `request` or another one."""
        return request

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        """Return the final head for the client; `response` is from the origin or the edge."""
        return response

    def on_done(self, exchange: Exchange) -> None:
        """The exchange has ended."""


class FilterChain:
    """The edge's own filters, in the order in which both requests and responses pass them, and
    the filters of a route."""

    __slots__ = (
        "_accept", "_done", "_filters", "_phases", "_request", "_response", "has_route_filters",
        "reserved",
    )  # fmt: skip

    def __init__(
        self,
        filters: Sequence[Filter] = (),
        reserved: Reserved | None = None,
        phases: Phases | None = None,
    ) -> None:
        """`phases`: the filters of a route, which exchanges pass in addition."""
        self.reserved = reserved or Reserved()
        """Request trailers that are dropped if a client sends them."""
        self.has_route_filters = phases is not None
        self._filters = filters
        self._phases = phases
        self._accept = tuple(f.on_accept for f in filters if _has(f, "on_accept"))
        self._request = tuple(f.on_request for f in filters if _has(f, "on_request"))
        self._response = tuple(f.on_response for f in filters if _has(f, "on_response"))
        self._done = tuple(f.on_done for f in filters if _has(f, "on_done"))

    def with_phases(self, phases: Phases) -> FilterChain:
        """The chain of a route: these filters, and those of the route."""
        return FilterChain(self._filters, self.reserved.with_further(phases.written), phases)

    def with_filter(self, added: Filter) -> FilterChain:
        """These filters and another one."""
        return FilterChain((*self._filters, added), self.reserved, self._phases)

    def new_run(self, exchange: Exchange) -> FilterRun:
        """The way of an exchange through the filters of the route."""
        assert self._phases is not None
        return FilterRun(exchange, self._phases)

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
        if self._phases is not None:
            self._phases.on_done(exchange)


def _has(item: Filter, phase: str) -> bool:
    return getattr(type(item), phase) is not getattr(Filter, phase)
