"""What routes are called, and the hosts that they are for."""

from __future__ import annotations

from quicedge.config.filters import FilterEntry
from quicedge.config.schema import Config, Route


def hosts_of(route: Route) -> list[str]:
    """The hosts of a route in lower case, without trailing dots."""
    written = [route.host] if isinstance(route.host, str) else route.host
    return [host.lower().rstrip(".") for host in written]


def upstreams_of(route: Route) -> list[str]:
    """The upstreams that requests of a route may go to, by name."""
    if route.split is not None:
        return list(route.split.shares)
    return [] if route.upstream is None else [route.upstream]


def host_text(route: Route) -> str:
    """The hosts of a route as they are written, for labels and messages."""
    return route.host if isinstance(route.host, str) else ",".join(route.host)


def filters_of(config: Config, route: Route) -> list[FilterEntry]:
    """The filters of a route, in the order in which requests pass them."""
    return [*config.filters, *route.filters]


def route_text(route: Route) -> str:
    """Where requests of a route go: its hosts, path and conditions; unique in a configuration."""
    if route.path_exact is None and not route.is_conditional:
        return f"{host_text(route)}{route.path}"
    place = f"={route.path_exact}" if route.path_exact is not None else route.path
    return " ".join((f"{host_text(route)}{place}", *_conditions(route)))


def _conditions(route: Route) -> list[str]:
    """The conditions of a route, each in one word if its values are."""
    found = []
    if route.path_regex is not None:
        found.append(f"~{route.path_regex}")
    for name in ("extensions", "methods", "clients", "protocols"):
        values = getattr(route, name)
        if values:
            found.append(f"{name}={','.join(values)}")
    for name in ("headers", "query", "cookies"):
        found += [f"{name}.{key}={value}" for key, value in getattr(route, name).items()]
    if route.tls is not None:
        tls = route.tls
        facts = [*tls.versions, *tls.server_names]
        if tls.early_data is not None:
            facts.append("early_data" if tls.early_data else "no_early_data")
        found.append(f"tls={','.join(facts)}")
    return found
