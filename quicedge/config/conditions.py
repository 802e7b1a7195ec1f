"""Semantic validation of the conditions of routes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from quicedge.config.networks import network_problems
from quicedge.config.patterns import compile_pattern
from quicedge.config.problems import Problem
from quicedge.config.schema import Route, TlsFacts

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_EXTENSION = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_QUERY_NAME = re.compile(r"[!-%'-<>-~]+")


def validate_conditions(where: str, route: Route) -> Iterator[Problem]:
    """Yield what is wrong with the conditions of a route."""
    if route.path_regex is not None and (problem := _pattern(route.path_regex)):
        yield Problem(f"{where}.path_regex", problem)
    for index, name in enumerate(route.extensions):
        if not _EXTENSION.fullmatch(name):
            meant = name.lower().lstrip("*.")
            yield Problem(f"{where}.extensions[{index}]", f"{name!r} must be written {meant!r}")
    for index, name in enumerate(route.methods):
        if not _TOKEN.fullmatch(name):
            yield Problem(f"{where}.methods[{index}]", f"{name!r} is not a method")
        elif name != name.upper():
            yield Problem(
                f"{where}.methods[{index}]",
                f"{name!r} would match no request: methods are case-sensitive; "
                f"write {name.upper()!r}",
            )
    for key, names in (("headers", _TOKEN), ("cookies", _TOKEN), ("query", _QUERY_NAME)):
        for name, value in getattr(route, key).items():
            if not names.fullmatch(name):
                yield Problem(f"{where}.{key}.{name}", f"{name!r} is not a name that can occur")
            if value.startswith("~") and (problem := _pattern(value[1:])):
                yield Problem(f"{where}.{key}.{name}", problem)
    if any(name.lower() == "host" for name in route.headers):
        yield Problem(f"{where}.headers.host", "never matches; use the key host of the route")
    yield from network_problems(f"{where}.clients", route.clients)
    if route.tls is not None:
        tls = route.tls
        if tls == TlsFacts():
            yield Problem(
                f"{where}.tls",
                "is empty; set versions, server_names, early_data or client_certificate",
            )
        for key in ("client_subjects", "client_names"):
            values = getattr(tls, key)
            for index, value in enumerate(values):
                if value.startswith("~") and (problem := _pattern(value[1:])):
                    yield Problem(f"{where}.tls.{key}[{index}]", problem)
            if values and tls.client_certificate is False:
                yield Problem(f"{where}.tls.{key}", "never matches with client_certificate = false")


def _pattern(text: str) -> str | None:
    try:
        compile_pattern(text)
    except ValueError as error:
        return f"{text!r} {error}"
    return None
