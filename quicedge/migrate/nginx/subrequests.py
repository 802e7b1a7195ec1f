"""Requests that nginx makes by itself: those of `auth_request` and `mirror`."""

from __future__ import annotations

import re
from typing import Any

from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.filters import Filter
from quicedge.migrate.nginx.outcomes import State
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.upstreams import Address, Upstreams, address_of
from quicedge.migrate.nginx.variables import UnsayableError
from quicedge.migrate.nginx.world import World


class Subrequests:
    """Makes the filters that ask other services."""

    def __init__(self, world: World, upstreams: Upstreams) -> None:
        self._note = world.notebook
        self._upstreams = upstreams

    def forward_auth(self, request: Directive, state: State) -> Filter:
        """The filter of an `auth_request`; raises UnsayableError."""
        path = request.args[0]
        try:
            location, passed, address = _asked(path, state)
        except UnsayableError as error:
            words = f"{error}; all requests are answered 401"
            self._note.left_out(request, words, *visible.ANSWER)
            raise
        scope = state.scope.inside(location.body)
        found: dict[str, Any] = {"upstream": self._upstreams.of_address(address, scope, passed)}
        uri = address.uri or path
        if uri != "/":
            found["path"] = uri
        found |= self._copied(state)
        self._note.translated(passed, "the upstream of forward_auth")
        for directive in location.body:
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
        return {"forward_auth": found}

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

    def mirrors(self, state: State) -> list[Filter]:
        """The filters of the `mirror` directives that count."""
        found: list[Filter] = []
        for directive in state.scope.all("mirror"):
            if directive.args[0] == "off":
                self._note.translated(directive)
                continue
            try:
                location, passed, address = _asked(directive.args[0], state)
            except UnsayableError as error:
                self._note.left_out(directive, str(error), visible.REACHED)
                continue
            upstream = self._upstreams.of_address(address, state.scope, passed)
            methods = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
            found.append({"mirror": {"upstream": upstream, "methods": methods}})
            self._note.translated(passed, "the upstream of mirror")
            for inside in location.body:
                if inside.name == "internal":
                    self._note.translated(inside)
            words = "copies have the client's target, and content up to 1 MB"
            self._note.different(directive, words, visible.REACHED, visible.HOST)
            body = state.scope.last("mirror_request_body")
            if body is not None:
                self._note.left_out(body, "content up to max_body is copied")
        return found


def _asked(path: str, state: State) -> tuple[Directive, Directive, Address]:
    """The location that subrequests for a path go to, its `proxy_pass`, and what that asks; raises
    UnsayableError."""
    locations = [d for d in state.server if d.name == "location" and d.args[-1] == path]
    for passed in locations[0].body if locations else ():
        text = passed.args[0].replace("$request_uri", "{uri}") if passed.args else ""
        if passed.name == "proxy_pass" and "$" not in text:
            return locations[0], passed, address_of(text)
    raise UnsayableError(f"what {path} asks is not known")
