"""Whether the filters of routes can be built: their files, pages and libraries."""

from __future__ import annotations

from collections.abc import Iterator

from quicedge.cli.findings.finding import Finding, Level
from quicedge.config.schema import Config
from quicedge.proxy.filters.build_route import unusable_filters


def of_workers(config: Config) -> Iterator[Finding]:
    """Filters that cannot be built; call this as the user that workers run as."""
    count = len(config.filters) + sum(len(route.filters) for route in config.routes)
    if not count:
        return
    unusable = list(unusable_filters(config))
    for error in unusable:
        yield Finding(Level.ERROR, error.key, error.reason)
    if not unusable:
        yield Finding(Level.OK, "filters", f"all {count} can be built")
