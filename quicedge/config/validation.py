"""Semantic validation of a configuration, from the file alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from quicedge.config.accessfields import ACCESS_FIELDS
from quicedge.config.acmevalidation import acme_problems
from quicedge.config.addresses import (
    name_problem,
    overlap,
    parse_listen,
    parse_resolver,
    server_problem,
    service_problem,
    unix_problem,
)
from quicedge.config.certificate_files import pattern_problem
from quicedge.config.conditions import validate_conditions
from quicedge.config.convert import join
from quicedge.config.filter_validation import (
    answers_all,
    match_problem,
    templates_in,
    upstreams_in,
    validate_filters,
)
from quicedge.config.filters import FilterEntry
from quicedge.config.fleet_validation import fleet_problems, redis_problems
from quicedge.config.host_port import HostPort
from quicedge.config.hostnames import host_problem
from quicedge.config.limits import NEVER_TUNNELLED
from quicedge.config.listeners import listeners
from quicedge.config.networks import network_problems
from quicedge.config.problems import Problem, nearest
from quicedge.config.python_objects import REFERENCE
from quicedge.config.rates import parse_rate
from quicedge.config.routes import hosts_of, route_text, upstreams_of
from quicedge.config.schema import (
    Admin,
    Balance,
    Config,
    Discover,
    Limits,
    OriginProtocol,
    OriginServer,
    Qlog,
    RequestRate,
    Retry,
    Route,
    Tls,
    Upstream,
)
from quicedge.config.site_validation import SITE_KEYS, site_problems
from quicedge.config.split_validation import COOKIE_NAME, split_problems

_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()+,;=:@/-]|%[0-9A-Fa-f]{2})*")
"""RFC 3986 section 3.3, without `*`."""
_REQUEST_PATH = re.compile(r"/[!-~]*")
_PROTOCOL = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:/[A-Za-z0-9!#$%&'*+.^_`|~-]+)?")
"""RFC 9110 section 7.8: a name, perhaps with a version."""
_HEADER_RATE = re.compile(r"header:[A-Za-z0-9!#$%&'*+.^_`|~-]+")

Document = dict[str, Any]


def validate(config: Config, document: Document) -> Iterator[Problem]:
    """Yield every contradiction. `document` is the file as written, without defaults."""
    yield from _listening(config)
    if config.group is not None and config.user is None:
        yield Problem("group", "has no effect without user")
    if config.user in ("root", "0"):
        yield Problem(
            "user", f"workers must not run as {config.user!r}; choose an unprivileged user"
        )
    yield from _tls(config.tls)
    yield from acme_problems(config)
    yield from _quic(config, document)
    if config.http3.qpack_blocked_streams and not config.http3.qpack_max_table_capacity:
        yield Problem(
            "http3.qpack_blocked_streams", "has no effect without qpack_max_table_capacity"
        )
    yield from _limits(config, document)
    yield from fleet_problems(config, document.get("fleet", {}))
    yield from _routes(config)
    for name, upstream in config.upstreams.items():
        written = document.get("upstreams", {}).get(name, {})
        yield from _upstream(f"upstreams.{name}", upstream, written)
    for section in ("alt_svc", "otel", "admin"):
        if not getattr(config, section).enabled:
            yield from _idle(section, document, "enabled")
    if not config.log.access:
        for key in ("access_file", "access_fields"):
            if key in document.get("log", {}):
                yield Problem(f"log.{key}", "has no effect with access = false")
    for index, name in enumerate(config.log.access_fields):
        if name not in ACCESS_FIELDS:
            near = nearest(name, ACCESS_FIELDS)
            yield Problem(f"log.access_fields[{index}]", f"unknown field {name!r}{near}")
    yield from _qlog(config.qlog)
    endpoint = config.otel.endpoint
    if config.otel.enabled and endpoint is not None and not re.match(r"https?://[^/]", endpoint):
        yield Problem("otel.endpoint", f"{endpoint!r} is not http://host:port/path or https://...")
    if config.admin.enabled:
        yield from _admin(config.admin)


def _idle(section: str, document: Document, switch: str) -> Iterator[Problem]:
    """Keys set in a section that is disabled."""
    is_on_by_default = getattr(getattr(Config(), section), switch)
    because = f"with {switch} = false" if is_on_by_default else f"without {switch} = true"
    for key in document.get(section, {}):
        if key != switch:
            yield Problem(f"{section}.{key}", f"has no effect {because}")


# --- addresses --------------------------------------------------------------------------------


def _listening(config: Config) -> Iterator[Problem]:
    if not config.listen:
        yield Problem("listen", "at least one address is required")
    if not config.protocols:
        yield Problem("protocols", "must not be empty: no client could connect")
    known: list[tuple[str, HostPort]] = []
    on_quic: set[str] = set()
    for index, listening in enumerate(listeners(config)):
        where, text = f"listen[{index}]", listening.address
        if not isinstance(config.listen[index], str):
            if not listening.protocols and config.protocols:
                yield Problem(f"{where}.protocols", "must not be empty: no client could connect")
            proxies = listening.proxy_protocol
            if proxies is not None:
                key = f"{where}.proxy_protocol"
                yield from _proxies(key, proxies)
                if not listening.tcp_protocols:
                    yield Problem(key, "has no effect: the address speaks neither h2 nor http/1.1")
            where = f"{where}.address"
        if listening.quic:
            on_quic.add(text)
        try:
            address = parse_listen(text)
        except ValueError as error:
            yield Problem(where, str(error))
            continue
        for other_text, other in known:
            if overlap(address, other):
                same = address.ip == other.ip
                how = "is the same address as" if same else "and"
                rest = "" if same else " overlap; remove one"
                yield Problem(where, f"{text!r} {how} {other_text!r}{rest}")
                break
        known.append((text, address))
    yield from _redirect(config, known)
    families: dict[int, str] = {}
    for index, text in enumerate(config.quic.preferred_address):
        where = f"quic.preferred_address[{index}]"
        if text not in (listening.address for listening in listeners(config)):
            yield Problem(where, f"{text!r} is not in listen")
            continue
        if text not in on_quic:
            yield Problem(where, f"{text!r} does not speak h3")
            continue
        try:
            ip = parse_listen(text).ip
        except ValueError:
            continue  # reported above
        if ip is None:
            yield Problem(where, f"{text!r} must be an IP address, not a host name")
        elif ip.version in families:
            yield Problem(
                where, f"at most one per address family; {families[ip.version]!r} is already listed"
            )
        else:
            families[ip.version] = text


def _proxies(where: str, networks: Sequence[str]) -> Iterator[Problem]:
    """What is wrong with the networks of load balancers."""
    yield from network_problems(where, list(networks))
    if not networks:
        yield Problem(where, "must name the networks of the load balancers")


def _redirect(config: Config, listening: list[tuple[str, HostPort]]) -> Iterator[Problem]:
    """Addresses of `redirect_http` that are none, or that the edge listens on for TLS."""
    if config.redirect_http and not any(item.tcp_protocols for item in listeners(config)):
        yield Problem("redirect_http", "has no effect: no address speaks h2 or http/1.1")
    if not isinstance(config.redirect_http, list):
        return
    known = list(listening)
    for index, given in enumerate(config.redirect_http):
        where = f"redirect_http[{index}]"
        text = given if isinstance(given, str) else given.address
        if not isinstance(given, str):
            if given.proxy_protocol is not None:
                yield from _proxies(f"{where}.proxy_protocol", given.proxy_protocol)
            where = f"{where}.address"
        try:
            address = parse_listen(text)
        except ValueError as error:
            yield Problem(where, str(error))
            continue
        for other_text, other in known:
            if overlap(address, other):
                yield Problem(where, f"{text!r} and {other_text!r} overlap; remove one")
                break
        known.append((text, address))


def _admin(admin: Admin) -> Iterator[Problem]:
    listen = admin.listen
    if listen.startswith("unix:"):
        problem = unix_problem(listen)
        if problem:
            yield Problem("admin.listen", f"{listen!r}: {problem}")
        if admin.hosts:
            yield Problem("admin.hosts", "has no effect on a unix socket")
        return
    try:
        address = parse_listen(listen)
    except ValueError:
        yield Problem("admin.listen", f"{listen!r} is neither host:port nor unix:/path")
    else:
        is_local = address.host == "localhost" or (
            address.ip is not None and address.ip.is_loopback
        )
        if not is_local and admin.token_file is None:
            yield Problem(
                "admin.listen", f"{listen!r} is not a loopback address: set admin.token_file"
            )
        elif not is_local and address.ip is None:
            yield Problem("admin.listen", f"{listen!r} must be an IP address or localhost")
    yield from _hosts("admin.hosts", admin.hosts)


def _hosts(where: str, names: list[str]) -> Iterator[Problem]:
    for index, name in enumerate(names):
        problem = host_problem(name)
        if problem:
            yield Problem(f"{where}[{index}]", f"{name!r} {problem}")


# --- transport --------------------------------------------------------------------------------


def _tls(tls: Tls) -> Iterator[Problem]:
    if sum(item.default for item in tls.certificates) > 1:
        yield Problem("tls.certificates", "more than one certificate is marked as default")
    seen: set[str] = set()
    for index, item in enumerate(tls.certificates):
        if problem := pattern_problem(item):
            yield Problem(f"tls.certificates[{index}]", problem)
        if item.cert in seen:
            yield Problem(f"tls.certificates[{index}].cert", f"{item.cert} is listed twice")
        seen.add(item.cert)
    yield from _client_auth(tls)
    if not tls.groups:
        yield Problem("tls.groups", "must not be empty: no client could connect")
    for index, group in enumerate(tls.groups):
        if group in tls.groups[:index]:
            yield Problem(f"tls.groups[{index}]", f"{group} is listed twice")


def _client_auth(tls: Tls) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, entry in enumerate(tls.client_auth):
        where = f"tls.client_auth[{index}]"
        if not entry.hosts:
            yield Problem(f"{where}.hosts", "must not be empty; omit the key for all hosts")
        for at, host in enumerate(entry.hosts):
            if problem := _host(host):
                yield Problem(f"{where}.hosts[{at}]", f"{host!r}{problem}")
            if host.lower() in seen:
                yield Problem(f"{where}.hosts[{at}]", f"{host!r} is listed twice")
            seen.add(host.lower())


def _quic(config: Config, document: Document) -> Iterator[Problem]:
    quic = config.quic
    if not quic.versions:
        yield Problem("quic.versions", "must not be empty: no client could connect")
    if config.tls.shared_keys and quic.early_data and not config.limits.redis:
        yield Problem(
            "quic.early_data",
            "with tls.shared_keys requires limits.redis, where all hosts record used tickets",
        )
    if quic.retry is not Retry.AUTO and "retry_threshold" in document.get("quic", {}):
        yield Problem("quic.retry_threshold", f"has no effect with retry = {quic.retry!r}")


def _qlog(qlog: Qlog) -> Iterator[Problem]:
    yield from network_problems("qlog.addresses", qlog.addresses)
    for index, name in enumerate(qlog.server_names):
        problem = "is a wildcard; only exact names match" if "*" in name else host_problem(name)
        if problem:
            yield Problem(f"qlog.server_names[{index}]", f"{name!r} {problem}")
    if qlog.max_file_size > qlog.max_total_size:
        yield Problem("qlog.max_file_size", "exceeds max_total_size")
    if qlog.directory is None and (qlog.addresses or qlog.server_names or qlog.rate):
        # QLOGDIR is for interop runners; a configured selection needs a configured directory.
        yield Problem("qlog.directory", "is required: without it nothing is traced")


# --- limits -----------------------------------------------------------------------------------


def _limits(config: Config, document: Document) -> Iterator[Problem]:
    limits = config.limits
    for key in ("allow", "deny"):
        yield from network_problems(f"limits.{key}", getattr(limits, key))
    for index, text in enumerate(limits.deny):
        if text in limits.allow:
            yield Problem(f"limits.deny[{index}]", f"{text!r} is also in allow")
    yield from _rates("limits.requests", limits.requests)
    yield from _order(limits, document.get("limits", {}))
    if limits.redis is None:
        return
    yield from redis_problems("limits.redis", limits.redis)
    rates = limits.requests or any(route.requests for route in config.routes)
    if not rates and not config.quic.early_data:
        yield Problem("limits.redis", "has no effect without request rates or quic.early_data")


def _order(limits: Limits, written: Document) -> Iterator[Problem]:
    """Explicit narrow limits that a wider limit makes unreachable."""
    for narrow, wide in (
        ("max_connections_per_prefix", "max_connections"),
        ("max_connections_per_address", "max_connections"),
        ("max_connections_per_address", "max_connections_per_prefix"),
        ("handshakes_per_second_per_prefix", "handshakes_per_second"),
    ):
        one, other = getattr(limits, narrow), getattr(limits, wide)
        if narrow in written and None not in (one, other) and one > other:
            yield Problem(f"limits.{narrow}", f"has no effect above {wide} ({other:g})")


def _rates(where: str, rates: list[RequestRate]) -> Iterator[Problem]:
    for index, item in enumerate(rates):
        try:
            parse_rate(item.rate)
        except ValueError as error:
            yield Problem(f"{where}[{index}].rate", str(error))
        if item.by not in ("address", "prefix") and not _HEADER_RATE.fullmatch(item.by):
            yield Problem(
                f"{where}[{index}].by", f"{item.by!r} is not address, prefix or header:NAME"
            )
        if item in rates[:index]:
            yield Problem(f"{where}[{index}]", "duplicate rate")


# --- routes and upstreams ---------------------------------------------------------------------


def _routes(config: Config) -> Iterator[Problem]:
    needed = not config.routes or any(map(upstreams_of, config.routes))
    if not config.upstreams and needed:
        yield Problem("upstreams", "at least one [upstreams.NAME] with servers is required")
    elif not config.routes:
        yield Problem("routes", "at least one [[routes]] with upstream is required")
    yield from _filters("filters", config.filters, config)
    seen: set[tuple[str, str]] = set()
    for index, route in enumerate(config.routes):
        where = f"routes[{index}]"
        yield from _destination(where, route, config)
        yield from _place(where, route)
        yield from validate_conditions(where, route)
        texts = {(host, route_text(route).partition(" ")[2]) for host in hosts_of(route)}
        path = route.path if route.path_exact is None else f"={route.path_exact}"
        for host, conditions in texts:
            place = host, f"{path} {conditions}"
            if place in seen:
                shown = path.removeprefix("=")
                yield Problem(where, f"duplicate route for host {host!r} and path {shown!r}")
            seen.add(place)
        yield from _rates(f"{where}.requests", route.requests)
        yield from _filters(f"{where}.filters", route.filters, config)
        for at, entry in enumerate(route.filters):
            for key, text in templates_in(entry):
                if problem := match_problem(text, route.path_regex):
                    yield Problem(f"{where}.filters[{at}].{key}", problem)
        for place_in_list, name in enumerate(route.upgrade):
            if problem := _protocol(name):
                yield Problem(f"{where}.upgrade[{place_in_list}]", f"{name!r}{problem}")


def _filters(where: str, entries: list[FilterEntry], config: Config) -> Iterator[Problem]:
    yield from validate_filters(where, entries)
    for index, entry in enumerate(entries):
        for key, name in upstreams_in(entry):
            if name not in config.upstreams:
                near = nearest(name, config.upstreams)
                yield Problem(f"{where}[{index}].{key}", f"unknown upstream {name!r}{near}")


def _destination(where: str, route: Route, config: Config) -> Iterator[Problem]:
    """Where requests of a route go: to an upstream, or no further than a filter."""
    answered = answers_all([*config.filters, *route.filters])
    key = "upstream" if route.split is None else "split"
    if route.split is not None:
        yield from split_problems(f"{where}.split", route.split, config.upstreams)
        if route.upstream is not None:
            yield Problem(f"{where}.upstream", "has no effect with split; add it to split.shares")
    elif route.upstream is None:
        if not answered:
            reason = "upstream or split is required, or a filter that answers (redirect, ...)"
            yield Problem(where, reason)
    elif route.upstream not in config.upstreams:
        near = nearest(route.upstream, config.upstreams)
        yield Problem(f"{where}.upstream", f"unknown upstream {route.upstream!r}{near}")
    if answered and upstreams_of(route):
        yield Problem(f"{where}.{key}", "has no effect: a filter answers all requests")
    named = (config.upstreams.get(name) for name in upstreams_of(route))
    if not any(upstream is not None and upstream.servers for upstream in named):
        for key in ("first_byte_timeout", "idle_timeout", "retries"):
            if getattr(route, key) is not None:
                yield Problem(join(where, key), "has no effect: the route has no servers")
    if route.hedge is not None:
        yield from _hedging(f"{where}.hedge", route, config)


def _hedging(where: str, route: Route, config: Config) -> Iterator[Problem]:
    """What is wrong with second attempts of the requests of a route."""
    named = [config.upstreams[name] for name in upstreams_of(route) if name in config.upstreams]
    if named and not any(_may_hedge(upstream) for upstream in named):
        yield Problem(where, _NO_SECOND)
    if any(upstream.sticky_cookie is not None for upstream in named):
        yield Problem(where, _NOT_STICKY)


def _may_hedge(upstream: Upstream) -> bool:
    """Whether a second attempt has a server to go to: another one, or one that is looked up."""
    return len(upstream.servers) > 1 or upstream.discovers


_NO_SECOND = "has no effect: there is no second server"
_NOT_STICKY = "not with sticky_cookie: clients would move to whichever server answers first"


def _place(where: str, route: Route) -> Iterator[Problem]:
    """Host and path of a route."""
    hosts = [route.host] if isinstance(route.host, str) else route.host
    if not hosts:
        yield Problem(f"{where}.host", "must not be empty; omit the key for all hosts")
    for index, host in enumerate(hosts):
        if problem := _host(host):
            key = "host" if isinstance(route.host, str) else f"host[{index}]"
            yield Problem(join(where, key), f"{host!r}{problem}")
    if problem := _path(route.path):
        yield Problem(f"{where}.path", f"{route.path!r}{problem}")
    if route.path_exact is not None:
        if problem := _path(route.path_exact):
            yield Problem(f"{where}.path_exact", f"{route.path_exact!r}{problem}")
        for key in ("path", "path_regex"):
            if getattr(route, key) != getattr(Route(), key):
                yield Problem(f"{where}.{key}", "has no effect with path_exact")


def _protocol(name: str) -> str | None:
    """Describe why a protocol cannot be tunnelled; None when it can."""
    if not _PROTOCOL.fullmatch(name):
        return " is not the name of a protocol, such as 'websocket'"
    if name.lower().partition("/")[0] in NEVER_TUNNELLED:
        return " would hide requests from the edge and is never forwarded"
    return None


def _path(path: str) -> str | None:
    """Describe what is wrong with a route's path and what to write; None when it is valid."""
    if "://" in path:
        return " is a URL; host and path are separate keys"
    if not path.startswith("/"):
        return f" does not start with /; write {'/' + path!r}"
    if "*" in path:
        prefix = path.partition("*")[0]
        return f": a path matches as a prefix, without *; write {prefix!r}"
    for mark, what in (("?", "a query"), ("#", "a fragment")):
        if mark in path:
            return f" has {what}, which routes ignore; write {path.partition(mark)[0]!r}"
    if not _SEGMENT.fullmatch(path):
        return ": characters not allowed in a URL must be percent-encoded (%20)"
    if any(part in (".", "..") for part in path.split("/")):
        return ": clients resolve . and .. before sending; write the resolved path"
    return None


