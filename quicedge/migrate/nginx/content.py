"""Routes: what the rules of a place become."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from quicedge.config.filter_validation import template_problem
from quicedge.http.phrases import reason_phrase
from quicedge.migrate.document import Section
from quicedge.migrate.effects import Effect
from quicedge.migrate.errors import SourceError
from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.access import (
    NobodyError,
    basic_auth,
    connection_limits,
    networks,
    request_rates,
)
from quicedge.migrate.nginx.compression import compression
from quicedge.migrate.nginx.conditions import Table
from quicedge.migrate.nginx.headers import Filter, request_headers, response_headers
from quicedge.migrate.nginx.matching import Place, conjoin
from quicedge.migrate.nginx.outcomes import Content, Outcome, Redirect, Respond, Rule, State
from quicedge.migrate.nginx.sites import Sites
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.upstreams import Address, Upstreams, address_of
from quicedge.migrate.nginx.values import duration, number_of, size, size_of, time_of
from quicedge.migrate.nginx.variables import (
    DIVIDED,
    PART,
    UnsayableError,
    literal,
    template,
    variables,
)
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
_MAX_BODY = 1 << 20
"""nginx's default of client_max_body_size."""


def handler_of(state: State) -> Directive | None:
    """What a location passes requests on with."""
    depth = len(state.location.scope.blocks) - 1
    for block in reversed(state.scope.blocks[depth:]):
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
        self._upstreams = upstreams
        self._sites = Sites(world, upstreams)

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
        settings = {"status": outcome.status}
        if outcome.body:
            settings["body"] = outcome.body
            settings["content_type"] = media_type or self._default_type(state)
        elif outcome.status >= 400:
            settings["body"] = f"{outcome.status} {reason_phrase(outcome.status)}\n"
        self._unreached(state)
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
            answer = {"respond": {"status": 403, "body": "403 Forbidden\n"}}
            yield {}, {"filters": [*before, answer]}
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
                yield {"forward_auth": self._forward_auth(request, state)}

    def _forward_auth(self, request: Directive, state: State) -> dict[str, Any]:
        path = request.args[0]
        inner = _location_at(path, state)
        passed = next((d for d in inner.body if d.name == "proxy_pass"), None) if inner else None
        if passed is None or "$" in passed.args[0].replace("$request_uri", ""):
            words = f"what {path} asks is not known; all requests are answered 401"
            self._note.left_out(request, words, *visible.ANSWER)
            raise UnsayableError(words)
        text = passed.args[0].replace("$request_uri", "")
        address = address_of(text)
        scope = state.scope.inside(inner.body if inner is not None else [])
        found: dict[str, Any] = {"upstream": self._upstreams.of_address(address, scope, passed)}
        uri = address.uri or path
        if "$request_uri" in passed.args[0]:
            uri = "{uri}"
        if uri != "/":
            found["path"] = uri
        found |= self._copied(state)
        self._note.translated(passed, "the upstream of forward_auth")
        if inner is not None:
            for directive in inner.body:
                if directive.name in ("internal", "proxy_pass_request_body"):
                    self._note.translated(directive)
                elif directive.name in ("proxy_set_header", "proxy_method"):
                    words = "the service is asked with the client's fields and x-forwarded-*"
                    effects = visible.origin(directive.args[0])
                    self._note.different(directive, words, visible.HOST, *effects)
        words = (
            "asked with GET, the client's fields and x-forwarded-*; every answer but 2xx goes to "
            "the client as it is"
        )
        self._note.different(
            request,
            words,
            *visible.ANSWER,
            visible.BODY,
            visible.HOST,
            visible.TARGET,
            visible.CONTENT,
            *visible.client("location", "www-authenticate", "content-type"),
            *visible.origin(
                "x-original-uri",
                "content-type",
                "content-length",
                "x-forwarded-method",
                "x-forwarded-uri",
            ),
        )
        return found

    def _copied(self, state: State) -> dict[str, Any]:
        """Fields of the answer that origins get."""
        names: list[str] = []
        for directive in state.scope.all("auth_request_set"):
            variable, text = directive.args[0], directive.args[1]
            source = re.fullmatch(r"\$upstream_http_(\w+)", text)
            users = [d for d in state.scope.all("proxy_set_header") if variable in d.args[-1]]
            if source is None or not users:
                self._note.left_out(directive, "only fields of the answer are copied, for origins")
                continue
            name = source[1].replace("_", "-").lower()
            names.append(name)
            self._note.translated(directive)
            for user in users:
                if user.args[0].lower() == name:
                    self._note.translated(user)
                else:
                    words = f"as {name}, its name in the answer"
                    self._note.different(user, words, *visible.origin(user.args[0], name))
        return {"copy_headers": list(dict.fromkeys(names))} if names else {}

    def _handled(self, state: State) -> tuple[dict[str, Any], list[Filter]]:
        """The keys and filters of what serves a location, but for who may have it."""
        handler = handler_of(state)
        prefix = None if handler is None else handler.name.partition("_")[0]
        headers, _ = response_headers(state.scope, prefix, state.asked.names, self._world)
        before = [*compression(state.scope, self._world), *headers]
        if handler is not None and handler.name in NOT_HTTP:
            kind = handler.name.partition("_")[0]
            words = (
                f"quicedge does not speak {kind}; answered 501 until a server that speaks HTTP "
                "stands before the application"
            )
            self._note.left_out(handler, words, visible.status("", 501))
            self._world.supply(f"{handler.place}: {handler.text} is answered 501")
            return {}, [*before, _answer(501)]
        code = next((d for d in state.scope.own if d.name.startswith(_CODE)), None)
        if code is not None:
            self._note.left_out(code, "no counterpart; answered 501", visible.status("", 501))
            self._world.supply(f"{code.place}: {code.text} is answered 501")
            return {}, [*before, _answer(501)]
        lock = next((d for d in self._locks(state) if d.args[:1] != ["off"]), None)
        if lock is not None:
            words = "who may pass is not known to quicedge; answered 501"
            self._note.left_out(lock, words, visible.status("", 501), visible.REACHED)
            self._world.supply(f"{lock.place}: {lock.text} refuses requests; all are answered 501")
            return {}, [*before, _answer(501)]
        status = next((d for d in state.scope.own if d.name in ("stub_status", "api")), None)
        if status is not None:
            words = "answered 404; /metrics of the admin API has figures"
            self._note.left_out(status, words, visible.status("", 404))
            return {}, [*before, _answer(404)]
        try:
            if handler is not None:
                keys, more = self._proxied(handler, state)
                return keys, [*before, *self._error_pages(state, _first(keys)), *more]
            served = self._sites.serve(state)
        except UnsayableError as error:
            if handler is not None:
                effects = (visible.status("", 501), visible.REACHED)
                self._note.left_out(handler, f"{error}; answered 501", *effects)
            return {}, [*before, _answer(501)]
        if served is None:
            return {}, [*before, _answer(404)]
        upstream, more = served
        return {"upstream": upstream}, [*before, *self._error_pages(state, upstream), *more]

    def _locks(self, state: State) -> list[Directive]:
        """What decides who may pass, and is not translated."""
        return [d for name in _LOCKS for d in state.scope.all(name)]

    # --- proxies ----------------------------------------------------------------------------------

    def _dividing(self, handler: Directive, state: State) -> tuple[str, Table] | None:
        """The variable that chooses the upstream, and the `split_clients` that it is from, if any
        does."""
        for variable in variables(handler.args[0]):
            value = state.asked.names.values.get(variable, "")
            name = value.removeprefix(DIVIDED) if value.startswith(DIVIDED) else variable
            table = self._world.tables.get(name)
            if table is not None and table.directive.name == "split_clients":
                return variable, table
        return None

    def _asked(self, handler: Directive, state: State) -> tuple[Address, dict[str, Any]]:
        """The one upstream that is asked; raises UnsayableError."""
        names, scope = state.asked.names, state.scope
        prefix = "grpc" if handler.name == "grpc_pass" else "proxy"
        text = template(handler.args[0], names)
        if not re.match(r"(?:[a-z]+://)?+(?:unix:)?[^/?{}]+(?:$|[/?]|\{uri\}|\{path\})", text):
            raise UnsayableError(f"which server is asked depends on the request: {text}")
        address = address_of(text, prefix if prefix == "grpc" else "http")
        return address, {"upstream": self._upstreams.of_address(address, scope, handler)}

    def _split(
        self, handler: Directive, variable: str, table: Table, state: State
    ) -> tuple[Address, dict[str, Any]]:
        """The upstreams that clients are divided between; raises UnsayableError."""
        note = self._note
        shares: dict[str, float] = {}
        addresses = []
        for entry in table.directive.body:
            names = state.asked.names.with_values({variable: literal(entry.args[0])})
            address = address_of(template(handler.args[0], names))
            addresses.append(address)
            name = self._upstreams.of_address(address, state.scope, handler)
            left = 100 - sum(shares.values())
            share = left if entry.name == "*" else _percent(entry)
            shares[name] = round(shares.get(name, 0) + share, 2)
            note.translated(entry)
        if len({address.uri for address in addresses}) > 1:
            raise UnsayableError("the shares have paths of their own")
        keys = [(name, _split_key(name)) for name in variables(table.source)]
        by = next((key for _, key in keys if key is not None), None)
        if by is None:
            raise UnsayableError(f"shares of {table.source}, not of clients, a header or a cookie")
        # The largest share is the one that the others take their clients from.
        first = max(shares, key=lambda name: shares[name])
        split: dict[str, Any] = {"shares": {first: shares[first], **shares}}
        if by != "client":
            split["by"] = by
        if seed := PART.sub("", table.source):
            split["seed"] = seed
        split["shares"] = {name: _number(share) for name, share in split["shares"].items()}
        words = "another hash: clients may come to another side than before"
        if len(keys) > 1:
            words = f"by {by} alone, and with another hash"
        note.different(table.directive, words, visible.SERVER)
        if not any(d.args[0].lower() == "host" for d in state.scope.all("proxy_set_header")):
            note.different(handler, "origins are asked for the client's host", visible.HOST)
        if len(shares) < 2:
            return addresses[0], {"upstream": first}
        return addresses[0], {"split": split}

    def _proxied(self, handler: Directive, state: State) -> tuple[dict[str, Any], list[Filter]]:
        names, scope = state.asked.names, state.scope
        prefix = "grpc" if handler.name == "grpc_pass" else "proxy"
        divided = self._dividing(handler, state)
        if divided is not None:
            address, keys = self._split(handler, *divided, state)
            shares = keys.get("split", {}).get("shares", {})
            if set(shares) == {entry.args[0] for entry in divided[1].directive.body}:
                # The value is the name of the upstream.
                names = names.with_values({divided[0]: "{route.upstream}"})
                for directive in scope.all("proxy_set_header"):
                    if divided[0] in variables(directive.args[-1]):
                        effects = visible.origin(directive.args[0])
                        self._note.different(directive, "the side may be another", *effects)
        else:
            address, keys = self._asked(handler, state)
        keys |= self._max_body(scope)
        keys |= self._timeouts(scope, prefix)
        if not any(d.args[0].lower() == "upgrade" for d in scope.all("proxy_set_header")):
            # nginx forwards no request to switch protocols unless it is told to.
            keys["upgrade"] = []
        rewrites, has_moved = self._target(handler, address, state)
        host = _host_of(address) if "upstream" in keys else None
        headers = request_headers(scope, prefix, host, names, self._note)
        self._redirects(handler, scope, has_moved, headers)
        note = self._note
        version = scope.last("proxy_http_version")
        note.translated(version, "HTTP/1.1 with kept connections, or HTTP/2")
        buffers = self._buffers(scope, prefix)
        mirror = self._mirror(state)
        return keys, [*rewrites, *(h for h in headers if h), *buffers, *mirror]

    def _max_body(self, scope: Any) -> dict[str, Any]:
        directive = scope.last("client_max_body_size")
        if directive is None:
            return {"max_body": size(_MAX_BODY)}
        self._note.translated(directive)
        most = size_of(directive)
        return {"max_body": size(most)} if most else {}

    def _timeouts(self, scope: Any, prefix: str) -> dict[str, Any]:
        note = self._note
        found: dict[str, Any] = {}
        read = scope.last(f"{prefix}_read_timeout")
        if read is not None:
            seconds = time_of(read)
            time = duration(seconds)
            found = {"first_byte_timeout": time, "idle_timeout": time} if seconds else {}
            if seconds and any(
                d.args[0].lower() == "upgrade" for d in scope.all("proxy_set_header")
            ):
                found["tunnel_idle_timeout"] = time
            note.translated(read, ", ".join(found))
        send = scope.last(f"{prefix}_send_timeout")
        if send is not None:
            note.different(send, "idle_timeout counts once the response has begun")
        retry = scope.last(f"{prefix}_next_upstream")
        tries = scope.last(f"{prefix}_next_upstream_tries")
        if retry is not None and retry.args[0] == "off":
            note.translated(retry, "retries = 0")
            found["retries"] = 0
        elif retry is not None:
            words = "requests are repeated that no origin has processed"
            effects = (visible.SERVER, visible.REACHED, visible.status(502), visible.status(504))
            note.different(retry, words, *effects)
        if tries is not None and tries.args[0] != "0" and found.get("retries") != 0:
            found["retries"] = min(max(number_of(tries) - 1, 0), 100)
            note.translated(tries, f"retries = {found['retries']}")
        limit = scope.last(f"{prefix}_next_upstream_timeout")
        if limit is not None:
            note.left_out(limit, "retries are limited by retry_budget")
        return found

    def _target(
        self, handler: Directive, address: Address, state: State
    ) -> tuple[list[Filter], bool]:
        """The filters that make what the origin is asked for; and whether they change it."""
        rewrites: list[Filter] = [{"rewrite": dict(rewrite)} for rewrite in state.rewrites]
        uri, location = address.uri, state.location
        note = self._note
        if "$" in handler.args[0].partition("://")[2].partition("/")[2] or (
            "$" in handler.args[0] and uri
        ):
            note.translated(handler)
            if uri in ("{uri}", "/{uri}", "{path}{?query}", ""):
                return rewrites, bool(rewrites)
            text = uri if uri.startswith(("/", "{uri}", "{path}")) else f"/{uri}"
            if problem := template_problem(text):
                raise UnsayableError(problem)
            if text.endswith("{uri}") and text != "{uri}":
                text = f"{text.removesuffix('{uri}')}{{path}}{{?query}}"
            keeps = text.endswith("{?query}")
            rewrite: dict[str, Any] = {"path": text.removesuffix("{?query}")}
            if not keeps:
                rewrite["query"] = "drop"
            return [{"rewrite": rewrite}], True
        if uri and not state.rewrites:
            words = "the path is forwarded as clients encode it"
            note.different(handler, words, visible.ENCODING)
        else:
            note.translated(handler)
        if not uri or state.rewrites:
            if uri and uri != "/":
                words = f"{uri} counts only where no rewrite has changed the path"
                note.different(handler, words, visible.TARGET)
            return rewrites, bool(rewrites)
        if location.modifier == "=":
            return [{"rewrite": {"path": uri}}], uri != location.pattern
        if "?" in uri or "{" in uri:
            raise UnsayableError(f"{uri} in place of a prefix")
        prefix = location.pattern if location.is_prefix else "/"
        if prefix == uri:
            return [], False
        if not prefix.endswith("/") and uri.endswith("/"):
            words = f"{prefix}/x becomes {uri}x, without the second slash"
            note.different(handler, words, visible.TARGET)
        if prefix.endswith("/") == uri.endswith("/") and prefix.endswith("/"):
            rewrite = {}
            if prefix != "/":
                rewrite["strip_prefix"] = prefix.rstrip("/")
            if uri != "/":
                rewrite["add_prefix"] = uri.rstrip("/")
            return [{"rewrite": rewrite}], True
        pattern = f"^{re.escape(prefix)}/*" if uri.endswith("/") else f"^{re.escape(prefix)}"
        return [{"rewrite": {"pattern": pattern, "replacement": uri}}], True

    def _redirects(
        self, handler: Directive, scope: Any, has_moved: bool, headers: Sequence[Filter]
    ) -> None:
        """nginx rewrites the Location of what it forwards."""
        note = self._note
        directives = scope.all("proxy_redirect")
        is_off = any(d.args[0] == "off" for d in directives)
        for directive in directives:
            if directive.args[0] == "off":
                note.translated(directive)
            else:
                words = "redirects of origins are forwarded as they are"
                note.left_out(directive, words, *visible.client("location", "refresh"))
        host = any(
            "host" in h.get("headers", {}).get("request", {}).get("set", {}) for h in headers
        )
        if not is_off and not directives and handler.name == "proxy_pass" and (has_moved or host):
            words = "redirects of the origin are forwarded as they are"
            note.different(handler, words, *visible.client("location", "refresh"))

    def _buffers(self, scope: Any, prefix: str) -> list[Filter]:
        found: dict[str, bool] = {}
        for name, key in (("proxy_request_buffering", "request"), ("proxy_buffering", "response")):
            directive = scope.last(name) if prefix == "proxy" else None
            if directive is None:
                continue
            if directive.args[0] == "on":
                found[key] = True
            self._note.translated(directive, "" if key in found else "content is streamed")
        return [{"buffer": found}] if found else []

    def _mirror(self, state: State) -> list[Filter]:
        found: list[Filter] = []
        for directive in state.scope.all("mirror"):
            if directive.args[0] == "off":
                self._note.translated(directive)
                continue
            path = directive.args[0]
            inner = _location_at(path, state)
            passed = (
                next((d for d in inner.body if d.name == "proxy_pass"), None) if inner else None
            )
            text = "" if passed is None else re.sub(r"\$request_uri$", "", passed.args[0])
            if passed is None or "$" in text:
                self._note.left_out(directive, f"what {path} asks is not known", visible.REACHED)
                continue
            upstream = self._upstreams.of_address(address_of(text), state.scope, passed)
            methods = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
            found.append({"mirror": {"upstream": upstream, "methods": methods}})
            self._note.translated(passed, "the upstream of mirror")
            for inside in inner.body if inner is not None else ():
                if inside.name == "internal":
                    self._note.translated(inside)
            words = "copies have the client's target, and content up to 1 MB"
            self._note.different(directive, words, visible.REACHED, visible.HOST)
            body = state.scope.last("mirror_request_body")
            if body is not None:
                self._note.left_out(body, "content up to max_body is copied")
        return found

    def _error_pages(self, state: State, upstream: str) -> list[Filter]:
        """`error_page` as a filter."""
        pages: dict[str, str] = {}
        note = self._note
        site = self._world.document.upstreams[upstream].keys
        is_site = "root" in site
        intercepts = is_site or state.scope.is_on("proxy_intercept_errors")
        for directive in state.scope.all("error_page"):
            *codes, page = directive.args
            plain = [code for code in codes if re.fullmatch(r"[45]\d\d", code)]
            if codes == ["497"]:
                note.translated(directive, "plain HTTP on a TLS port is redirected")
            elif not page.startswith("/") or "$" in page:
                words = "only files take the place of errors"
                note.left_out(directive, words, *_shown(codes))
            elif len(plain) < len(codes):
                if site.get("fallback") != page:
                    words = "the status of an error stays"
                    note.left_out(directive, words, *_shown(codes))
            elif plain == ["404"] and site.get("not_found") == page:
                words = "not_found of the site, without etag"
                note.different(directive, words, *visible.client("etag", "last-modified"))
            else:
                # Only origins say that something does not exist.
                replaced = plain if intercepts else [code for code in plain if code != "404"]
                self._error_page(directive, replaced, page, state, pages)
        if not pages:
            return []
        settings: dict[str, Any] = {"pages": pages}
        if intercepts:
            settings["origin"] = True
        note.translated(state.scope.last("proxy_intercept_errors"))
        return [{"error_pages": settings}]

    def _error_page(
        self, directive: Directive, codes: Sequence[str], page: str, state: State,
        pages: dict[str, str],
    ) -> None:  # fmt: skip
        try:
            path = self._sites.page_file(page, state)
        except UnsayableError as error:
            self._note.left_out(directive, str(error), *_shown(codes))
            return
        if codes and not os.path.exists(path):
            self._world.supply(f"{path}: the page for {', '.join(codes)} ({directive.place})")
        effects = visible.client(
            "etag", "last-modified", "cache-control", "accept-ranges", "set-cookie"
        )
        self._note.different(directive, "error_pages, with cache-control: no-store", *effects)
        pages.update({code: path for code in codes if code not in pages})


