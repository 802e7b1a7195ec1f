"""Header fields of requests and responses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from quicedge.config.filter_validation import FRAMING, template_problem
from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.filters import Filter
from quicedge.migrate.nginx.notebook import Notebook
from quicedge.migrate.nginx.scope import Scope
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.values import seconds
from quicedge.migrate.nginx.variables import (
    Names,
    UnsayableError,
    literal,
    template,
    variables,
)
from quicedge.migrate.nginx.world import World

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_BY_EDGE = {
    "x-forwarded-for": ("$proxy_add_x_forwarded_for", "$remote_addr", "$realip_remote_addr"),
    "x-forwarded-proto": ("$scheme", "https"),
    "x-forwarded-host": ("$host", "$http_host"),
    "early-data": ("$ssl_early_data",),
}
"""Fields that the edge sets, and the values that are what it sets them to."""


def value_of(text: str, names: Names) -> str:
    """The template for the value of a field; raises UnsayableError."""
    found = template(text, names)
    if problem := template_problem(found):
        raise UnsayableError(problem)
    if not found.isascii():
        raise UnsayableError("values of fields must be ASCII")
    return " ".join(found.split("\n"))


def request_headers(
    scope: Scope, prefix: str, host: str | None, names: Names, note: Notebook
) -> list[Filter]:
    """`proxy_set_header` and what nginx sets by itself. `host`: of the origin, which nginx sends
    unless it is told otherwise; None: it has several."""
    names = names.with_values({"proxy_port": (host or "").partition(":")[2] or "80"})
    copied = {
        directive.args[0].lstrip("$")
        for directive in scope.all("auth_request_set")
        if directive.args[-1].startswith("$upstream_http_")
    }
    if host is not None:
        names = names.with_values({"proxy_host": host})
    rules: dict[str, str] = {}
    removed: list[str] = []
    given = False
    for directive in scope.all(f"{prefix}_set_header"):
        name, text = directive.args[0].lower(), directive.args[-1]
        given = given or name == "host"
        if copied & set(variables(text)) or _is_by_edge(directive, name, text, names, note):
            continue
        if not _NAME.fullmatch(name):
            note.left_out(directive, f"{name} is not the name of a field")
            continue
        if text == "":
            note.translated(directive)
            removed.append(name)
            continue
        try:
            rules[name] = value_of(text, names)
        except UnsayableError as error:
            note.left_out(directive, str(error), *_request_effect(name))
            continue
        note.translated(directive)
    if not given and host is not None:
        rules = {"host": host, **rules}
    found: Filter = {}
    if removed:
        found["remove"] = [name for name in removed if name != "host"]
    if rules:
        found["set"] = rules
    return [{"headers": {"request": {k: v for k, v in found.items() if v}}}] if found else []


def _request_effect(name: str) -> tuple[Any, ...]:
    return (visible.HOST,) if name == "host" else visible.origin(name)


def _is_by_edge(directive: Directive, name: str, text: str, names: Names, note: Notebook) -> bool:
    """Whether the edge does by itself what a directive asks for."""
    if name in ("connection", "upgrade"):
        note.translated(directive, "WebSockets and kept connections need no configuration")
    elif name == "content-length" and text == "":
        note.translated(directive, "the edge says how long content is")
    elif name in FRAMING:
        note.left_out(directive, f"{name} frames messages and is the edge's own")
    elif name == "host" and (text == "$http_host" or (text == "$host" and names.port == 443)):
        note.translated(directive)
    elif name == "proxy" and text == "":
        note.translated(directive, "the field is always dropped")
    elif text in _BY_EDGE.get(name, ()):
        if text == "$proxy_add_x_forwarded_for":
            words = "the edge sends it, without what the client claims"
            note.different(directive, words, *visible.origin(name))
        else:
            note.translated(directive, "the edge sends it")
    else:
        return False
    return True


def response_headers(
    scope: Scope, prefix: str | None, names: Names, world: World
) -> tuple[list[Filter], str | None]:
    """`add_header`, `expires` and `proxy_hide_header` as filters; and the media type that is set,
    for answers of the edge's own."""
    note = world.notebook
    names = names.with_values(_by_media_type(scope, world))
    removed = _hidden(scope, prefix, note) if prefix is not None else []
    rules: dict[str, str] = {}
    added: list[tuple[str, str]] = []
    media_type = None
    cache = _expires(scope, names, note)
    for directive in scope.all("add_header"):
        name = directive.args[0].lower()
        text = directive.args[1] if len(directive.args) > 1 else ""
        if name == "alt-svc":
            note.translated(directive, "the edge sends it")
            continue
        if not text:
            note.translated(directive)
            continue
        try:
            if name in FRAMING or not _NAME.fullmatch(name):
                raise UnsayableError(f"{name} cannot be set")
            value = value_of(text, names)
        except UnsayableError as error:
            note.left_out(directive, str(error), *visible.client(name))
            continue
        if name == "content-type":
            media_type = value
        elif name == "cache-control" and cache is not None:
            cache = f"{cache}, {value}"
        else:
            added.append((name, value))
        if directive.args[-1] == "always" and len(directive.args) > 2:
            note.translated(directive)
        else:
            note.different(directive, "with errors too, as with always", *visible.errors(name))
    if cache is not None:
        rules["cache-control"] = cache
    return _as_filters(removed, rules, added), media_type


