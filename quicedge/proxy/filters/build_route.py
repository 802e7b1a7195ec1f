"""Builds the filters of routes from their configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from quicedge.config.filters import FilterEntry, Headers
from quicedge.config.schema import Config
from quicedge.proxy.filters.headers import RequestHeaders, ResponseHeaders
from quicedge.proxy.filters.redirect import Redirect, Respond
from quicedge.proxy.filters.rewrite import Rewrite
from quicedge.proxy.filters.route_filter import RouteFilter

RouteFilters = dict[int, tuple[RouteFilter, ...]]
"""The filters of each route that has any, by the identity of the route: equal routes may occur in
different configurations."""


def build_route_filters(config: Config) -> RouteFilters:
    """Build the filters of all routes; raises UnusableError.

    Those of the top level are built once, and are in front of the route's own.
    """
    common = tuple(_build_all("filters", config.filters))
    built: RouteFilters = {}
    for index, route in enumerate(config.routes):
        own = tuple(_build_all(f"routes[{index}].filters", route.filters))
        if common or own:
            built[id(route)] = (*common, *own)
    return built


def _build_all(where: str, entries: Sequence[FilterEntry]) -> Iterator[RouteFilter]:
    for index, entry in enumerate(entries):
        kind = entry.kind
        for built in _BUILDERS[kind](getattr(entry, kind)):
            built.name = f"{where}[{index}] ({kind})"
            yield built


def _headers(settings: Headers) -> Iterator[RouteFilter]:
    if settings.request is not None:
        yield RequestHeaders(settings.request)
    if settings.response is not None:
        yield ResponseHeaders(settings.response)


_BUILDERS: dict[str, Callable[[Any], Iterator[RouteFilter]]] = {
    "redirect": lambda settings: iter((Redirect(settings),)),
    "respond": lambda settings: iter((Respond(settings),)),
    "rewrite": lambda settings: iter((Rewrite(settings),)),
    "headers": _headers,
}