def _host(host: str) -> str | None:
    """Describe what is wrong with a route's host and what to write; None when it is valid."""
    if host == "*":
        return None
    name = host.removeprefix("*.")
    if not host or "*" in name:
        return ": a wildcard must be * or *.example.com"
    problem = host_problem(name)
    if problem is None or name == host:
        return f" {problem}" if problem else None
    return f": the part after *. {problem}"


_OF_APPLICATIONS = frozenset(
    ("app_directory", "first_byte_timeout", "max_requests", "root_path", "startup_timeout")
)
_REFERENCE = re.compile(REFERENCE + r"(\(\))?")


def _application(where: str, upstream: Upstream, written: Document) -> Iterator[Problem]:
    kind = "asgi" if upstream.asgi is not None else "wsgi"
    for key in written:
        if key != kind and key not in _OF_APPLICATIONS:
            yield Problem(join(where, key), f"has no effect with {kind}")
    reference = upstream.asgi or upstream.wsgi or ""
    if not _REFERENCE.fullmatch(reference):
        mend = f"write {reference}:app" if reference.isidentifier() else "such as 'main:app'"
        yield Problem(join(where, kind), f"{reference!r} is not module:attribute; {mend}")
    path = upstream.root_path
    if path and (not _SEGMENT.fullmatch(path) or path[0] != "/" or path[-1] == "/"):
        yield Problem(join(where, "root_path"), f"{path!r} is not a path such as /api")


