"""`proxy_redirect`: where redirects of origins lead."""

from __future__ import annotations

import re
from collections.abc import Iterator

from quicedge.config.filter_validation import location_problem
from quicedge.config.url_prefix import SCHEME, split_url
from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.filters import Filter
from quicedge.migrate.nginx.matching import pattern_rule
from quicedge.migrate.nginx.notebook import Notebook
from quicedge.migrate.nginx.outcomes import State
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.variables import Names, UnsayableError, literal, template

_EFFECTS = visible.client("location", "refresh")
_SEGMENTS = "redirects of the origin are rewritten by whole segments"


def redirects(handler: Directive, state: State, names: Names, note: Notebook) -> Iterator[Filter]:
    """The filter for what nginx does to the redirects of an origin: what is configured, or else its
    own address becomes the path of the location."""
    directives = state.scope.all("proxy_redirect")
    rules: dict[str, str] = {}
    for directive in directives or [handler]:
        if directive.args == ["off"]:
            note.translated(directive)
            break
        try:
            old, new = _rule(directive, handler, state, names)
        except UnsayableError as error:
            note.left_out(directive, str(error), *_EFFECTS)
            continue
        if not old:
            continue
        if directive is not handler:
            note.translated(directive)
        if _depends_on_segments(old, new):
            note.different(directive, _SEGMENTS, *_EFFECTS)
        rules.setdefault(old, new)
    if rules:
        yield {"rewrite_location": {"map": rules}}


def _rule(directive: Directive, handler: Directive, state: State, names: Names) -> tuple[str, str]:
    """What is replaced by what; nothing: there is nothing to replace. Raises UnsayableError."""
    args = directive.args
    if directive is handler or args == ["default"]:
        old, new = _default(handler, state)
    elif args[0].startswith("~"):
        old, new = pattern_rule(args[0], args[-1], names)
    else:
        old, new = template(args[0], names), template(args[-1], names)
    if old and (problem := location_problem(old, new)):
        raise UnsayableError(problem)
    return old, new


def _default(handler: Directive, state: State) -> tuple[str, str]:
    url = handler.args[0]
    place = split_url(url.encode())
    if place is None or "$" in url or "://unix:" in url:
        # nginx has no default, or one that no URL begins with.
        return "", ""
    if not place[1]:
        return literal(f"{url}/"), "/"
    return literal(url), literal(state.location.pattern)


_BARE = re.compile(r"[^/]+://[^/]+")
"""A URL without a path."""


def _depends_on_segments(old: str, new: str) -> bool:
    """Whether nginx, which replaces characters, may make something else of some URL."""
    if old.startswith("~") or SCHEME.fullmatch(old.encode()):
        return False
    if _BARE.fullmatch(old) and _BARE.fullmatch(new):
        return False
    return not (old.endswith("/") and new.endswith("/"))
