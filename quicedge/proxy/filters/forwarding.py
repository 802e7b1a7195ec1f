"""The obligations of an intermediary: hop-by-hop fields, Via, Date, Forwarded."""

from __future__ import annotations

from collections.abc import Callable

from quicedge.http import semantics
from quicedge.http.forwarding import Reserved
from quicedge.http.message import Request, Response
from quicedge.proxy.client import host_of
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.base import Filter


class Forwarding(Filter):
    """The first filter of every chain: later ones add to what it lets through, which is their own
    to change.

    `reserved`: the reserved request fields of all filters. `date` returns the current time as an
    HTTP date.
    """

    def __init__(self, reserved: Reserved, date: Callable[[], bytes]) -> None:
        self._reserved = reserved
        self._host: str | None = None
        """The address of the client of the last request."""
        self._context = semantics.EdgeContext("", reserved=reserved)
        """The context of the last request."""
        self._date = date

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        client = exchange.client
        context = self._context
        address, version = client.address, client.http_version
        # Consecutive requests often come from one client.
        if (
            address is None
            or address[0] != self._host
            or context.early_data is not exchange.early_data
            or context.version != version
        ):
            self._host = None if address is None else address[0]
            context = self._context = semantics.EdgeContext(
                host_of(client), exchange.early_data, version, self._reserved
            )
        return semantics.request_to_origin(request, context)

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        return semantics.response_to_client(response, self._date())
