"""The base class of filters."""

from __future__ import annotations

from collections.abc import Awaitable

from quicedge.filters.context import Context
from quicedge.filters.messages import Request, Response


class Filter:
    """One filter of one route; override what it needs.

    The constructor gets the `options` of the configuration as keyword arguments. What it raises
    refuses the configuration, with its message.

    `on_request` and `on_response` may be coroutine functions; the exchange then waits, within the
    timeout of the filter, and they are cancelled when the client leaves. Others run on the event
    loop of the worker: they must not block. An exception in any of them costs one exchange (500).
    """

    def on_request(
        self, request: Request, context: Context
    ) -> Request | Response | Awaitable[Request | Response | None] | None:
        """Change the request for the origin, or return a response in place of it.

        Requests pass the filters of a route in the order of the configuration. None: go on with
        `request`, which may have been changed.
        """
        return None

    def on_response(
        self, response: Response, context: Context
    ) -> Response | Awaitable[Response | None] | None:
        """Change the head of the response, or return another response.

        Responses pass the filters of a route in reverse, wherever they come from: the origin, a
        filter, or the edge (an error). None: go on with `response`, which may have been changed.
        """
        return None

    def on_done(self, context: Context) -> None:
        """The exchange has ended: its outcome is known. Called once per request, last."""

    def close(self) -> None:
        """The configuration is no longer used, and no exchange with it is left."""
