"""What a configuration has series of, by name."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

from quicedge.config.filters import Python
from quicedge.config.routes import route_text
from quicedge.config.schema import Config

NO_ROUTE = "none"
"""The label of requests that no route is for."""


class SeriesNames(NamedTuple):
    """The values of labels."""

    routes: list[str]
    upstreams: list[str]
    filters: set[str]
    """Those written in Python."""
    listeners: set[str]
    """Addresses."""


def series_names(config: Config, listeners: Iterable[str] = ()) -> SeriesNames:
    """The routes, upstreams and filters of a configuration, and where it listens."""
    entries = chain(config.filters, *(route.filters for route in config.routes))
    return SeriesNames(
        routes=[NO_ROUTE, *map(route_text, config.routes)],
        upstreams=list(config.upstreams),
        filters={entry.python.filter for entry in entries if isinstance(entry.python, Python)},
        listeners=set(listeners),
    )
