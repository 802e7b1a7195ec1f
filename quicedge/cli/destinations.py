"""Where the requests of a route go, for people."""

from __future__ import annotations

from quicedge.config.limits import SPLIT_GROUPS
from quicedge.config.routes import upstreams_of
from quicedge.config.schema import Config, Route, Split
from quicedge.proxy.split import shares_in_groups


def shares_text(split: Split) -> str:
    """The shares of a split as they are kept: `stable 95 %, canary 5 %`."""
    counts = shares_in_groups(tuple(split.shares.values()))
    named = zip(split.shares, counts, strict=True)
    return ", ".join(f"{name} {100 * count / SPLIT_GROUPS:g} %" for name, count in named)


def upstreams_text(config: Config, route: Route) -> str:
    """The upstreams of a route and their servers, or the shares of several."""
    described = [f"{name} ({config.upstreams[name].destination})" for name in upstreams_of(route)]
    if route.split is None:
        return ", ".join(described)
    return f"{shares_text(route.split)} by {route.split.key}: {', '.join(described)}"
