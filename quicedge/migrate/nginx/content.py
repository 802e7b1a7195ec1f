"""Routes: what the rules of a place become."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from quicedge.migrate.document import Section
from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.access import (
    NobodyError,
    basic_auth,
    connection_limits,
    networks,
    request_rates,
)
from quicedge.migrate.nginx.compression import compression
from quicedge.migrate.nginx.error_pages import ErrorPages
from quicedge.migrate.nginx.filters import Filter, error_answer
from quicedge.migrate.nginx.headers import response_headers
from quicedge.migrate.nginx.matching import Place, conjoin
from quicedge.migrate.nginx.outcomes import Content, Outcome, Redirect, Respond, Rule, State
from quicedge.migrate.nginx.proxies import Proxies
from quicedge.migrate.nginx.sites import Sites
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.subrequests import Subrequests
from quicedge.migrate.nginx.upstreams import Upstreams
from quicedge.migrate.nginx.variables import UnsayableError
from quicedge.migrate.nginx.world import World

NOT_HTTP = ("fastcgi_pass", "uwsgi_pass", "scgi_pass", "memcached_pass")
_PASSES = ("proxy_pass", "grpc_pass", *NOT_HTTP)
_CODE = ("content_by_lua", "js_content", "perl", "empty_gif")
"""Other handlers that quicedge cannot run, by how their names begin."""
_LOCKS = (
    "access_by_lua", "access_by_lua_block", "access_by_lua_file", "auth_digest", "auth_gss",
    "auth_jwt", "auth_ldap", "auth_oidc", "auth_pam", "auth_spnego",
)  # fmt: skip
"""Directives that refuse requests in ways of their own. Where one counts, nobody passes."""


def handler_of(state: State) -> Directive | None:
    """What a location passes requests on with."""
    for block in reversed(state.entered):
        for directive in block:
            if directive.name in _PASSES:
                return directive
    return None


def is_unsayable(outcome: Outcome) -> bool:
    """Whether quicedge cannot serve what a location serves."""
    if not isinstance(outcome, Content):
        return False
    handler = handler_of(outcome.state)
    return handler is not None and handler.name in NOT_HTTP


class Routes:
    """Makes the routes of rules."""

    def __init__(self, world: World, upstreams: Upstreams) -> None:
        self._world = world
        self._note = world.notebook
        self._sites = Sites(world, upstreams)
        self._subrequests = Subrequests(world, upstreams)
        self._proxies = Proxies(world, upstreams, self._subrequests)
        self._error_pages = ErrorPages(world, self._sites)

    def of_rule(self, place: Place, rule: Rule) -> Iterator[Section]:
        """The routes for a rule, without their hosts."""
        outcome = rule.outcome
        where: dict[str, Any] = {}
        if place.is_exact:
            where["path_exact"] = place.path
        elif "path_exact" not in rule.match and place.path != "/":
            where["path"] = place.path
        where |= rule.match
        comments = [_comment(outcome)]
        origin = outcome.origin
        if isinstance(outcome, Content):
            for match, keys in self._content(outcome.state):
                yield Section({**where, **match, **keys}, comments, origin)
            return
        keys = self._answer(outcome)
        yield Section({**where, **keys}, comments, origin)

    # --- answers ----------------------------------------------------------------------------------

    def _answer(self, outcome: Redirect | Respond) -> dict[str, Any]:
        state = outcome.state
        filters, media_type = response_headers(state.scope, None, state.asked.names, self._world)
        if isinstance(outcome, Redirect):
            settings: dict[str, Any] = {"to": outcome.to}
            if outcome.status != 302:
                settings["status"] = outcome.status
            return {"filters": [*filters, {"redirect": settings}]}
        self._unreached(state)
        if not outcome.body and outcome.status >= 400:
            return {"filters": [*filters, error_answer(outcome.status)]}
        settings = {"status": outcome.status}
        if outcome.body:
            settings["body"] = outcome.body
            settings["content_type"] = media_type or self._default_type(state)
        return {"filters": [*filters, {"respond": settings}]}

    def _default_type(self, state: State) -> str:
        default = state.scope.last("default_type")
        if default is None:
            return "text/plain"
        self._note.translated(default)
        return default.args[0]

    def _unreached(self, state: State) -> None:
        """Directives that nginx does not come to, because `return` answers before."""
        for directive in state.scope.own:
            if directive.name in ("allow", "deny", "auth_basic", "satisfy", "limit_req"):
                self._note.left_out(directive, "without effect: return answers before")

    # --- content ----------------------------------------------------------------------------------

    def _content(self, state: State) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Further conditions and keys of the routes of a location."""
        except_block = next((d for d in state.scope.own if d.name == "limit_except"), None)
        if except_block is None:
            yield from self._admitted(state)
            return
        self._note.translated(except_block)
        methods = [*except_block.args]
        if "GET" in methods and "HEAD" not in methods:
            methods.append("HEAD")
        match = conjoin(state.match, {"methods": methods})
        if match is not None:
            for further, keys in self._admitted(state):
                yield {**match, **further}, keys

        others = replace(state, scope=state.scope.inside(except_block.body))
        yield from self._admitted(others)

    def _admitted(self, state: State) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """The routes for those who may have the content of a location."""
        keys, filters = self._handled(state)
        scope = state.scope
        rates = request_rates(scope, self._world)
        if rates:
            keys["requests"] = rates
        connection_limits(scope, self._world)
        satisfy = scope.last("satisfy")
        self._note.translated(satisfy)
        try:
            allowed = networks(scope, self._world)
        except NobodyError:
            allowed = {"deny": ["0.0.0.0/0", "::/0"]}
        is_any = satisfy is not None and satisfy.args[0] == "any"
        guards: list[Filter] = []
        try:
            guards = list(self._guards(state))
        except UnsayableError:
            filters = _replaced(filters, 401)
            keys = {}
        if is_any and allowed is not None and guards:
            # Where clients are told apart already, all of them need the password.
            if "allow" in allowed and "clients" not in state.match:
                if "deny" in allowed:
                    yield {"clients": allowed["deny"]}, _route(keys, guards, filters)
                yield {"clients": allowed["allow"]}, _route(keys, [], filters)
            yield {}, _route(keys, guards, filters)
            return
        if allowed is not None and set(allowed) == {"deny"} and "0.0.0.0/0" in allowed["deny"]:
            before, _ = _split(filters)
            yield {}, {"filters": [*before, error_answer(403)]}
            return
        if allowed is not None:
            guards = [{"access": allowed}, *guards]
        yield {}, _route(keys, guards, filters)

    def _guards(self, state: State) -> Iterator[Filter]:
        """Passwords, and other services that are asked. Raises UnsayableError."""
        auth = basic_auth(state.scope, self._world)
        if auth is not None:
            yield {"basic_auth": auth}
        request = state.scope.last("auth_request")
        if request is not None:
            if request.args[0] == "off":
                self._note.translated(request)
            else:
                yield self._subrequests.forward_auth(request, state)

    def _handled(self, state: State) -> tuple[dict[str, Any], list[Filter]]:
        """The keys and filters of what serves a location, but for who may have it."""
        handler = handler_of(state)
        prefix = None if handler is None else handler.name.partition("_")[0]
        headers, _ = response_headers(state.scope, prefix, state.asked.names, self._world)
        self._too_large(state)
        before = [*compression(state.scope, self._world), *headers]
        if handler is not None and handler.name in NOT_HTTP:
            kind = handler.name.partition("_")[0]
            words = (
                f"quicedge does not speak {kind}; answered 501 until a server that speaks HTTP "
                "stands before the application"
            )
            self._note.left_out(handler, words, visible.status("", 501))
            self._world.supply(f"{handler.place}: {handler.text} is answered 501")
            return {}, [*before, error_answer(501)]
        code = next((d for d in state.scope.own if d.name.startswith(_CODE)), None)
        if code is not None:
            self._note.left_out(code, "no counterpart; answered 501", visible.status("", 501))
            self._world.supply(f"{code.place}: {code.text} is answered 501")
            return {}, [*before, error_answer(501)]
        lock = next((d for d in self._locks(state) if d.args[:1] != ["off"]), None)
        if lock is not None:
            words = "who may pass is not known to quicedge; answered 501"
            self._note.left_out(lock, words, visible.status("", 501), visible.REACHED)
            self._world.supply(f"{lock.place}: {lock.text} refuses requests; all are answered 501")
            return {}, [*before, error_answer(501)]
        status = next((d for d in state.scope.own if d.name in ("stub_status", "api")), None)
        if status is not None:
            words = "answered 404; /metrics of the admin API has figures"
            self._note.left_out(status, words, visible.status("", 404))
            return {}, [*before, error_answer(404)]
        try:
            if handler is not None:
                keys, more = self._proxies.serve(handler, state)
                return keys, [*before, *self._error_pages.of(state, _first(keys)), *more]
            served = self._sites.serve(state)
        except UnsayableError as error:
            if handler is not None:
                effects = (visible.status("", 501), visible.REACHED)
                self._note.left_out(handler, f"{error}; answered 501", *effects)
            return {}, [*before, error_answer(501)]
        if served is None:
            return {}, [*before, error_answer(404)]
        upstream, more = served
        return {"upstream": upstream}, [*before, *self._error_pages.of(state, upstream), *more]

    def _too_large(self, state: State) -> None:
        """nginx looks at the length of requests before `if`, and answers 413 without its fields."""
        inner, outer = (scope.all("add_header") for scope in (state.scope, state.location.scope))
        if inner == outer:
            return
        names = [directive.args[0] for directive in (*inner, *outer)]
        for directive in inner:
            words = "413 has these fields too, and not those around the if"
            self._note.different(directive, words, *visible.errors(*names))

    def _locks(self, state: State) -> list[Directive]:
        """What decides who may pass, and is not translated."""
        return [d for name in _LOCKS for d in state.scope.all(name)]