_HASH_KEY = re.compile(r"client|path|target|(?:header|cookie):" + COOKIE_NAME.pattern)


def _balancing(where: str, upstream: Upstream, written: Document) -> Iterator[Problem]:
    if not _HASH_KEY.fullmatch(upstream.hash_by):
        expected = "client, path, target, header:NAME or cookie:NAME"
        yield Problem(join(where, "hash_by"), f"{upstream.hash_by!r} is not {expected}")
    elif "hash_by" in written and upstream.balance is not Balance.HASH:
        yield Problem(join(where, "hash_by"), 'has no effect without balance = "hash"')
    if upstream.hedge is not None:
        if upstream.sticky_cookie is not None:
            yield Problem(join(where, "hedge"), _NOT_STICKY)
        if not upstream.retry_budget:
            yield Problem(join(where, "hedge"), "has no effect with retry_budget = 0")
        if not _may_hedge(upstream):
            yield Problem(join(where, "hedge"), _NO_SECOND)
    cookie = upstream.sticky_cookie
    if cookie is not None and not COOKIE_NAME.fullmatch(cookie):
        yield Problem(join(where, "sticky_cookie"), f"{cookie!r} is not the name of a cookie")


def _origin_problem(origin: OriginServer) -> str | None:
    if origin.discover is Discover.SRV:
        return service_problem(origin.url)
    problem = server_problem(origin.url)
    if problem is None and origin.discover is not None:
        return name_problem(origin.url)
    return problem


