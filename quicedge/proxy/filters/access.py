"""Who may use a route, by address."""

from __future__ import annotations

from collections.abc import Iterator

from quicedge.config import filters as config
from quicedge.http.message import Request
from quicedge.proxy.client import host_of
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RequestResult, RouteFilter
from quicedge.proxy.reply import text_reply
from quicedge.shares.prefixes import AccessList, packed
from quicedge.telemetry.outcomes import Outcome


class Access(RouteFilter):
    """Lets clients of some networks pass; requests wait until the client's address is validated
    (`policy.needs_address`)."""

    def __init__(self, settings: config.Access) -> None:
        self._list = AccessList(settings.allow, settings.deny)

    def on_request(self, request: Request, exchange: Exchange) -> RequestResult:
        if self._list.permits(packed(host_of(exchange.client))):
            return request
        return text_reply(403, outcome=Outcome.DENIED)


def build(given: config.Access, where: str, resources: Resources) -> Iterator[RouteFilter]:
    yield Access(given)
