"""Upstreams: groups of servers, servers named where they are used, and directories of files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from quicedge.config.addresses import server_problem
from quicedge.config.host_port import HostPort
from quicedge.migrate.document import Section
from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.scope import Scope
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.values import duration, number_of, time_of
from quicedge.migrate.nginx.variables import UnsayableError, single
from quicedge.migrate.nginx.world import World

_MOST_WEIGHT = 1000


@dataclass(frozen=True)
class Address:
    """What `proxy_pass` and its kind name."""

    scheme: str
    host: str
    """`host`, `host:port` or `unix:/path`, as nginx sends it in Host by default."""
    uri: str
    """The path behind it; empty: there is none."""

    @property
    def is_tls(self) -> bool:
        return self.scheme in ("https", "grpcs")

    @property
    def is_grpc(self) -> bool:
        return self.scheme.startswith("grpc")


_ADDRESS = re.compile(
    r"(?:(https?|grpcs?)://)?(unix:[^:]+|\[[^\]]+\](?::\d+)?|[^/:?{]+(?::\d+)?)(.*)"
)


def address_of(text: str, default_scheme: str = "http") -> Address:
    """The parts of a URL without variables; raises UnsayableError."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise UnsayableError(f"{text} is not the address of a server")
    rest = found[3]
    if found[2].startswith("unix:"):
        rest = rest.removeprefix(":")
    return Address(found[1] or default_scheme, found[2], rest)