def _first(keys: Mapping[str, Any]) -> str:
    """The upstream of a route, or the first of several."""
    return str(keys.get("upstream") or next(iter(keys["split"]["shares"])))


def _comment(outcome: Outcome) -> str:
    state, origin = outcome.state, outcome.origin
    location = state.location
    where = os.path.basename(origin.file)
    if location.is_server:
        return f"{where}:{origin.line}: {origin.text}".rstrip("{ }")
    name = " ".join(["location", *location.directive.args])
    if state.is_within:
        name += ", within a segment"
    if origin is location.directive:
        return f"{where}:{origin.line}: {name}"
    return f"{where}:{origin.line}: {origin.text} (in {name})"


def _route(
    keys: dict[str, Any], guards: Sequence[Filter], filters: Sequence[Filter]
) -> dict[str, Any]:
    before, after = _split(filters)
    both = [*before, *guards, *after]
    return {**keys, "filters": both} if both else dict(keys)


_FIRST = ("compress", "error_pages")


def _split(filters: Sequence[Filter]) -> tuple[list[Filter], list[Filter]]:
    """The filters that stand before those that refuse, and the others."""
    before = [
        item
        for item in filters
        if next(iter(item)) in _FIRST or "response" in item.get("headers", {})
    ]
    return before, [item for item in filters if item not in before]


def _replaced(filters: Sequence[Filter], status: int) -> list[Filter]:
    """The same filters with an error in place of the content."""
    return [*_split(filters)[0], error_answer(status)]
