"""Pages in place of errors, and of everything during maintenance."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quicedge.config import filters as config
from quicedge.config.filterlimits import PAGE_MAX_SIZE
from quicedge.config.unusable import UnusableError
from quicedge.http.media_types import content_type
from quicedge.http.message import Fields, Request, Response
from quicedge.proxy.client import host_of
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.resources import Resources, reason_of
from quicedge.proxy.filters.route_filter import RequestResult, ResponseResult, RouteFilter
from quicedge.proxy.reply import Reply, text_reply
from quicedge.shares.prefixes import Networks, packed


@dataclass(frozen=True, slots=True)
class Page:
    """A page that is kept in memory."""

    body: bytes
    media_type: bytes

    @classmethod
    def of(cls, name: str, body: bytes) -> Page:
        """The page in a file of that name."""
        return cls(body, content_type(name.encode()))


_KEPT = frozenset(
    (
        b"allow", b"alt-svc", b"date", b"location", b"proxy-authenticate", b"retry-after",
        b"set-cookie", b"via", b"www-authenticate",
    )
)  # fmt: skip
"""Fields that belong to a status and not to the content that is replaced."""


class ErrorPages(RouteFilter):
    """Replaces the content of error responses: those of the edge, or of the origin too."""

    def __init__(self, settings: config.ErrorPages, pages: Mapping[str, Page]) -> None:
        self._pages = {int(key): page for key, page in pages.items() if key.isdigit()}
        self._classes = {int(key[0]): page for key, page in pages.items() if not key.isdigit()}
        self._of_origin = settings.origin

    def on_response(self, response: Response, exchange: Exchange) -> ResponseResult:
        status = response.status
        if status < 400 or (exchange.first_byte_at is not None and not self._of_origin):
            return response
        page = self._pages.get(status) or self._classes.get(status // 100)
        if page is None:
            return response
        fields: Fields = [line for line in response.fields if line[0] in _KEPT]
        fields.append((b"content-type", page.media_type))
        fields.append((b"cache-control", b"no-store"))
        return Reply(Response(status, fields, response.version), page.body)


class Maintenance(RouteFilter):
    """Answers 503 while a file exists, to all but a few clients."""

    def __init__(self, settings: config.Maintenance, page: Page | None) -> None:
        self._switch = settings.while_exists
        self._page = page
        self._fields: Fields = [(b"cache-control", b"no-store")]
        if settings.retry_after is not None:
            self._fields.append((b"retry-after", b"%d" % settings.retry_after))
        self._allow = Networks(settings.allow)

    def on_request(self, request: Request, exchange: Exchange) -> RequestResult:
        if self._switch is not None and not os.path.exists(self._switch):
            return request
        if self._allow and self._allow.longest(packed(host_of(exchange.client))) >= 0:
            return request
        if self._page is None:
            return text_reply(503, list(self._fields), reason="maintenance")
        fields = [(b"content-type", self._page.media_type), *self._fields]
        return Reply(Response(503, fields), self._page.body, reason="maintenance")


def build_error_pages(
    given: config.ErrorPages, where: str, resources: Resources
) -> Iterator[RouteFilter]:
    """Raises UnusableError if a page cannot be read."""
    pages = {key: _read_page(f"{where}.pages.{key}", name) for key, name in given.pages.items()}
    yield ErrorPages(given, pages)


def build_maintenance(
    given: config.Maintenance, where: str, resources: Resources
) -> Iterator[RouteFilter]:
    """Raises UnusableError if the page cannot be read."""
    yield Maintenance(
        given, None if given.page is None else _read_page(f"{where}.page", given.page)
    )


def _read_page(where: str, name: str) -> Page:
    try:
        with open(name, "rb") as file:
            body = file.read(PAGE_MAX_SIZE + 1)
    except OSError as error:
        raise UnusableError(where, reason_of(name, error)) from None
    if len(body) > PAGE_MAX_SIZE:
        raise UnusableError(where, f"{name} has more than {PAGE_MAX_SIZE} bytes")
    return Page.of(name, body)
