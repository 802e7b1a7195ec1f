"""Templates: text with placeholders such as `{client.ip}` or `{header.user-agent}`."""

from __future__ import annotations

import re
from typing import NamedTuple

from quicedge.config.problems import nearest

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

PLAIN = frozenset(
    (
        "&query", "?query", "client.ip", "client.port", "host", "authority", "method", "path",
        "protocol", "query",
        "route.host", "route.path", "route.upstream", "scheme", "tls.cipher",
        "tls.group", "tls.server_name", "tls.version", "trace_id", "transport.congestion_window",
        "transport.connection_id", "transport.loss", "transport.min_rtt_ms", "transport.protocol",
        "transport.quic_version", "transport.rtt_ms", "uri",
    )
)  # fmt: skip
"""Placeholders without an argument."""

NAMED = frozenset(("cookie", "header", "match", "query"))
"""Placeholders with a name behind a dot: `{cookie.NAME}`, `{header.NAME}`, `{query.NAME}`, and
`{match.1}` for a group of the path_regex of the route."""


class Placeholder(NamedTuple):
    """A place in a template, and what belongs there."""

    name: str
    argument: str = ""


def parse_template(text: str) -> list[str | Placeholder]:
    """The parts of a template; ValueError describes what is wrong. `{{` and `}}` are braces."""
    parts: list[str | Placeholder] = []
    literal, end = "", 0
    for match in _PART.finditer(text):
        literal += text[end : match.start()]
        end = match.end()
        if match[0] in ("{{", "}}"):
            literal += match[0][0]
            continue
        if match[1] is None:
            raise ValueError(f"has a single {match[0]!r}; write {match[0] * 2!r} for a brace")
        if literal:
            parts.append(literal)
            literal = ""
        parts.append(_placeholder(match[1]))
    literal += text[end:]
    if literal:
        parts.append(literal)
    return parts


def _placeholder(text: str) -> Placeholder:
    if text in PLAIN:
        return Placeholder(text)
    name, dot, argument = text.partition(".")
    if name in NAMED and dot and _TOKEN.fullmatch(argument):
        return Placeholder(name, argument)
    if name in NAMED:
        raise ValueError(f"{{{text}}} needs a name: {{{name}.NAME}}")
    raise ValueError(f"has an unknown placeholder {{{text}}}{nearest(text, PLAIN)}")