class Upstreams:
    """Makes upstreams once for all that use them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._names: dict[tuple[Any, ...], str] = {}

    # --- servers ----------------------------------------------------------------------------------

    def of_address(self, address: Address, scope: Scope, where: Directive) -> str:
        """The name of the upstream for an address; raises UnsayableError."""
        settings = self._settings(address, scope)
        key = (address.scheme, address.host, repr(settings))
        if key in self._names:
            return self._names[key]
        group = self._world.groups.get(address.host)
        if group is not None:
            keys, comment = self._group(group, address), _from(group)
        else:
            url = _url(address, address.host)
            if problem := server_problem(url):
                raise UnsayableError(f"{url}: {problem}")
            keys, comment = {"servers": [url]}, _from(where)
        keys.update(settings)
        name = self._free_name(address.host if group is not None else _name_of(address.host))
        self._names[key] = name
        self._world.document.upstreams[name] = Section(keys, [comment])
        return name

    def _free_name(self, wanted: str) -> str:
        base = re.sub(r"[^A-Za-z0-9_-]+", "-", wanted).strip("-") or "origin"
        name, number = base, 2
        while name in self._world.document.upstreams:
            name, number = f"{base}-{number}", number + 1
        return name

    def _settings(self, address: Address, scope: Scope) -> dict[str, Any]:
        """What depends on the place that uses the upstream."""
        note = self._world.notebook
        prefix = "grpc" if address.is_grpc else "proxy"
        found: dict[str, Any] = {"protocol": "h2"} if address.is_grpc else {}
        connect = scope.last(f"{prefix}_connect_timeout")
        if connect is not None:
            if time := time_of(connect):
                found["connect_timeout"] = duration(time)
            note.translated(connect, "connect_timeout")
        if not address.is_tls:
            return found
        verify = scope.last(f"{prefix}_ssl_verify")
        authority = scope.last(f"{prefix}_ssl_trusted_certificate")
        name = scope.last(f"{prefix}_ssl_name")
        if scope.is_on(f"{prefix}_ssl_verify"):
            if authority is not None:
                found["tls_ca"] = self._world.path(authority.args[0])
                note.translated(authority, "tls_ca")
        else:
            found["tls_verify"] = False
        note.translated(verify, "tls_verify")
        if name is not None and not single(name.args[0]):
            found["tls_server_name"] = name.args[0].partition(":")[0]
            note.translated(name, "tls_server_name")
        note.translated(scope.last(f"{prefix}_ssl_server_name"), "the name is always sent")
        return found

    def _group(self, group: Directive, address: Address) -> dict[str, Any]:
        """The keys of an `upstream` block."""
        note = self._world.notebook
        note.translated(group)
        servers: list[str | dict[str, Any]] = []
        outliers: dict[str, Any] = {}
        keys: dict[str, Any] = {}
        for directive in group.body:
            if directive.name == "server":
                server = self._server(directive, address, outliers)
                if server is not None:
                    servers.append(server)
            elif directive.name in _BALANCING:
                keys.update(self._balancing(directive))
            elif directive.name == "keepalive":
                note.translated(directive, "idle connections are kept by themselves")
            elif directive.name == "keepalive_timeout":
                if time := time_of(directive):
                    keys["keepalive_timeout"] = duration(time)
                note.translated(directive, "keepalive_timeout")
            elif directive.name == "sticky":
                keys.update(self._sticky(directive))
            elif directive.name not in ("include",):
                note.skipped(directive)
        if not servers:
            raise UnsayableError(f"no server of the upstream {address.host} can be used")
        found: dict[str, Any] = {"servers": servers, **keys}
        if any(isinstance(server, dict) and "discover" in server for server in servers):
            found |= self._resolvers()
        if outliers:
            found["outliers"] = outliers
        return found

    def _resolvers(self) -> dict[str, Any]:
        """The DNS servers of names that are looked up again and again."""
        resolver = self._world.resolver
        if resolver is None:
            return {}
        named = [arg for arg in resolver.args if "=" not in arg]
        found = [arg for arg in named if HostPort.parse(arg, 53).ip is not None]
        if len(found) < len(named):
            self._world.notebook.different(resolver, "resolvers are addresses")
        else:
            self._world.notebook.translated(resolver, "resolvers")
        return {"resolvers": found} if found else {}

    def _server(
        self, directive: Directive, address: Address, outliers: dict[str, Any]
    ) -> str | dict[str, Any] | None:
        note = self._world.notebook
        options = dict(arg.partition("=")[::2] for arg in directive.args[1:])
        if "down" in options:
            note.translated(directive, "not written, because it is down")
            return None
        url = _url(address, directive.args[0])
        if problem := server_problem(url):
            note.left_out(directive, f"{url}: {problem}", visible.SERVER)
            return None
        server: dict[str, Any] = {"url": url}
        differences: list[str] = []
        if "weight" in options and options["weight"] != "1":
            server["weight"] = min(max(number_of(directive, options["weight"]), 1), _MOST_WEIGHT)
        if "backup" in options:
            server["tier"] = 1
        fails = options.get("max_fails")
        if fails is not None and fails != "0":
            outliers["failures"] = max(number_of(directive, fails), outliers.get("failures", 1))
        time = 0.0
        if fails != "0" and "fail_timeout" in options:
            time = time_of(directive, options["fail_timeout"])
        if time:
            outliers["eject_for"] = duration(time)
            outliers.setdefault("failures", 1)
        if time or fails not in (None, "0"):
            differences.append("outliers count failures in a row, of all servers alike")
        for option in ("max_conns", "slow_start", "route", "drain"):
            if option in options:
                differences.append(f"without {option}")
        if "resolve" in options:
            service = options.get("service")
            server["discover"] = "addresses" if service is None else "srv"
            if service is not None:
                labels = service if "." in service else f"_{service}._tcp"
                server["url"] = _url(address, f"{labels}.{directive.args[0]}")
        if differences:
            note.different(directive, "; ".join(differences), visible.SERVER)
        else:
            note.translated(directive)
        return server["url"] if len(server) == 1 else server

    def _balancing(self, directive: Directive) -> dict[str, Any]:
        note, args = self._world.notebook, directive.args
        effect = visible.SERVER
        if directive.name == "least_conn":
            note.translated(directive, 'balance = "least_requests"')
            return {"balance": "least_requests"}
        if directive.name == "least_time":
            note.different(directive, 'balance = "latency", of two random servers', effect)
            return {"balance": "latency"}
        if directive.name == "random":
            note.different(directive, 'balance = "two_choices", the less loaded one', effect)
            return {"balance": "two_choices"}
        if directive.name == "ip_hash":
            words = 'balance = "client_address", by the whole address and another hash'
            note.different(directive, words, effect)
            return {"balance": "client_address"}
        key = _hash_key(args[0])
        if key is None:
            words = f"servers are hashed by one of client, path, header or cookie, not by {args[0]}"
            note.left_out(directive, words, effect)
            return {}
        note.different(directive, "another hash, with bounded loads", effect)
        return {"balance": "hash"} if key == "client" else {"balance": "hash", "hash_by": key}

    def _sticky(self, directive: Directive) -> dict[str, Any]:
        note = self._world.notebook
        if directive.args[:1] != ["cookie"] or len(directive.args) < 2:
            note.left_out(directive, "clients are only kept by cookie", visible.SERVER)
            return {}
        words = "the edge's own cookie, for the session of the browser"
        note.different(directive, words, visible.SERVER, *visible.client("set-cookie"))
        return {"sticky_cookie": directive.args[1]}

    # --- files ------------------------------------------------------------------------------------

    def of_files(self, keys: dict[str, Any], name: str, comment: str) -> str:
        """The name of the upstream for a directory of files."""
        key = ("root", repr(keys))
        if key not in self._names:
            free = self._free_name(name)
            self._names[key] = free
            self._world.document.upstreams[free] = Section(keys, [comment])
        return self._names[key]


_BALANCING = frozenset(("least_conn", "ip_hash", "hash", "random", "least_time"))


def _hash_key(text: str) -> str | None:
    variable = single(text)
    if variable in ("remote_addr", "binary_remote_addr", "realip_remote_addr"):
        return "client"
    if variable in ("uri", "document_uri"):
        return "path"
    if variable == "request_uri" or text == "$uri$is_args$args":
        return "target"
    if variable is not None and variable.startswith("http_"):
        return f"header:{variable.removeprefix('http_').replace('_', '-')}"
    if variable is not None and variable.startswith("cookie_"):
        return f"cookie:{variable.removeprefix('cookie_')}"
    return None


def _url(address: Address, host: str) -> str:
    if host.startswith("unix:"):
        return host
    return f"{'https' if address.is_tls else 'http'}://{host}"


_LOOPBACK = re.compile(r"(?:127\.\d+\.\d+\.\d+|localhost|\[::1\])(?::(\d+))?")


def _name_of(host: str) -> str:
    """A name for the upstream of an address."""
    if host.startswith("unix:"):
        return host.rpartition("/")[2].partition(".")[0] or "socket"
    local = _LOOPBACK.fullmatch(host)
    return f"local-{local[1] or 80}" if local is not None else host


def _from(directive: Directive) -> str:
    return f"{os.path.basename(directive.file)}:{directive.line}"