def _shown(codes: Sequence[str]) -> tuple[Effect, ...]:
    """The errors that clients see as they are, and not what nginx makes of them."""
    found = [visible.status("", code) for code in codes if not code.startswith("=")]
    fields = (visible.ERROR_FIELDS, *visible.client("location", "content-type"))
    return (*found, visible.BODY, visible.REACHED, *fields)


def _location_at(path: str, state: State) -> Directive | None:
    """The location of the server that subrequests for a path go to."""
    server = state.scope.blocks[1] if len(state.scope.blocks) > 1 else ()
    return next((d for d in server if d.name == "location" and d.args[-1] == path), None)


def _first(keys: Mapping[str, Any]) -> str:
    """The upstream of a route, or the first of several."""
    return str(keys.get("upstream") or next(iter(keys["split"]["shares"])))


def _split_key(variable: str) -> str | None:
    """What divides clients."""
    if variable in ("remote_addr", "binary_remote_addr"):
        return "client"
    if variable == "request_uri":
        return "target"
    if variable in ("uri", "document_uri"):
        return "path"
    if variable in ("request_id", "msec"):
        return "request"
    for prefix, kind in (("http_", "header"), ("cookie_", "cookie")):
        if (name := variable.removeprefix(prefix)) != variable:
            return f"{kind}:{name.replace('_', '-') if kind == 'header' else name}"
    return None


def _percent(entry: Directive) -> float:
    found = re.fullmatch(r"(\d{1,2}(?:\.\d{1,2})?)%", entry.name)
    if found is None:
        raise SourceError(f"{entry.place}: {entry.name!r} is not a share such as 0.5%")
    return float(found[1])


def _number(share: float) -> float | int:
    return int(share) if share == int(share) else share


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
    """The same filters with an answer in place of the content."""
    return [*_split(filters)[0], _answer(status)]


def _answer(status: int) -> Filter:
    return {"respond": {"status": status, "body": f"{status} {reason_phrase(status)}\n"}}


def _host_of(address: Address) -> str:
    """What nginx sends as Host by default."""
    if address.host.startswith("unix:"):
        return "localhost"
    default = ":443" if address.is_tls else ":80"
    return address.host.removesuffix(default)
