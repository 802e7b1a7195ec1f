"""Builds the filters of routes from their configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import structlog

from quicedge.config.filters import FilterEntry
from quicedge.config.schema import Config
from quicedge.config.unusable import UnusableError
from quicedge.http.message import Request
from quicedge.proxy.exchange import Exchange, Origin
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RouteFilter
from quicedge.proxy.reply import Reply, text_reply
from quicedge.telemetry.outcomes import Outcome
from quicedge.upstream.base import OriginStream

log = structlog.get_logger(__name__)

RouteFilters = dict[int, tuple[RouteFilter, ...]]
"""The filters of each route that has any, by the identity of the route: equal routes may occur in
different configurations."""


def build_route_filters(
    config: Config, upstreams: Mapping[str, Origin], *, tolerant: bool = False
) -> RouteFilters:
    """Build the filters of all routes; raises UnusableError.

    Those of the top level are built once, and are in front of the route's own. `tolerant`: what
    cannot be built is logged, and answers 503 in its place.
    """
    if not config.filters and not any(route.filters for route in config.routes):
        return {}
    resources = Resources(config, upstreams)
    build = _tolerant if tolerant else _build
    built: RouteFilters = {}
    try:
        common = tuple(build("filters", config.filters, resources))
        for index, route in enumerate(config.routes):
            own = tuple(build(f"routes[{index}].filters", route.filters, resources))
            if common or own:
                built[id(route)] = (*common, *own)
    except UnusableError:
        for item in resources.built:
            item.retired()
        raise
    return built


def unusable_filters(config: Config) -> Iterator[UnusableError]:
    """Why filters cannot be built, one by one, without any that stays."""
    resources = Resources(config, dict.fromkeys(config.upstreams, _NoOrigin()))
    places = [("filters", config.filters)]
    places += [(f"routes[{at}].filters", route.filters) for at, route in enumerate(config.routes)]
    for where, entries in places:
        for index, entry in enumerate(entries):
            try:
                list(_build_one(f"{where}[{index}]", entry, resources))
            except UnusableError as error:
                yield error
    for item in resources.built:
        item.retired()


class _NoOrigin:
    """An upstream that is never asked."""

    def open(self, *_: object) -> OriginStream:
        raise AssertionError("filters open requests when there are some")


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
    for built in _builder(kind)(getattr(entry, kind), f"{where}.{kind}", resources):
        built.name = f"{where} ({kind})"
        resources.built.append(built)
        yield built


class UnusableFilter(RouteFilter):
    """Takes the place of a filter that cannot be built: no request may pass without it."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def on_request(self, request: Request, exchange: Exchange) -> Reply:
        return text_reply(503, outcome=Outcome.FILTER_FAILED, reason=self._reason)


Builder = Callable[[Any, str, Resources], Iterator[RouteFilter]]
"""Builds the filters of an entry from its settings, and the place of those for messages."""

_BUILDERS = {
    "redirect": "redirect:build_redirect",
    "respond": "redirect:build_respond",
    "rewrite": "rewrite:build",
    "rewrite_location": "rewrite_location:build",
    "rewrite_cookies": "rewrite_cookies:build",
    "headers": "headers:build",
    "compress": "compress:build",
    "access": "access:build",
    "cors": "cors:build",
    "security_headers": "security_headers:build",
    "basic_auth": "basic_auth:build",
    "forward_auth": "forward_auth:build",
    "buffer": "buffer:build",
    "early_hints": "early_hints:build",
    "error_pages": "pages:build_error_pages",
    "maintenance": "pages:build_maintenance",
    "mirror": "mirror:build",
    "python": "python_class:build",
}
"""Module and function by kind: a worker imports what is configured, and no more."""


def _builder(kind: str) -> Builder:
    module, _, name = _BUILDERS[kind].partition(":")
    builder: Builder = getattr(import_module(f"quicedge.proxy.filters.{module}"), name)
    return builder
