"""What the filters of a worker are built with, and share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from quicedge.config.filterlimits import COMPRESSING_STREAMS
from quicedge.config.schema import Config
from quicedge.proxy.exchange import Origin
from quicedge.proxy.filters.mounts import Mounts
from quicedge.proxy.filters.route_filter import RouteFilter
from quicedge.proxy.spill import SpillPools
from quicedge.shares import Pool


@dataclass(frozen=True)
class Resources:
    """The upstreams of a configuration, and what all filters of a kind draw from."""

    config: Config
    upstreams: Mapping[str, Origin]
    compressing: Pool = field(default_factory=lambda: Pool(COMPRESSING_STREAMS))
    """Responses that are compressed at once."""
    spilling: SpillPools = field(default_factory=SpillPools.of_worker)
    built: list[RouteFilter] = field(default_factory=list)
    """All filters that were built so far."""

    @property
    def tell_underscores(self) -> bool:
        """Origins distinguish `_` from `-` in field names."""
        return self.config.forwarding.underscores

    @cached_property
    def mounts(self) -> Mounts:
        """Where the upstreams of the configuration are mounted."""
        return Mounts(self.config)


def reason_of(name: str, error: Exception) -> str:
    """Why a file cannot be used."""
    return f"{name}: {error.strerror}" if isinstance(error, OSError) else str(error)
