"""Caddy's handlers, run for all requests of a site at once: each way through them that ends with an
answer becomes a route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from quicedge.migrate.caddy import handlers
from quicedge.migrate.caddy.caddyfile import Written
from quicedge.migrate.caddy.conditions import (
    ALWAYS,
    Alternatives,
    Conditions,
    UnsayableError,
    alternatives_of,
)
from quicedge.migrate.caddy.placeholders import is_constant, template
from quicedge.migrate.caddy.remarks import LEFT_OUT, Remarks
from quicedge.migrate.effects import Aspect, Effect, Side

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_ADDED = 200
"""Routes that the matchers of a site may combine to beyond those that it has: each may double what
comes behind it, while a redirect for each of thousands of old pages adds one."""
_NOT_TRANSLATED = 501
"""What requests get whose handler cannot be said: none may pass a check that is missing."""
_DECISIVE = frozenset(
    ("reverse_proxy", "file_server", "authentication", "static_response", "error")
)
"""Handlers that answer or refuse; without another one, requests go on."""

JSON = Mapping[str, Any]


@dataclass(frozen=True)
class State:
    """How far requests have come, and what is known of them."""

    conditions: Conditions = field(default_factory=Conditions)
    negatives: tuple[Conditions, ...] = ()
    """What they have not met."""
    filters: tuple[JSON, ...] = ()
    root: str | None = None
    prefix: str = ""
    """What was stripped from their path."""
    path: str | None = None
    """Their whole path, if it was rewritten to one."""
    is_rewritten: bool = False
    """Their path was changed to something that is not known."""
    has_lost_suffix: bool = False
    """What their path has ended with may be gone; its prefixes are what they were."""
    fallback: str | None = None
    clean_urls: bool = False
    max_body: int | None = None
    groups: frozenset[str] = frozenset()
    """Of which one route has been taken; the others of the group are not for them."""

    def meeting(self, conditions: Conditions) -> State | None:
        """The same with further conditions; None: there are no such requests."""
        both = self.conditions.and_also(conditions)
        if both is None or any(both.is_within(negative) for negative in self.negatives):
            return None
        return replace(self, conditions=both)

    def missing(self, conditions: Sequence[Conditions]) -> State | None:
        """The same without those that meet one of the conditions."""
        if any(self.conditions.is_within(one) for one in conditions):
            return None
        return replace(self, negatives=(*self.negatives, *conditions))

    def through(self, *filters: JSON) -> State:
        return replace(self, filters=(*self.filters, *filters))


@dataclass(frozen=True)
class Leaf:
    """A way through the handlers that ends with an answer."""

    state: State
    upstream: str | None = None


def _number_of(routes: Sequence[JSON]) -> int:
    """The number of routes, with those in them."""
    return sum(
        1 + sum(_number_of(handler.get("routes", ())) for handler in route.get("handle", ()))
        for route in routes
    )


def _status(name: str) -> Effect:
    return Effect(Side.CLIENT, Aspect.STATUS, name)


Then = Callable[[State], list[Leaf]]

Passed = tuple[list[Leaf], State | None]
"""The ways that end in a route or a handler, and what goes on to the next; None: nothing does."""


class Flow:
    """Runs the handlers of one site."""

    def __init__(
        self, site: Written | None, remarks: Remarks, upstreams: Callable[[str, JSON], str],
        to_supply: dict[str, None],
    ) -> None:  # fmt: skip
        """`upstreams` adds an upstream under a name like the one given, and returns its name."""
        self._site = site
        self._remarks = remarks
        self._upstreams = upstreams
        self._to_supply = to_supply
        self._named: dict[int, str] = {}
        """Upstreams by the handlers that they come from."""
        self._most = _MOST_ADDED

    def leaves(self, routes: Sequence[JSON]) -> list[Leaf]:
        """The ways through a site, those with more conditions first; raises UnsayableError."""
        self._most = _MOST_ADDED + _number_of(routes)
        return self._routes(routes, State(), self._unanswered)

    @staticmethod
    def _unanswered(state: State) -> list[Leaf]:
        """What no handler answers: Caddy sends nothing, with status 200."""
        return [Leaf(state.through({"respond": {}}))]

    def _routes(self, routes: Sequence[JSON], state: State, then: Then) -> list[Leaf]:
        found: list[Leaf] = []
        for number, route in enumerate(routes):
            after = partial(self._routes, routes[number + 1 :], then=then)
            leaves, left = self._route(route, state, after)
            found += leaves
            if len(found) > self._most:
                raise UnsayableError(f"its matchers combine to more than {self._most} routes")
            if left is None:
                return found
            state = left
        return found + then(state)

    def _route(self, route: JSON, state: State, after: Then) -> Passed:
        chain = route.get("handle", ())
        self._remarks.found_with(chain, route.get("match", ()))
        group = route.get("group")
        if group in state.groups:
            return [], state
        tried = self._tried_files(route, state)
        if tried is not None:
            return [], tried
        try:
            wanted = self._alternatives(route, state)
            met = [both for one in wanted.one_of if (both := state.meeting(one)) is not None]
        except UnsayableError as error:
            return self._without_condition(chain, error, state, after)

        def taken(s: State) -> list[Leaf]:
            if group is not None:
                s = replace(s, groups=s.groups | {group})
            return self._chain(chain, s, after)

        if wanted.words:
            self._remark_on(chain, wanted.words)
        missed = state.missing(wanted.one_of)
        if not wanted.is_negated:
            return [leaf for one in met for leaf in taken(one)], missed
        found = [leaf for one in met for leaf in after(one)]
        return found + (taken(missed) if missed is not None else []), None

    def _alternatives(self, route: JSON, state: State) -> Alternatives:
        wanted = alternatives_of(route.get("match", ()))
        if wanted is ALWAYS:
            return wanted
        if state.is_rewritten and any(one.is_about_path for one in wanted.one_of):
            raise UnsayableError("a condition on a path that has been rewritten")
        if state.has_lost_suffix and any(one.is_about_end for one in wanted.one_of):
            raise UnsayableError("a condition on the end of a path that has been rewritten")
        if state.path is not None:
            # The path is known, whatever was asked for.
            here = Conditions(exact=state.path)
            met = [one for one in wanted.one_of if here.and_also(replace(one, further={}))]
            rest = tuple(Conditions(further=one.further) for one in met)
            return replace(wanted, one_of=rest)
        return replace(wanted, one_of=tuple(one.under(state.prefix) for one in wanted.one_of))

    def _without_condition(
        self, chain: Sequence[JSON], error: UnsayableError, state: State, after: Then
    ) -> Passed:
        """A route whose matcher cannot be said: checks are for everybody then, and the rest for
        nobody."""
        for handler in chain:
            kind = handler.get("handler")
            if kind == "authentication" or handlers.is_forward_auth(handler):
                words = f"for all requests: {error}"
                self._remarks.different(self._site, handler, words, *LEFT_OUT)
                return self._chain(chain, state, after), None
            self._leave_out(handler, str(error))
            if kind in ("static_response", "error"):
                self._to_supply[f"what is refused or answered by a matcher ({error})"] = None
        return [], state

    def _leave_out(self, handler: JSON, words: str) -> None:
        """A handler and all that it holds."""
        self._remarks.left_out(self._site, handler, words)
        for route in handler.get("routes", ()):
            for inner in route.get("handle", ()):
                self._leave_out(inner, words)

    def _remark_on(self, chain: Sequence[JSON], words: str) -> None:
        for handler in chain:
            if handler.get("handler") == "subroute":
                for route in handler.get("routes", ()):
                    self._remark_on(route.get("handle", ()), words)
            else:
                self._remarks.different(self._site, handler, words, *LEFT_OUT)

    def _tried_files(self, route: JSON, state: State) -> State | None:
        """The state after `try_files`, if the route is one."""
        matchers, chain = route.get("match", ()), route.get("handle", ())
        if len(matchers) != 1 or set(matchers[0]) != {"file"} or len(chain) != 1:
            return None
        if chain[0].get("uri") != "{http.matchers.file.relative}":
            return None
        tried = matchers[0]["file"].get("try_files", [])
        known = {"{http.request.uri.path}", "{http.request.uri.path}/"}
        fallback, clean = None, False
        for text in tried:
            if text == "{http.request.uri.path}.html":
                clean = True
            elif text not in known and is_constant(text) and text.startswith("/"):
                fallback = text
            elif text not in known:
                self._remarks.left_out(self._site, chain[0], f"{text} cannot be said")
                return state
        words = "names with a dot get 404, not the fallback" if fallback else ""
        if words:
            self._remarks.different(self._site, chain[0], words, _status("200->404"))
        else:
            self._remarks.translated(self._site, chain[0])
        return replace(state, fallback=fallback, clean_urls=clean)

    # --- handlers ---------------------------------------------------------------------------

    def _chain(self, chain: Sequence[JSON], state: State, then: Then) -> list[Leaf]:
        for number, handler in enumerate(chain):
            if handler.get("handler") == "subroute":
                return self._subroute(
                    handler, state, partial(self._chain, chain[number + 1 :], then=then)
                )
            try:
                leaves, left = self._handler(handler, state)
            except UnsayableError as error:
                leaves, left = self._unsayable(handler, error, state)
            if left is None:
                return leaves
            state = left
        return then(state)

    def _subroute(self, handler: JSON, state: State, after: Then) -> list[Leaf]:
        # Groups are those of one list of routes.
        groups = state.groups
        return self._routes(
            handler.get("routes", ()), state, lambda s: after(replace(s, groups=groups))
        )

    def _unsayable(self, handler: JSON, error: UnsayableError, state: State) -> Passed:
        if handler.get("handler") in _DECISIVE:
            words = f"{error}; its requests are answered {_NOT_TRANSLATED}"
            self._remarks.left_out(self._site, handler, words)
            return [Leaf(state.through({"respond": {"status": _NOT_TRANSLATED}}))], None
        self._remarks.left_out(self._site, handler, str(error))
        return [], state

    def _handler(self, handler: JSON, state: State) -> Passed:
        kind = str(handler.get("handler"))
        if kind == "reverse_proxy":
            return self._proxy(handler, state)
        if kind == "file_server":
            return [self._files(handler, state)], None
        if kind in ("static_response", "error"):
            return [self._answer(handler, state)], None
        if kind == "rewrite":
            return [], self._rewritten(handler, state)
        if kind == "vars":
            return [], self._variables(handler, state)
        if kind == "request_body":
            self._remarks.translated(self._site, handler)
            return [], replace(state, max_body=handler.get("max_size"))
        translate = {
            "headers": handlers.headers,
            "encode": handlers.encode,
            "authentication": handlers.basic_auth,
        }.get(kind)
        if translate is None:
            raise UnsayableError(f"quicedge has nothing like {kind}")
        done = translate(handler)
        self._remark(handler, done)
        return [], state.through(*done.filters)

    def _remark(self, handler: JSON, done: handlers.Translated) -> None:
        if done.words:
            self._remarks.different(self._site, handler, done.words, *done.effects)
        else:
            self._remarks.translated(self._site, handler)
        for remark in done.remarks:
            self._remarks.inner(self._site, handler, remark)

    def _variables(self, handler: JSON, state: State) -> State:
        others = set(handler) - {"handler", "root"}
        if others:
            words = f"variables ({', '.join(sorted(others))})"
            self._remarks.left_out(self._site, handler, words)
        if "root" not in handler:
            return state
        if not is_constant(handler["root"]):
            raise UnsayableError("a directory that is made from the request")
        self._remarks.translated(self._site, handler)
        return replace(state, root=handler["root"])

    def _rewritten(self, handler: JSON, state: State) -> State:
        if "strip_path_prefix" in handler:
            prefix = handler["strip_path_prefix"].rstrip("/")
            self._remarks.translated(self._site, handler)
            stripped = state.through({"rewrite": {"strip_prefix": prefix}})
            return replace(stripped, prefix=state.prefix + prefix)
        if "uri" in handler:
            target = template(handler["uri"])
            if not target.startswith(("/", "{path}", "{uri}")):
                raise UnsayableError(f"the target {handler['uri']}")
            settings: dict[str, Any] = {"path": target}
            if "?" in handler["uri"]:
                settings["query"] = "drop"
            self._remarks.translated(self._site, handler)
            known = handler["uri"].partition("?")[0] if is_constant(handler["uri"]) else None
            rewritten = state.through({"rewrite": settings})
            return replace(rewritten, path=known, is_rewritten=known is None)
        done = handlers.rewrite(handler)
        self._remark(handler, done)
        rewritten = state.through(*done.filters)
        if set(handler) == {"handler", "strip_path_suffix"}:
            return replace(rewritten, has_lost_suffix=True)
        return replace(rewritten, is_rewritten=True)

    def _answer(self, handler: JSON, state: State) -> Leaf:
        if handler.get("abort") or handler.get("close"):
            words = "answered 403, not cut off"
            self._remarks.different(self._site, handler, words, _status("0->403"))
            return Leaf(state.through({"respond": {"status": 403}}))
        status = handler.get("status_code", 500 if handler["handler"] == "error" else 200)
        if not str(status).isdigit():
            raise UnsayableError(f"the status {status} is made from the request")
        status = int(status)
        fields = {name.lower(): values for name, values in handler.get("headers", {}).items()}
        location = fields.pop("location", None)
        added: list[JSON] = []
        if location and status in _REDIRECTS:
            answer: JSON = {"redirect": {"to": template(location[0]), "status": status}}
        else:
            settings: dict[str, Any] = {"status": status}
            if handler.get("body"):
                settings["body"] = template(handler["body"])
            if "content-type" in fields:
                settings["content_type"] = fields.pop("content-type")[0]
            answer = {"respond": settings}
        if fields:
            values = {name: template(", ".join(value)) for name, value in fields.items()}
            added.append({"headers": {"response": {"set": values}}})
        if handler["handler"] == "error":
            self._remarks.different(self._site, handler, "answered without handle_errors")
        else:
            self._remarks.translated(self._site, handler)
        return Leaf(state.through(*added, answer))

    def _files(self, handler: JSON, state: State) -> Leaf:
        root = handler.get("root", state.root) or "."
        if not is_constant(root):
            raise UnsayableError("a directory that is made from the request")
        if handler.get("pass_thru"):
            raise UnsayableError("other handlers for files that do not exist")
        settings: dict[str, Any] = {"root": root}
        if "browse" in handler:
            settings["listing"] = True
        if handler.get("index_names"):
            settings["index"] = handler["index_names"]
        if state.fallback is not None:
            settings["fallback"] = state.fallback
        if state.clean_urls:
            settings["clean_urls"] = True
        if handler.get("precompressed"):
            order = handler.get("precompressed_order") or list(handler["precompressed"])
            settings["precompressed"] = [name for name in order if name in ("zstd", "br", "gzip")]
        remarks = []
        # Caddy hides its own configuration by its path.
        hidden = [name for name in handler.get("hide", ()) if not name.startswith("/")]
        if hidden:
            remarks.append(handlers.Remark("hide", "only names that begin with a dot are hidden"))
        words = "lists of files look different" if "browse" in handler else ""
        done = handlers.Translated(remarks=remarks, words=words, effects=handlers.LISTED)
        self._remark(handler, done)
        if id(handler) not in self._named or state.fallback is not None:
            self._named[id(handler)] = self._upstreams("files", settings)
        return Leaf(state, self._named[id(handler)])

    def _proxy(self, handler: JSON, state: State) -> Passed:
        if id(handler) not in self._named:
            settings, remarks = handlers.upstream_of(handler)
            self._named[id(handler)] = self._upstreams("app", settings)
            self._remark(handler, handlers.Translated(remarks=remarks))
            if "sticky_cookie" in settings:
                words = "the cookie of lb_policy has another value"
                self._remarks.different(self._site, handler, words, *handlers.STUCK)
            if settings.get("protocol") == "h2":
                words = "WebSockets only if the origin offers extended CONNECT"
                self._remarks.different(self._site, handler, words, _status("502->501"))
        name = self._named[id(handler)]
        if handlers.is_forward_auth(handler):
            words = "the service is asked without the query and what describes the content"
            self._remarks.different(self._site, handler, words, *handlers.AUTHORIZED)
            return [], state.through(handlers.forward_auth(handler, name))
        if handler.get("handle_response"):
            raise UnsayableError("handlers for responses of the origin")
        filters: list[JSON] = []
        changes = dict(handler.get("headers") or {})
        if changes:
            done = handlers.headers(self._with_host(handler, changes))
            self._remark(handler, done)
            filters += done.filters
        target = (handler.get("rewrite") or {}).get("uri")
        if target:
            filters.append({"rewrite": {"path": template(target)}})
        return [Leaf(state.through(*filters), name)], None

    @staticmethod
    def _with_host(handler: JSON, changes: JSON) -> JSON:
        """The changes of header fields, with the address of the only server in place of its
        placeholder."""
        servers = [one["dial"] for one in handler.get("upstreams", ())]
        request = dict(changes.get("request") or {})
        values = dict(request.get("set") or {})
        for name, value in values.items():
            if value == ["{http.reverse_proxy.upstream.hostport}"]:
                if len(servers) != 1:
                    raise UnsayableError("the address of the chosen server in a field")
                values[name] = [servers[0].removesuffix(":80").removesuffix(":443")]
        if values:
            request["set"] = values
        return {**changes, **({"request": request} if request else {})}
