"""A whole configuration of nginx, translated."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quicedge.config.loader import ConfigError, parse_config
from quicedge.config.problems import Problem
from quicedge.http.forwarding import CLAIMED_BY_PROXIES, SET_BY_EDGE
from quicedge.migrate.document import Section
from quicedge.migrate.effects import Effect
from quicedge.migrate.errors import SourceError
from quicedge.migrate.nginx import source, visible
from quicedge.migrate.nginx.conditions import Asked
from quicedge.migrate.nginx.content import Routes
from quicedge.migrate.nginx.filters import error_answer
from quicedge.migrate.nginx.locations import Locations, location_of
from quicedge.migrate.nginx.matching import Place, covers
from quicedge.migrate.nginx.outcomes import Location
from quicedge.migrate.nginx.scope import Scope
from quicedge.migrate.nginx.servers import (
    Server,
    choose_defaults,
    redirects_to_itself,
    server_of,
)
from quicedge.migrate.nginx.settings import (
    addresses,
    http_settings,
    main_settings,
    tls_settings,
)
from quicedge.migrate.nginx.source import Source
from quicedge.migrate.nginx.upstreams import Upstreams
from quicedge.migrate.nginx.variables import Names
from quicedge.migrate.nginx.world import World, walk
from quicedge.migrate.report import Note, Translation
from quicedge.migrate.toml_writer import write_toml

NOTES = (
    Note(
        "clients may use HTTP/3 as well: open UDP port 443",
        visible.client("alt-svc"),
    ),
    Note(
        "origins get x-forwarded-for, -host and -proto, forwarded and via from the edge alone; "
        "what clients claim in these and in x-real-ip and the like is dropped",
        visible.origin("via", *sorted(n.decode() for n in SET_BY_EDGE | CLAIMED_BY_PROXIES)),
    ),
    Note(
        "clients get the fields `server` and `via` as origins and the edge send them",
        visible.client("server", "via", "date"),
    ),
    Note("requests and responses are streamed, where nginx buffers them"),
    Note(
        "connections to origins are kept, with HTTP/1.1 or HTTP/2 in place of HTTP/1.0",
        visible.origin("connection", "keep-alive", "te"),
    ),
    Note("errors of the edge have one line of text in place of nginx's page",
         visible.client("content-type")),
    Note("redirects to paths are sent as they are, without scheme and host"),
    Note("files are served for GET and HEAD; to OPTIONS the answer is 204, and to others 405",
         (*visible.client("allow", "accept-ranges"), visible.status(405, 204),
          visible.status(404, 204), visible.status(404, 405), visible.status(405, 404))),
    Note("paths whose slashes servers understand in different ways, such as //admin and "
         "/admin%2Fusers, are answered 400 if they lead past a route", (visible.status("", 400),)),
    Note("a request for a host that is not one of its connection's is answered 421, TRACE and "
         "CONNECT 501; fields may have 64 KB; HTTP/2 is offered on all addresses",
         (visible.status("", 421), visible.status(405, 501), visible.status(400))),
    Note("only content that is forwarded can be too long (413)", (visible.status(413),)),
    Note("files whose names begin with a dot are not served, and directories without an index "
         "are 404 rather than 403"),
    Note("origins must accept a connection within 5 seconds rather than 60"),
)  # fmt: skip


def translate(path: Path, *, prefix: Path | None = None) -> Translation:
    """Translate a configuration of nginx; raises SourceError.

    `prefix`: the directory from which nginx resolves relative names of what it serves (`nginx -V`);
    default: that of the configuration.
    """
    read = source.read(path)
    world = World(path.parent.absolute(), prefix)
    try:
        _Translator(world, read).run()
    except RecursionError:
        raise SourceError(f"{path}: blocks are nested too deeply") from None
    _leave_out_refused(world)
    document = world.document
    heading = [f"Translated from {path} by quicedge migrate; see its report for what is different."]
    toml = write_toml(document, heading)
    report = list(world.notebook.lines(read.all))
    return Translation(document, toml, report, list(NOTES), list(world.to_supply), read)


def _leave_out_refused(world: World) -> None:
    """Replace routes that quicedge would refuse by an error, so that the others can be used.

    Raises SourceError if that is not enough.
    """
    replaced: set[int] = set()
    while problems := _problems(world):
        refused: dict[int, Problem] = {}
        for problem in problems:
            found = re.match(r"routes\[(\d+)\]", problem.key)
            if found is None or int(found[1]) in replaced:
                raise SourceError(f"cannot be translated into a valid configuration: {problem}")
            refused.setdefault(int(found[1]), problem)
        for index, problem in refused.items():
            route = world.document.routes[index]
            words = f"{problem.message}; answered 501"
            world.notebook.left_out(route.origin, words, visible.status("", 501), visible.REACHED)
            where = {k: v for k, v in route.keys.items() if k in (*_CONDITIONS, "host")}
            route.keys = {**where, "filters": [error_answer(501)]}
        replaced |= refused.keys()


def _problems(world: World) -> Sequence[Problem]:
    """Why quicedge would refuse what has been translated."""
    try:
        parse_config(world.document.as_dict(), "quicedge.toml", world.directory, machine=False)
    except ConfigError as error:
        return error.problems
    return ()


class _Translator:
    def __init__(self, world: World, read: Source) -> None:
        self._world = world
        self._note = world.notebook
        self._source = read
        http = [d for d in read.top if d.name == "http"]
        self._http = [inner for d in http for inner in d.body] if http else list(read.top)
        self._is_part = not http
        named = ("server", "upstream", "map", "geo", "split_clients")
        self._scope = Scope(([d for d in self._http if d.name not in named],))
        self._upstreams = Upstreams(world)
        self._routes = Routes(world, self._upstreams)

    def run(self) -> None:
        world, http = self._world, self._http
        world.collect(http)
        world.real_ip = [d for d in walk(http) if d.name in ("set_real_ip_from", "real_ip_header")]
        self._includes()
        if not self._is_part:
            main_settings(self._source.top, world)
        servers = [server_of(d, world) for d in http if d.name == "server"]
        if not servers:
            raise SourceError("there is no server { } in it: nothing to translate")
        choose_defaults(servers)
        redirecting, served = self._sorted(servers)
        addresses(served, redirecting, world)
        tls_settings(self._scope, served, world)
        http_settings([self._scope, *(self._scope.inside(s.body) for s in served)], world)
        self._write_routes(served)
        self._tables()
        if not world.document.routes:
            self._nothing_served(redirecting)
        self._hoist()

    def _includes(self) -> None:
        for directive in self._source.all:
            if directive.name != "include":
                continue
            if directive.is_missing:
                effects: tuple[Effect, ...] = ()
                if directive.args[0].endswith("proxy_params"):
                    words = "is not here; translate where it is, or add its fields"
                    self._world.supply(f"{directive.place}: {directive.args[0]} {words}")
                    effects = (visible.HOST, *visible.origin("x-real-ip"))
                words = "the file, which comes with nginx, is not here"
                self._note.left_out(directive, words, *effects)
            else:
                self._note.translated(directive)

    def _sorted(self, servers: Sequence[Server]) -> tuple[list[Server], list[Server]]:
        """Servers that only redirect to https, and those that are served over TLS."""
        tls_names = {name for s in servers if s.is_tls for name in s.hosts}
        any_tls = any(server.is_tls for server in servers)
        redirecting, served = [], []
        for server in servers:
            if server.is_tls:
                served.append(server)
            elif redirects_to_itself(server) or self._is_catch_all(server, any_tls):
                redirecting.append(server)
                self._redirected(server)
            elif server.hosts and set(server.hosts) <= tls_names:
                redirecting.append(server)
                words = "plain HTTP is redirected to https, where another server has this name"
                self._plain(server, words)
            else:
                served.append(server)
        return redirecting, served

    def _is_catch_all(self, server: Server, any_tls: bool) -> bool:
        """Whether a server only turns away requests for hosts that it does not know."""
        names = {d.name for d in server.body}
        return any_tls and not server.hosts and "return" in names and "location" not in names

    def _redirected(self, server: Server) -> None:
        for directive in walk(server.body):
            is_challenge = "acme-challenge" in "".join(directive.args)
            if directive.name in ("return", "rewrite"):
                words = "redirect_http, with status 308"
                effects = (visible.status("", 308), visible.SCHEME)
                self._note.different(directive, words, *effects)
            elif directive.name == "location" and is_challenge:
                words = "challenges are answered where quicedge orders certificates: [tls.acme]"
                self._note.left_out(directive, words, visible.status("", 308))
            elif directive.name in ("if", "location"):
                self._note.translated(directive, "redirect_http")

    def _plain(self, server: Server, words: str) -> None:
        for directive in walk(server.body):
            if directive.name not in ("listen", "server_name", "include"):
                self._note.left_out(directive, words, *visible.ANSWER, visible.SCHEME)

    # --- routes -----------------------------------------------------------------------------------

    def _write_routes(self, servers: Sequence[Server]) -> None:
        taken: dict[str, Server] = {}
        ports = sorted({listen.port for s in servers for listen in s.listens if listen.is_tls})
        main = 443 if 443 in ports else next(iter(ports), None)
        # A name that is served over TLS already is not that of a plain server.
        for server in sorted(servers, key=lambda server: not server.is_tls):
            for host in self._hosts(server, main):
                first = taken.setdefault(host, server)
                if first is not server:
                    words = f"{host} is served by the server in line {first.directive.line}"
                    self._note.different(server.directive, words, *visible.ELSEWHERE)
        owned: dict[Server, list[str]] = {}
        for host, owner in taken.items():
            owned.setdefault(owner, []).append(host)
        for server in servers:
            mine = owned.get(server, [])
            if not mine:
                words = "no route can be written for its names"
                if self._hosts(server, main):
                    words = "all its names are served by other servers"
                self._world.supply(f"{server.directive.place}: server {{ }}: {words}")
                for directive in walk(server.body):
                    if directive not in self._note:
                        self._note.left_out(directive, words, *visible.ELSEWHERE)
            if mine and not self._rejects(server):
                self._write_server(server, mine)

    def _rejects(self, server: Server) -> bool:
        return any(d.name == "ssl_reject_handshake" and d.args == ["on"] for d in server.body)

    def _hosts(self, server: Server, main: int | None) -> list[str]:
        """The hosts of a server; `main`: the port on which the default one gets all others."""
        is_default = any(
            main is None or (listen.is_tls and listen.port == main) for listen in server.default_of
        )
        return [*server.hosts, "*"] if is_default else list(server.hosts)

    def _write_server(self, server: Server, hosts: Sequence[str]) -> None:
        root = Location(server.directive, "server", "/", self._scope.inside(server.body))
        root.inner = [location_of(d, root.scope) for d in server.body if d.name == "location"]
        locations = Locations(self._world, root)
        names = Names(server_name=server.first_name, port=server.port)
        groups: list[tuple[list[str], list[Section]]] = []
        for host in [*hosts, *self._compared_hosts(server, hosts)]:
            asked = Asked(host, names, self._world.tables)
            sections = list(self._sections(locations, asked))
            for known_hosts, known in groups:
                if [s.keys for s in known] == [s.keys for s in sections]:
                    known_hosts.append(host)
                    break
            else:
                groups.append(([host], sections))
        for found, sections in groups:
            for section in sections:
                keys = _with_hosts(section.keys, found)
                self._world.document.routes.append(replace(section, keys=keys))

    def _sections(self, locations: Locations, asked: Asked) -> Iterator[Section]:
        found = [
            (place, [s for rule in rules for s in self._routes.of_rule(place, rule)])
            for place, rules in locations.rules(asked)
        ]
        prefixes = {place.path: sections for place, sections in found if not place.is_exact}
        seen: set[str] = set()
        for place, sections in found:
            if _is_as_around(place, sections, prefixes):
                continue
            for section in sections:
                where = repr([(k, v) for k, v in section.keys.items() if k in _CONDITIONS])
                if where not in seen:
                    seen.add(where)
                    yield section

    def _compared_hosts(self, server: Server, hosts: Sequence[str]) -> list[str]:
        """Names that `if` compares the host with, and that a wildcard of the server covers."""
        wild = [host for host in hosts if host.startswith("*")]
        found = []
        for directive in walk(server.body):
            args = directive.args
            if directive.name == "if" and args[:2] in (["$host", "="], ["$http_host", "="]):
                name = args[-1].lower()
                covered = any(host == "*" or name.endswith(host[1:]) for host in wild)
                if covered and name not in hosts and name not in found and "$" not in name:
                    found.append(name)
        return found

    def _tables(self) -> None:
        """Maps that say what quicedge does by itself."""
        for table in self._world.tables.values():
            if table.is_upgrade:
                for directive in (table.directive, *table.directive.body):
                    self._note.translated(directive, "WebSockets need no configuration")
            elif table.directive in self._note and table.default is not None:
                if table.default not in self._note:
                    self._note.translated(table.default)
                for entry in table.directive.body:
                    if entry.name in ("hostnames", "volatile"):
                        self._note.translated(entry)

    def _nothing_served(self, redirecting: Sequence[Server]) -> None:
        """Only redirects to https: somewhere else it is served."""
        keys = {"filters": [error_answer(404)]}
        where = redirecting[0].directive if redirecting else self._source.all[0]
        comment = f"{os.path.basename(where.file)}:{where.line}: nothing is served over TLS"
        self._world.document.routes.append(Section(keys, [comment]))

    def _hoist(self) -> None:
        """What all routes have in common first becomes a filter of all routes."""
        document = self._world.document
        served = [route for route in document.routes if "upstream" in route.keys]
        while (common := _first_of_all(served)) is not None:
            if "compress" not in common and _first_of_all(document.routes) is None:
                return
            document.filters.append(common)
            for route in document.routes:
                rest = list(route.keys.pop("filters", ()))
                if common in rest:
                    rest.remove(common)
                if rest:
                    route.keys["filters"] = rest


def _first_of_all(routes: Sequence[Section]) -> dict[str, Any] | None:
    """The first filter, if all routes have the same one and it is not their own business."""
    first = [route.keys.get("filters", [{}])[0] for route in routes]
    if not first or any(item != first[0] for item in first):
        return None
    is_common = "compress" in first[0] or "response" in first[0].get("headers", {})
    return first[0] if is_common else None


_CONDITIONS = frozenset(
    (
        "path", "path_exact", "path_regex", "extensions", "methods", "headers", "query", "cookies",
        "clients", "protocols", "tls",
    )
)  # fmt: skip


def _is_as_around(
    place: Place, sections: Sequence[Section], prefixes: Mapping[str, Sequence[Section]]
) -> bool:
    """Whether requests of a place are served as they are without it."""
    around = [path for path in prefixes if covers(path, place.path)]
    if not place.is_exact:
        around.remove(place.path)
    if not around:
        return False
    return _without_path(sections) == _without_path(prefixes[max(around, key=len)])


def _without_path(sections: Sequence[Section]) -> list[dict[str, Any]]:
    paths = ("path", "path_exact")
    return [{k: v for k, v in s.keys.items() if k not in paths} for s in sections]


def _with_hosts(keys: dict[str, Any], hosts: Sequence[str]) -> dict[str, Any]:
    if list(hosts) == ["*"]:
        return keys
    return {"host": hosts[0] if len(hosts) == 1 else list(hosts), **keys}
