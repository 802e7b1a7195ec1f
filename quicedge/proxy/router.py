"""Routing of requests: by host, then by path, then by further conditions.

A host matches exactly, else by a wildcard one or more labels up (nearest first), else by `*`. Of
the routes of a host, one with the exact path wins, else those with the longest path prefix. Of
those with the same host and path, the ones with conditions are tried in the order of the
configuration, and then the one without. If none applies, the next shorter prefix is tried, then the
next host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from quicedge.config.limits import AUTHORITIES_REMEMBERED, MAX_AUTHORITY
from quicedge.config.routes import hosts_of
from quicedge.config.schema import Route
from quicedge.http.message import Request
from quicedge.http.remembered import Remembered
from quicedge.http.target import normal_path, with_plain_slashes
from quicedge.proxy.client import ClientInfo
from quicedge.proxy.conditions import Asked, Condition, conditions_of


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

    def conditional(self) -> _ConditionalTable:
        """The same routes in the other kind of table, to be listed."""
        table = _ConditionalTable()
        for route in self._routes.values():
            table.add(route)
        return table

    def find(self, path: bytes, request: Request | None, client: ClientInfo | None) -> Route | None:
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

    def takes(self, route: Route, asked: Asked) -> bool:
        """Whether a request would belong to one of the routes if there were no nearer one."""
        prefix, path = _prefix(route.path), asked.path
        return self._routes.get(prefix) is route and (
            path == prefix or path.startswith(prefix.removesuffix(b"/") + b"/")
        )


class Place(NamedTuple):
    """Where routes were looked for, and those that are there, in the order of preference."""

    host: str
    path: str
    routes: tuple[tuple[Route, tuple[Condition, ...]], ...]


class _ConditionalTable:
    """The routes of one host if any has conditions or an exact path."""

    __slots__ = ("_depth", "_exact", "_prefixes")

    def __init__(self) -> None:
        self._exact: dict[bytes, list[tuple[Route, tuple[Condition, ...]]]] = {}
        self._prefixes: dict[bytes, list[tuple[Route, tuple[Condition, ...]]]] = {}
        self._depth = 0

    def add(self, route: Route) -> None:
        conditions = conditions_of(route)
        if route.path_exact is not None:
            found = self._exact.setdefault(_prefix(route.path_exact), [])
        else:
            prefix = _prefix(route.path)
            found = self._prefixes.setdefault(prefix, [])
            self._depth = max(self._depth, prefix.count(b"/"))
        # Those with conditions in their order, then the one without.
        if conditions and found and not found[-1][1]:
            found.insert(-1, (route, conditions))
        elif conditions or not found or found[-1][1]:
            found.append((route, conditions))

    def find(self, path: bytes, request: Request | None, client: ClientInfo | None) -> Route | None:
        """The first route, in the order of preference, whose conditions are met."""
        asked = Asked(request, client, path) if request is not None and client is not None else None
        for _, routes in self.places(path):
            for route, conditions in routes:
                for condition in conditions:
                    if asked is None or not condition.holds(asked):
                        break
                else:
                    return route
        return None

    def takes(self, route: Route, asked: Asked) -> bool:
        """Whether a request would belong to one of the routes if there were no nearer one."""
        return any(
            found is route and all(condition.holds(asked) for condition in conditions)
            for _, routes in self.places(asked.path)
            for found, conditions in routes
        )

    def places(
        self, path: bytes
    ) -> Iterator[tuple[bytes, list[tuple[Route, tuple[Condition, ...]]]]]:
        """The routes that a path may belong to, in the order of preference."""
        if (found := self._exact.get(path)) is not None:
            yield path, found
        prefixes = self._prefixes
        cuts: list[int] = []
        at = path.find(b"/")
        while at >= 0 and len(cuts) <= self._depth:
            cuts.append(at)
            at = path.find(b"/", at + 1)
        if at < 0 and not path.endswith(b"/") and (found := prefixes.get(path)) is not None:
            yield path, found
        for cut in reversed(cuts):
            for prefix in (path[: cut + 1], path[:cut]):
                if (found := prefixes.get(prefix)) is not None:
                    yield prefix, found


class Router:
    """Finds the route of a request in tables built once per configuration."""

    def __init__(self, routes: Iterable[Route]) -> None:
        by_host: dict[str, list[Route]] = {}
        for route in routes:
            for host in hosts_of(route):
                by_host.setdefault(host, []).append(route)
        self._hosts = {host: _table(found) for host, found in by_host.items()}
        self._tables = Remembered[tuple[_PathTable | _ConditionalTable, ...]](
            AUTHORITIES_REMEMBERED, MAX_AUTHORITY
        )
        """The tables of the hosts that match an authority, most specific first."""

    def find(
        self,
        authority: bytes,
        path: bytes,
        request: Request | None = None,
        client: ClientInfo | None = None,
    ) -> Route | None:
        """The route for an authority (`host[:port]`) and a path (with its query), or None.

        Paths are compared in normal form (`http.target`).
        `OPTIONS *` concerns the whole server (RFC 9110 section 9.3.7) and is routed like `/`.
        Without request and client no conditions are met.
        """
        path = b"/" if path == b"*" else normal_path(path)
        tables = self._tables.get(authority)
        for table in self._match(authority) if tables is None else tables:
            route = table.find(path, request, client)
            if route is not None:
                return route
        return None

    def is_evaded(self, route: Route, request: Request, client: ClientInfo) -> bool:
        """Whether servers that decode or merge slashes take the request of a route for one that
        belongs to another route, nearer than this one.

        With a password for `/admin` alone, `//admin` and `/admin%2Fusers` would do without.
        """
        target = request.path
        if not (b"//" in target or b"%2" in target or b"%5" in target or b"\\" in target):
            return False
        path = with_plain_slashes(target)
        if path == normal_path(target):
            return False
        nearest = self.find(request.authority, path, request, client)
        if nearest is route:
            return False
        asked = Asked(request, client, path)
        return any(table.takes(route, asked) for table in self._match(request.authority))

    def places(self, authority: bytes, path: bytes) -> Iterator[Place]:
        """Where `find` looks, in this order."""
        path = b"/" if path == b"*" else normal_path(path)
        for host in _candidates(host_of(authority)):
            table = self._hosts.get(host)
            if isinstance(table, _PathTable):
                table = table.conditional()
            if table is not None:
                for at, routes in table.places(path):
                    yield Place(host, at.decode("ascii", "replace"), tuple(routes))

    def _match(self, authority: bytes) -> tuple[_PathTable | _ConditionalTable, ...]:
        """Look the tables of an authority up, and remember them."""
        found = (self._hosts.get(host) for host in _candidates(host_of(authority)))
        tables = tuple(table for table in found if table is not None)
        self._tables.remember(authority, tables)
        return tables


def _table(routes: Sequence[Route]) -> _PathTable | _ConditionalTable:
    """The table of a host: the simple one if paths alone decide."""
    if any(route.path_exact is not None or route.is_conditional for route in routes):
        conditional = _ConditionalTable()
        for route in routes:
            conditional.add(route)
        return conditional
    table = _PathTable()
    for route in routes:
        table.add(_prefix(route.path), route)
    return table


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
