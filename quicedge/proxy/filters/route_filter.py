"""The phases of the filters of a route (`[[routes.filters]]`).

Requests pass the filters of a route in the order of the configuration. Every final response passes
them in reverse, wherever it comes from: the origin, a filter (`Reply`), or the edge itself (an
error). A phase may return an awaitable; the exchange then waits for it, for `timeout` seconds at
most: the body of the request is held back and the origin paused meanwhile, and the awaitable is
cancelled when the client leaves.

An exception costs the exchange in which it was raised: 500, or a reset if the response has begun.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from quicedge.config.filterlimits import FILTER_TIMEOUT
from quicedge.http.message import Request, Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.reply import Reply
from quicedge.telemetry.metrics import Metrics

RequestResult: TypeAlias = Request | Reply
ResponseResult: TypeAlias = Response | Reply


class RouteFilter:
    """One filter of one route, built when a configuration is loaded; it overrides what it needs.

    It keeps no state of an exchange: later phases read `exchange.request`, the request as the
    client has sent it, and a body stage keeps its own state. To change a body, a phase adds a
    `proxy.body.BodyStage` to `exchange.run`, and removes or corrects Content-Length.
    """

    name = ""
    """Where it is configured and what it is, for logs: `routes[0].filters[1] (redirect)`."""
    written: frozenset[bytes] = frozenset()
    """Names of request fields that it sets or removes: clients do not send them as trailers."""
    timeout: float | None = FILTER_TIMEOUT
    """Seconds that a phase may take; None: its own limits bound it."""

    def adopted(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        """Its configuration is in use from now on; may be called for each route that has it."""

    def retired(self) -> None:
        """Its configuration is no longer used for new exchanges; likewise."""

    def on_request(
        self, request: Request, exchange: Exchange
    ) -> RequestResult | Awaitable[RequestResult]:
        """Return the request for the origin, or a reply in place of it.

        `request` has passed the edge's own filters: it has forwarding fields, and no fields that
        only the edge may write.
        """
        return request

    def on_response(
        self, response: Response, exchange: Exchange
    ) -> ResponseResult | Awaitable[ResponseResult]:
        """Return the head for the client, or a reply in place of the whole response."""
        return response

    def on_done(self, exchange: Exchange) -> None:
        """The exchange has ended."""
