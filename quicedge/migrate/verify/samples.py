"""Makes the requests to play from a configuration of nginx: every server, every location."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from quicedge.migrate.nginx.locations import parts_of
from quicedge.migrate.nginx.scope import Scope
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.values import size_of
from quicedge.migrate.nginx.world import walk
from quicedge.migrate.verify.addresses import Listeners
from quicedge.migrate.verify.client import upgrade_headers
from quicedge.migrate.verify.limits import BURST
from quicedge.migrate.verify.locations import locations_of
from quicedge.migrate.verify.material import PASSWORD, USER
from quicedge.migrate.verify.message import Headers, Protocol, Sample
from quicedge.migrate.verify.origins import ASK
from quicedge.migrate.verify.pattern_sample import sample_of
from quicedge.migrate.verify.sample_list import (
    UNKNOWN_HOST,
    Made,
    samples_of_path,
    samples_of_size,
)

_GRPC_MESSAGE = b"\0\0\0\0\4call"
_DEFAULT_MAX_BODY = 1 << 20
"""Bytes: nginx's default of client_max_body_size."""


def make_samples(http: Directive, listeners: Listeners) -> Made:
    """Samples of a whole configuration."""
    notes: list[str] = []
    samples: list[Sample] = []
    scope = Scope((http.body,))
    for server in http.body:
        if server.name == "server" and server.block is not None:
            samples += _Server(http, server, scope.inside(server.body), listeners, notes).samples()
    return Made.of(samples, notes)


class _Server:
    def __init__(
        self, http: Directive, server: Directive, scope: Scope, listeners: Listeners,
        notes: list[str],
    ) -> None:  # fmt: skip
        self._http = http
        self._server = server
        self._scope = scope
        self._listeners = listeners
        self._notes = notes

    def samples(self) -> Iterator[Sample]:
        verify = self._scope.last("ssl_verify_client")
        asks = verify is not None and verify.args != ["off"]
        for sample in self._samples():
            yield sample
            if asks and sample.is_secure and sample.method == "GET" and not sample.headers:
                yield replace(sample, shows_certificate=False)

    def _samples(self) -> Iterator[Sample]:
        bases = list(self._bases())
        names = list(self._names())
        for base in bases:
            for name in names[1:]:
                yield Sample("GET", f"{base.replace('*', name, 1)}/")
            yield Sample("GET", f"{base.replace('*', UNKNOWN_HOST, 1)}/sample?a=1")
        if not bases or not names:
            return
        # Plain and TLS of the same server do the same: all of it is played where most clients are.
        base = max(bases, key=lambda one: one.startswith("https"))
        for other in bases:
            if other != base:
                yield Sample("GET", f"{other.replace('*', names[0], 1)}/sample?a=1&b=%20")
        yield from self._of_locations(base.replace("*", names[0], 1))

    def _bases(self) -> Iterator[str]:
        """Scheme and address of each listener, with `*` for the host."""
        listens = [one.args for one in self._server.body if one.name == "listen"] or [["80"]]
        known = set()
        for args in listens:
            address = args[0]
            listener = self._listeners.at(address, tls="ssl" in args, h2="http2" in args)
            if listener is None or listener.port in known:
                continue
            known.add(listener.port)
            if listener.h2 and not listener.tls:
                self._notes.append(f"listen {address}: HTTP/2 without TLS is not played")
                continue
            yield listener.url("*")

    def _names(self) -> Iterator[str]:
        """A host for each name of the server."""
        names = [arg for one in self._server.body if one.name == "server_name" for arg in one.args]
        for name in names or ["default.invalid"]:
            if name.startswith("~"):
                sample = sample_of(name[1:])
                if sample is None:
                    self._notes.append(f"no request was made for server_name {name}")
                else:
                    yield sample
            elif name.startswith("*."):
                yield f"sample{name[1:]}"
            elif name.endswith(".*"):
                yield f"{name[:-1]}invalid"
            elif name.startswith("."):
                yield name[1:]
                yield f"sample{name}"
            elif name in ("", "_", "localhost") or "$" in name:
                yield "default.invalid" if name != "localhost" else name
            else:
                yield name

    def _of_locations(self, base: str) -> Iterator[Sample]:
        listener = self._listeners.of(Sample("GET", base).port)
        h2 = listener is not None and listener.tls and listener.h2
        yield from samples_of_path(base, "/", full=not locations_of(self._server), h2=h2)
        yield from self._rewritten(base, self._server)
        yield from self._of_maps(base)
        for chain in _below(self._server):
            location = chain[-1]
            paths = list(self._paths(location))
            if not paths:
                continue
            scope = self._scope
            for block in chain:
                scope = scope.inside(block.body)
            yield from samples_of_path(base, paths[0], full=True, h2=h2)
            for path in paths[1:]:
                yield Sample("GET", base + path)
            yield from self._rewritten(base, location)
            yield from self._special(base + paths[0], scope)

    def _paths(self, location: Directive) -> Iterator[str]:
        """Paths that a location is for, and some that are close to it."""
        modifier, text = parts_of(location.args)
        if modifier in ("~", "~*"):
            ignore_case = modifier == "~*"
            sample = sample_of(text, ignore_case=ignore_case)
            if sample is None:
                self._notes.append(
                    f"{location.place}: no request was made for location {modifier} {text}"
                )
                return
            yield sample if sample.startswith("/") else f"/sample{sample}"
            yield (sample if sample.startswith("/") else f"/sample{sample}").swapcase()
            return
        if modifier == "@":
            return
        path = text.replace(" ", "%20")
        yield path
        if modifier == "=":
            yield f"{path.rstrip('/')}/sample"
            return
        folder = path if path.endswith("/") else f"{path}/"
        yield f"{folder}sample"
        yield f"{folder}sample.html"
        if path != "/":
            yield folder.rstrip("/")
            yield f"{folder.rstrip('/')}sample"
            yield folder
        yield f"{folder}a%20b/%C3%A9?q=%2F&q=2"
        yield f"{folder}a%2Fb"
        yield f"{folder}a//b"
        yield f"{folder}./x/../sample"

    def _rewritten(self, base: str, block: Directive) -> Iterator[Sample]:
        """A request for each pattern that a block rewrites or redirects."""
        for directive in block.body:
            if directive.name == "rewrite" and directive.args:
                sample = sample_of(directive.args[0])
                if sample is None:
                    self._notes.append(
                        f"{directive.place}: no request was made for rewrite {directive.args[0]}"
                    )
                    continue
                path = sample if sample.startswith("/") else f"/{sample}"
                yield Sample("GET", f"{base}{path}")
                yield Sample("GET", f"{base}{path}?x=1")
            elif directive.name == "if" and directive.block is not None:
                yield from self._rewritten(base, directive)
                yield from _for_condition(base, directive.args)

    def _of_maps(self, base: str) -> Iterator[Sample]:
        """A request for each value of the maps whose variables this server uses."""
        used = {
            name for one in walk(self._server.body) for arg in one.args
            for name in re.findall(r"\$\{?(\w+)", arg)
        }  # fmt: skip
        maps = {one.args[1].lstrip("$"): one for one in self._http.body
                if one.name == "map" and len(one.args) == 2}  # fmt: skip
        # The source of a map may be the variable of another one.
        for _ in maps:
            used |= {one.args[0].lstrip("$") for name, one in maps.items() if name in used}
        for name, one in maps.items():
            if name not in used:
                continue
            for entry in one.body:
                if entry.name not in ("default", "hostnames", "volatile", "include"):
                    yield from _with_value(base, one.args[0], entry.name)

    def _special(self, url: str, scope: Scope) -> Iterator[Sample]:
        """Requests for what is configured in and around a location."""
        if scope.last("grpc_pass"):
            grpc: Headers = [("content-type", "application/grpc"), ("te", "trailers")]
            method = url.rstrip("/") + "/verify.Service/Call"
            yield Sample("POST", method, grpc, _GRPC_MESSAGE, Protocol.H2)
        if scope.last("proxy_pass"):
            yield Sample("GET", url, upgrade_headers())
            yield Sample("GET", url, [(ASK, "redirect-below")])
        realm = scope.last("auth_basic")
        if realm is not None and realm.args[0] != "off":
            for user in (f"{USER}:{PASSWORD}", f"{USER}:wrong", "nobody:nothing"):
                token = base64.b64encode(user.encode()).decode()
                yield Sample("GET", url, [("authorization", f"Basic {token}")])
        if scope.last("allow", "deny"):
            yield Sample("GET", url, source="127.0.0.1")
        if scope.last("limit_req"):
            yield Sample("GET", url, burst=BURST)
        if scope.last("auth_request"):
            for status in ("401", "403", "500"):
                yield Sample("GET", url, [(ASK, status)])
        limit = scope.last("client_max_body_size")
        yield from samples_of_size(url, size_of(limit) if limit else _DEFAULT_MAX_BODY)