def _resolvers(where: str, upstream: Upstream) -> Iterator[Problem]:
    key = join(where, "resolvers")
    if upstream.resolvers and not upstream.discovers:
        yield Problem(key, "has no effect: no server has discover")
    for index, text in enumerate(upstream.resolvers):
        try:
            parse_resolver(text)
        except ValueError as error:
            yield Problem(f"{key}[{index}]", f"{error}; write ADDRESS or ADDRESS:PORT")


def _upstream(where: str, upstream: Upstream, written: Document) -> Iterator[Problem]:
    if upstream.root is not None:
        yield from site_problems(where, upstream)
        for key in written:
            if key != "root" and key not in SITE_KEYS:
                yield Problem(join(where, key), "has no effect with root")
        return
    for key in written:
        if key in SITE_KEYS:
            yield Problem(join(where, key), "has no effect without root")
    if upstream.is_application:
        yield from _application(where, upstream, written)
        return
    for key in ("app_directory", "root_path", "startup_timeout"):
        if key in written:
            yield Problem(join(where, key), "has no effect without asgi or wsgi")
    if not upstream.servers:
        yield Problem(
            join(where, "servers"), "at least one server, or root, asgi or wsgi, is required"
        )
    path = upstream.health_path
    if path is None:
        if "health_interval" in written:
            yield Problem(join(where, "health_interval"), "has no effect without health_path")
    elif not _REQUEST_PATH.fullmatch(path):
        yield Problem(join(where, "health_path"), f"{path!r} is not a path such as /healthz")
    for index, origin in enumerate(upstream.origins):
        problem = _origin_problem(origin)
        if problem:
            key = f"{where}.servers[{index}]"
            if not isinstance(upstream.servers[index], str):
                key = join(key, "url")
            yield Problem(key, f"{origin.url!r}: {problem}")
    yield from _balancing(where, upstream, written)
    yield from _resolvers(where, upstream)
    https = any(origin.url.startswith("https://") for origin in upstream.origins)
    for key in ("tls_verify", "tls_ca", "tls_server_name"):
        if not https and key in written:
            yield Problem(join(where, key), "has no effect: no server uses https://")
    if upstream.tls_ca and not upstream.tls_verify:
        yield Problem(join(where, "tls_ca"), "has no effect with tls_verify = false")
    if upstream.proxy_protocol is not None:
        key = join(where, "proxy_protocol")
        if https:
            yield Problem(key, "not supported for servers with https://")
        if upstream.protocol is OriginProtocol.H2:
            yield Problem(
                key,
                'not supported with protocol = "h2": a connection carries one client\'s requests',
            )
    name = upstream.tls_server_name
    if name is not None and (problem := host_problem(name)):
        yield Problem(join(where, "tls_server_name"), f"{name!r} {problem}")
