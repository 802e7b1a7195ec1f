"""Builds the filters of routes from their configuration."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from quicedge.config import filters as settings
from quicedge.config.filterlimits import PAGE_MAX_SIZE
from quicedge.config.filters import FilterEntry
from quicedge.config.schema import Config
from quicedge.config.unusable import UnusableError
from quicedge.http.message import Request
from quicedge.proxy.exchange import Exchange, Origin
from quicedge.proxy.filters.access import Access
from quicedge.proxy.filters.basic_auth import BasicAuth
from quicedge.proxy.filters.buffer import Buffer
from quicedge.proxy.filters.compress import MODULES, Compress, compressing_pool
from quicedge.proxy.filters.cors import Cors
from quicedge.proxy.filters.early_hints import EarlyHints
from quicedge.proxy.filters.forward_auth import ForwardAuth
from quicedge.proxy.filters.headers import RequestHeaders, ResponseHeaders
from quicedge.proxy.filters.pages import ErrorPages, Maintenance, Page
from quicedge.proxy.filters.passwords import read_htpasswd
from quicedge.proxy.filters.redirect import Redirect, Respond
from quicedge.proxy.filters.rewrite import Rewrite
from quicedge.proxy.filters.route_filter import RouteFilter
from quicedge.proxy.filters.security_headers import SecurityHeaders
from quicedge.proxy.reply import Reply, text_reply
from quicedge.proxy.spill import SpillPools
from quicedge.shares import Pool
from quicedge.telemetry.outcomes import Outcome

log = structlog.get_logger(__name__)

RouteFilters = dict[int, tuple[RouteFilter, ...]]
"""The filters of each route that has any, by the identity of the route: equal routes may occur in
different configurations."""


@dataclass(frozen=True)
class Resources:
    """What filters share."""

    upstreams: Mapping[str, Origin]
    compressing: Pool
    spilling: SpillPools


def build_route_filters(
    config: Config, upstreams: Mapping[str, Origin], *, tolerant: bool = False
) -> RouteFilters:
    """Build the filters of all routes; raises UnusableError.

    Those of the top level are built once, and are in front of the route's own. `tolerant`: what
    cannot be built is logged, and answers 503 in its place.
    """
    resources = Resources(upstreams, compressing_pool(), SpillPools.of_worker())
    build = _tolerant if tolerant else _build
    common = tuple(build("filters", config.filters, resources))
    built: RouteFilters = {}
    for index, route in enumerate(config.routes):
        own = tuple(build(f"routes[{index}].filters", route.filters, resources))
        if common or own:
            built[id(route)] = (*common, *own)
    return built


def _build(
    where: str, entries: Sequence[FilterEntry], resources: Resources
) -> Iterator[RouteFilter]:
    for index, entry in enumerate(entries):
        yield from _build_one(f"{where}[{index}]", entry, resources)


def _tolerant(
    where: str, entries: Sequence[FilterEntry], resources: Resources
) -> Iterator[RouteFilter]:
    for index, entry in enumerate(entries):
        try:
            yield from tuple(_build_one(f"{where}[{index}]", entry, resources))
        except UnusableError as error:
            log.error("filter unusable; its routes answer 503", reason=str(error))
            unusable = UnusableFilter(str(error))
            unusable.name = f"{where}[{index}] ({entry.kind})"
            yield unusable


def _build_one(where: str, entry: FilterEntry, resources: Resources) -> Iterator[RouteFilter]:
    kind = entry.kind
    for built in _BUILDERS[kind](getattr(entry, kind), f"{where}.{kind}", resources):
        built.name = f"{where} ({kind})"
        yield built


class UnusableFilter(RouteFilter):
    """Takes the place of a filter that cannot be built: no request may pass without it."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def on_request(self, request: Request, exchange: Exchange) -> Reply:
        return text_reply(503, outcome=Outcome.FILTER_FAILED, reason=self._reason)


# --- kinds ----------------------------------------------------------------------------------------

Builder = Callable[[Any, str, Resources], Iterator[RouteFilter]]


def _simple(kind: Callable[[Any], RouteFilter]) -> Builder:
    """The builder of filters that need nothing but their settings."""
    return lambda given, where, resources: iter((kind(given),))


def _headers(given: settings.Headers, where: str, resources: Resources) -> Iterator[RouteFilter]:
    if given.request is not None:
        yield RequestHeaders(given.request)
    if given.response is not None:
        yield ResponseHeaders(given.response)


def _compress(given: settings.Compress, where: str, resources: Resources) -> Iterator[RouteFilter]:
    wanted = given.encodings
    installed = [name for name in wanted or MODULES if importlib.util.find_spec(MODULES[name])]
    if wanted is not None and len(installed) < len(wanted):
        raise UnusableError(f"{where}.encodings", "requires `pip install 'quicedge[compression]'`")
    yield Compress(given, [name.encode() for name in installed], resources.compressing)


def _basic_auth(
    given: settings.BasicAuth, where: str, resources: Resources
) -> Iterator[RouteFilter]:
    users = {name.encode(): hashed.encode() for name, hashed in given.users.items()}
    if given.htpasswd is not None:
        try:
            users |= read_htpasswd(given.htpasswd)
        except (OSError, ValueError) as error:
            raise UnusableError(f"{where}.htpasswd", _reason(given.htpasswd, error)) from None
    yield BasicAuth(given, users)


def _forward_auth(
    given: settings.ForwardAuth, where: str, resources: Resources
) -> Iterator[RouteFilter]:
    yield ForwardAuth(given, resources.upstreams[given.upstream])


def _buffer(given: settings.Buffer, where: str, resources: Resources) -> Iterator[RouteFilter]:
    yield Buffer(given, resources.spilling)


def _error_pages(
    given: settings.ErrorPages, where: str, resources: Resources
) -> Iterator[RouteFilter]:
    pages = {key: _page(f"{where}.pages.{key}", name) for key, name in given.pages.items()}
    yield ErrorPages(given, pages)


def _maintenance(
    given: settings.Maintenance, where: str, resources: Resources
) -> Iterator[RouteFilter]:
    page = None if given.page is None else _page(f"{where}.page", given.page)
    yield Maintenance(given, page)


def _page(where: str, name: str) -> Page:
    """The page in a file; raises UnusableError."""
    try:
        with open(name, "rb") as file:
            body = file.read(PAGE_MAX_SIZE + 1)
    except OSError as error:
        raise UnusableError(where, _reason(name, error)) from None
    if len(body) > PAGE_MAX_SIZE:
        raise UnusableError(where, f"{name} has more than {PAGE_MAX_SIZE} bytes")
    return Page.of(name, body)


def _reason(name: str, error: Exception) -> str:
    return f"{name}: {error.strerror}" if isinstance(error, OSError) else str(error)


_BUILDERS: dict[str, Builder] = {
    "redirect": _simple(Redirect),
    "respond": _simple(Respond),
    "rewrite": _simple(Rewrite),
    "headers": _headers,
    "compress": _compress,
    "access": _simple(Access),
    "cors": _simple(Cors),
    "security_headers": _simple(SecurityHeaders),
    "basic_auth": _basic_auth,
    "forward_auth": _forward_auth,
    "buffer": _buffer,
    "early_hints": _simple(EarlyHints),
    "error_pages": _error_pages,
    "maintenance": _maintenance,
}