def _for_condition(base: str, args: Sequence[str]) -> Iterator[Sample]:
    """A request that meets a condition of `if`."""
    if len(args) < 3:
        yield from _with_value(base, args[0] if args else "", "1")
        return
    variable, operator, value = args[0], args[1], args[2]
    is_pattern = operator.lstrip("!").startswith("~")
    mark = ("~*" if "*" in operator else "~") if is_pattern else ""
    yield from _with_value(base, variable, mark + value)


def _with_value(base: str, variable: str, value: str) -> Iterator[Sample]:
    """A request for which a variable has a value, or one that matches `~PATTERN`; none if that is
    not a client's to choose."""
    if value.startswith("~"):
        ignore_case = value.startswith("~*")
        found = sample_of(value.lstrip("~*"), ignore_case=ignore_case)
    else:
        found = value.removeprefix("\\")
    if not found:
        return
    if variable == "$request_method" and found.isupper():
        yield Sample(found, f"{base}/sample")
    elif variable.startswith("$http_"):
        name = variable.removeprefix("$http_").replace("_", "-")
        asks = upgrade_headers() if name == "upgrade" else [(name, found)]
        yield Sample("GET", f"{base}/sample", asks)
    elif variable.startswith("$cookie_"):
        yield Sample("GET", f"{base}/sample", [("cookie", f"{variable[8:]}={found}")])
    elif variable.startswith("$arg_"):
        yield Sample("GET", f"{base}/sample?{variable[5:]}={found}")
    elif variable in ("$uri", "$request_uri") and found.startswith("/"):
        yield Sample("GET", base + found)


def _below(block: Directive) -> Iterator[list[Directive]]:
    """All locations in a server, each behind those that it is in."""
    for location in locations_of(block):
        yield [location]
        yield from ([location, *inner] for inner in _below(location))
