"""What happens to exchanges on their way: objects with phases, built with the configuration."""

from quicedge.proxy.filters.base import Filter, FilterChain
from quicedge.proxy.filters.build import build_filters

__all__ = ["Filter", "FilterChain", "build_filters"]
