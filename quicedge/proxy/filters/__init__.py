"""Filters: objects with phases, built once per configuration, that exchanges pass through."""

from quicedge.proxy.filters.base import Filter, FilterChain
from quicedge.proxy.filters.build import build_filters
from quicedge.proxy.filters.build_route import RouteFilters, build_route_filters
from quicedge.proxy.filters.phases import Phases
from quicedge.proxy.filters.route_filter import RouteFilter

__all__ = [
    "Filter", "FilterChain", "Phases", "RouteFilter", "RouteFilters", "build_filters",
    "build_route_filters",
]  # fmt: skip
