"""Routing of requests: by host, then by the longest path prefix."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote

from quicedge.config.limits import AUTHORITIES_REMEMBERED, MAX_AUTHORITY
from quicedge.config.schema import Route
from quicedge.http.target import normal_path


class _PathTable:
    """The routes of one host by path prefix; a lookup does not depend on their number."""

    __slots__ = ("_depth", "_routes")

    def __init__(self) -> None:
        self._routes: dict[bytes, Route] = {}
        self._depth = 0
        """Slashes of the prefix that has the most."""

    def add(self, prefix: bytes, route: Route) -> None:
        """Add a route; of equal prefixes the first one counts."""
        self._routes.setdefault(prefix, route)
        self._depth = max(self._depth, prefix.count(b"/"))

    def find(self, path: bytes) -> Route | None:
        """The route with the longest prefix: "/api" matches "/api" and "/api/x", not "/apiary"."""
        routes = self._routes
        # From the whole path to its first slash, each time without and with the slash at the end.
        cuts: list[int] = []
        at = path.find(b"/")
        while at >= 0 and len(cuts) <= self._depth:
            cuts.append(at)
            at = path.find(b"/", at + 1)
        if at < 0 and (route := routes.get(path)) is not None:
            return route
        for cut in reversed(cuts):
            route = routes.get(path[: cut + 1]) or routes.get(path[:cut])
            if route is not None:
                return route
        return None


class Router:
    """Finds the route of a request in a table built once per configuration.

    A host matches exactly, else by a wildcard one or more labels up (nearest first), else by `*`.
    Of the routes of the matching hosts, in that order, the one with the longest path prefix wins.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._hosts: dict[str, _PathTable] = {}
        for route in routes:
            host = route.host.lower().rstrip(".")
            table = self._hosts.setdefault(host, _PathTable())
            table.add(_prefix(route.path), route)
        self._tables: dict[bytes, tuple[_PathTable, ...]] = {}
        """The tables of the hosts that match an authority, most specific first."""

    def find(self, authority: bytes, path: bytes) -> Route | None:
        """The route for an authority (`host[:port]`) and a path (with its query), or None.

        Paths are compared in normal form (`http.target`).
        `OPTIONS *` concerns the whole server (RFC 9110 section 9.3.7) and is routed like `/`.
        """
        path = b"/" if path == b"*" else normal_path(path)
        tables = self._tables.get(authority)
        for table in self._match(authority) if tables is None else tables:
            route = table.find(path)
            if route is not None:
                return route
        return None

    def _match(self, authority: bytes) -> tuple[_PathTable, ...]:
        """Look the tables of an authority up, and remember them."""
        found = (self._hosts.get(host) for host in _candidates(host_of(authority)))
        tables = tuple(table for table in found if table is not None)
        if len(authority) <= MAX_AUTHORITY:
            if len(self._tables) >= AUTHORITIES_REMEMBERED:
                self._tables.clear()
            self._tables[authority] = tables
        return tables


def _prefix(path: str) -> bytes:
    """A configured path in the normal form of request paths."""
    return normal_path(quote(path, safe="%/:@!$&'()*+,;=").encode())


def host_of(authority: bytes) -> str:
    """The host of `host[:port]` in lower case, without brackets and trailing dot."""
    return _short_host(authority) if len(authority) <= MAX_AUTHORITY else _host(authority)


def _host(authority: bytes) -> str:
    text = authority.decode("ascii", "replace").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


_short_host = lru_cache(maxsize=AUTHORITIES_REMEMBERED)(_host)


def _candidates(host: str) -> Iterable[str]:
    yield host
    labels = host.split(".")
    for index in range(1, len(labels)):
        yield "*." + ".".join(labels[index:])
    yield "*"
