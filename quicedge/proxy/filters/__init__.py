"""Filters: objects with phases, built once per configuration, that exchanges pass through."""

from quicedge.proxy.filters.base import Filter, FilterChain
from quicedge.proxy.filters.build import build_filters

__all__ = ["Filter", "FilterChain", "build_filters"]
