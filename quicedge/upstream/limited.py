"""An upstream with the timeouts and retries of one route."""

from __future__ import annotations

import msgspec

from quicedge.config.schema import Hedge, Route
from quicedge.upstream.group import Upstream
from quicedge.upstream.hedging import Hedging
from quicedge.upstream.opening import open_stream

OVERRIDES = ("first_byte_timeout", "hedge", "idle_timeout", "retries")
"""Keys of upstreams that a route may set for its own requests."""


def overrides_of(route: Route) -> dict[str, float | Hedge]:
    """What a route sets of its own."""
    given = {key: getattr(route, key) for key in OVERRIDES}
    return {key: value for key, value in given.items() if value is not None}


class LimitedUpstream:
    """Opens requests on the servers of another upstream, with other limits per request."""

    def __init__(self, group: Upstream, overrides: dict[str, float | Hedge]) -> None:
        self.config = msgspec.structs.replace(group.config, **overrides)
        self.loop = group.loop
        self.deadlines = group.deadlines
        self.selection = group.selection
        self.breaker = group.breaker
        self.hedging = group.hedging
        hedge = overrides.get("hedge")
        if isinstance(hedge, Hedge):
            self.hedging = Hedging(hedge, group.hedges)

    open = open_stream