def _by_media_type(scope: Scope, world: World) -> dict[str, str]:
    """The values of maps that give a field to responses of some media types only."""
    found = {}
    for directive in scope.all("add_header"):
        for name in variables(
            directive.args[-1] if len(directive.args) == 2 else directive.args[1]
        ):
            table = world.tables.get(name)
            if table is None or table.source != "$sent_http_content_type":
                continue
            entries = [entry for entry in table.entries if entry.args and entry.args[0]]
            values = {entry.args[0] for entry in entries} | {table.default_value} - {""}
            if len(values) != 1:
                continue
            found[name] = literal(values.pop())
            words = "for responses of all media types"
            world.notebook.different(directive, words, *visible.client(directive.args[0]))
            for used in (table.directive, *table.directive.body):
                world.notebook.different(used, words)
    return found


def _as_filters(
    removed: Sequence[str], rules: dict[str, str], added: Sequence[tuple[str, str]]
) -> list[Filter]:
    """Rules for responses; a name that is added twice needs another filter."""
    first: dict[str, Any] = {}
    if removed:
        first["remove"] = list(removed)
    if rules:
        first["set"] = rules
    filters: list[dict[str, Any]] = [first]
    for name, value in added:
        at = next((f for f in filters if name not in f.get("add", {})), None)
        if at is None:
            at = {}
            # The last one is applied first.
            filters.insert(0, at)
        at.setdefault("add", {})[name] = value
    return [{"headers": {"response": rules}} for rules in filters if rules]


def _hidden(scope: Scope, prefix: str, note: Notebook) -> list[str]:
    found = []
    for directive in scope.all(f"{prefix}_hide_header"):
        name = directive.args[0].lower()
        if name in FRAMING or not _NAME.fullmatch(name):
            note.left_out(directive, f"{name} cannot be hidden", *visible.client(name))
            continue
        note.translated(directive)
        if name not in found:
            found.append(name)
    for directive in scope.all(f"{prefix}_pass_header"):
        note.translated(directive, "all fields are forwarded")
    return found


def _expires(scope: Scope, names: Names, note: Notebook) -> str | None:
    """The value of Cache-Control."""
    directive = scope.last("expires")
    if directive is None:
        return None
    words = "as cache-control, without `expires`, and with errors too"
    effects = (*visible.client("expires"), *visible.errors("cache-control"))
    try:
        value = template(directive.args[-1], names)
        found = _cache_control(value) if len(directive.args) == 1 else None
        if found is None and value != "off":
            raise UnsayableError("a time of the day, or one that depends on the file")
    except UnsayableError as error:
        note.left_out(directive, str(error), *effects, *visible.client("cache-control"))
        return None
    if found is None:
        note.translated(directive)
    else:
        note.different(directive, words, *effects)
    return found


def _cache_control(text: str) -> str | None:
    if text == "max":
        return "max-age=315360000"
    if text == "epoch" or text.startswith("-"):
        return "no-cache"
    try:
        return f"max-age={seconds(text.removeprefix('+')):.0f}"
    except ValueError:
        return None
