"""Where upstreams are mounted: what their own addresses and paths are at the edge."""

from __future__ import annotations

from collections.abc import Sequence

from quicedge.config.filters import FilterEntry
from quicedge.config.routes import filters_of
from quicedge.config.schema import Config, Route
from quicedge.config.url_prefix import DEFAULT_PORTS, Place, path_below, split_url
from quicedge.http.target import whole_segments
from quicedge.proxy.exchange import Exchange

SCHEMES = frozenset(scheme.decode() for scheme in DEFAULT_PORTS)


class Mount:
    """Undoes what the filters of a route do to the prefixes of paths."""

    __slots__ = ("_steps",)

    def __init__(self, entries: Sequence[FilterEntry]) -> None:
        """`entries`: in the order in which requests pass them."""
        steps = [
            (whole_segments(entry.rewrite.add_prefix), whole_segments(entry.rewrite.strip_prefix))
            for entry in reversed(entries)
            if entry.rewrite is not None
        ]
        self._steps = [step for step in steps if any(step)]

    def url_path(self, path: bytes) -> bytes | None:
        """The path at the edge of one at the origin, with its query; None: it has none there."""
        for added, stripped in self._steps:
            rest = path_below(path, added)
            if rest is None:
                return None
            path = stripped + (rest if rest[:1] == b"/" else b"/" + rest)
        return path

    def cookie_path(self, path: bytes) -> bytes:
        """The same of the path of a cookie, which may be above all that the edge shows."""
        for added, stripped in self._steps:
            rest = path_below(path, added)
            if rest is None and path_below(added, path.rstrip(b"/")) is not None:
                rest = b""
            if rest is None:
                return path
            path = (stripped + rest if rest != b"/" else stripped) or b"/"
        return path


class Mounts:
    """The mounts of all routes of a configuration, and the addresses of its upstreams."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._mounts: dict[int, Mount] = {}
        self._places: dict[str, frozenset[Place]] = {}
        upstreams = [upstream.sticky_cookie for upstream in config.upstreams.values()]
        splits = [route.split.sticky_cookie for route in config.routes if route.split is not None]
        self.own_cookies = frozenset(name.encode() for name in (*upstreams, *splits) if name)
        """Names of the cookies that the edge gives to clients."""

    def of(self, exchange: Exchange) -> Mount:
        """The mount of the route of an exchange."""
        route = exchange.route
        assert route is not None
        mount = self._mounts.get(id(route))
        if mount is None:
            mount = self._mounts[id(route)] = self._new_mount(route)
        return mount

    def _new_mount(self, route: Route) -> Mount:
        return Mount(filters_of(self._config, route))

    def is_own(self, place: Place, exchange: Exchange) -> bool:
        """Whether the origin of an exchange may take a place for its own: that of one of its
        servers, or the host that it was asked for; but not what the client knows the edge by."""
        scheme, host, port = place
        request, asked, origin = exchange.request, exchange.asked, exchange.origin
        at_edge = split_url(request.scheme + b"://" + request.authority)
        meant = place
        if not scheme:
            meant = Place(request.scheme, host, port or DEFAULT_PORTS.get(request.scheme))
        if at_edge is not None and meant == at_edge[0]:
            return False
        own = set(self._configured(exchange.upstream or ""))
        if origin is not None and origin.scheme in SCHEMES:
            start = origin.scheme.encode() + b"://"
            asked_for = split_url(start + asked.authority)
            if asked_for is not None:
                own.add(asked_for[0])
            server = split_url(start + origin.server.encode())
            if server is not None and not origin.server.startswith("unix:"):
                own.add(server[0])
                if asked_for is not None:
                    # Some add the port that they listen on.
                    own.add(asked_for[0]._replace(port=server[0].port))
        if scheme:
            return place in own
        return any(
            host == one.host and (port or DEFAULT_PORTS[one.scheme]) == one.port for one in own
        )

    def is_own_domain(self, domain: bytes, exchange: Exchange) -> bool:
        """Whether an origin may have set a cookie for this domain because its host is in it, and
        the client's is not: the browser would refuse the cookie."""
        if _is_in(_host(exchange.request.authority), domain):
            return False
        places = self._configured(exchange.upstream or "")
        hosts = {place.host for place in places} | {_host(exchange.asked.authority)}
        return any(_is_in(host, domain) for host in hosts)

    def _configured(self, upstream: str) -> frozenset[Place]:
        places = self._places.get(upstream)
        if places is None:
            settings = self._config.upstreams.get(upstream)
            urls = [] if settings is None else [server.url for server in settings.origins]
            found = (split_url(url.encode()) for url in urls)
            places = frozenset(one[0] for one in found if one is not None)
            self._places[upstream] = places
        return places


def _host(authority: bytes) -> bytes:
    found = split_url(b"//" + authority)
    return b"" if found is None else found[0].host


def _is_in(host: bytes, domain: bytes) -> bool:
    return host == domain or host.endswith(b"." + domain)
