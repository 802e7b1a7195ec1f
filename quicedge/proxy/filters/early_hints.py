"""103 (Early Hints): what a page needs, before the origin has made it (RFC 8297)."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator

from quicedge.config import filters as config
from quicedge.config.filterlimits import (
    HINTS_MAX_PATH,
    HINTS_MAX_SIZE,
    HINTS_PER_PAGE,
    HINTS_REMEMBERED,
)
from quicedge.http.message import Fields, Request, Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RouteFilter

# Takes linear time: no two parts of it match the same, and none starts within another.
_LINK = re.compile(rb'<[^<>]*>(?:[^,"<]|"[^"]*")*')
_RELATION = re.compile(rb';\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)
_USEFUL = frozenset((b"preload", b"preconnect", b"modulepreload"))

Page = tuple[bytes, bytes]


class EarlyHints(RouteFilter):
    """Remembers the Link fields of pages, and sends those of the last response ahead of the next.

    Not over HTTP/1.1: browsers ignore it there, and some clients take the interim response for the
    final one (RFC 8297 section 3).

    Only what all visitors of a page get is worth remembering, and may be: a response that is
    private, sets a cookie, or answers credentials that the origin has seen, is not looked at.
    """

    def __init__(self, settings: config.EarlyHints) -> None:
        self._pages: OrderedDict[Page, Fields] = OrderedDict()
        self._with_credentials: set[Exchange] = set()
        """Those whose requests go to the origin with Authorization (RFC 9111 section 3.5)."""

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        if request.method == b"GET" and not exchange.speaks_http1 and _navigates(request):
            page = _page(exchange)
            hints = self._pages.get(page)
            if hints is not None:
                self._pages.move_to_end(page)
                exchange.downstream.informational(Response(103, list(hints)))
        if any(name == b"authorization" for name, _ in request.fields):
            self._with_credentials.add(exchange)
        return request

    def on_done(self, exchange: Exchange) -> None:
        self._with_credentials.discard(exchange)

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        request = exchange.request
        if request.method != b"GET" or exchange.first_byte_at is None or response.status != 200:
            return response
        if exchange in self._with_credentials:
            return response
        page = _page(exchange)
        if len(page[1]) > HINTS_MAX_PATH:
            return response
        links: list[bytes] = []
        for name, value in response.fields:
            if name == b"link":
                if len(value) <= HINTS_MAX_SIZE:
                    links += useful_links(value)
            elif name == b"set-cookie" or (name == b"cache-control" and _is_private(value)):
                self._pages.pop(page, None)
                return response
        links = links[:HINTS_PER_PAGE]
        if links and sum(map(len, links)) <= HINTS_MAX_SIZE:
            self._pages[page] = [(b"link", link) for link in links]
            self._pages.move_to_end(page)
            if len(self._pages) > HINTS_REMEMBERED:
                self._pages.popitem(last=False)
        else:
            self._pages.pop(page, None)
        return response


def useful_links(value: bytes) -> list[bytes]:
    """The links of a Link value that a browser can act on before the page is there."""
    found = []
    for match in _LINK.finditer(value):
        link = match[0].strip()
        relation = _RELATION.search(link)
        if relation is None:
            continue
        names = (relation[1] or relation[2] or b"").lower().split()
        if _USEFUL.intersection(names):
            found.append(link)
    return found


def _page(exchange: Exchange) -> Page:
    request = exchange.request
    return request.authority.lower(), request.path.partition(b"?")[0]


def _is_private(value: bytes) -> bool:
    directives = value.lower()
    return b"private" in directives or b"no-store" in directives


def _navigates(request: Request) -> bool:
    """Whether a browser loads a page: only then do hints serve any purpose."""
    return any(name == b"sec-fetch-mode" and value == b"navigate" for name, value in request.fields)


def build(given: config.EarlyHints, where: str, resources: Resources) -> Iterator[RouteFilter]:
    yield EarlyHints(given)
