"""Placeholders of Caddy as placeholders of templates."""

from __future__ import annotations

import re

from quicedge.migrate.caddy.conditions import UnsayableError

_KNOWN = {
    "http.request.host": "{host}",
    "http.request.hostport": "{authority}",
    "http.request.method": "{method}",
    "http.request.scheme": "{scheme}",
    "http.request.proto": "{protocol}",
    "http.request.uri": "{uri}",
    "http.request.orig_uri": "{uri}",
    "http.request.uri.path": "{path}",
    "http.request.orig_uri.path": "{path}",
    "http.request.uri.query": "{query}",
    "http.request.orig_uri.query": "{query}",
    "http.request.remote.host": "{client.ip}",
    "http.vars.client_ip": "{client.ip}",
    "http.request.remote.port": "{client.port}",
    "http.request.remote": "{client.ip}:{client.port}",
    "http.request.tls.version": "{tls.version}",
    "http.request.tls.cipher_suite": "{tls.cipher}",
    "http.request.tls.server_name": "{tls.server_name}",
    "http.request.uuid": "{trace_id}",
}
_PREFIXES = {
    "http.request.header.": "header",
    "http.request.cookie.": "cookie",
    "http.request.uri.query.": "query",
}
_GROUP = re.compile(r"http\.regexp\.(?:[A-Za-z_]\w*\.)?(\w+)")
_PLACEHOLDER = re.compile(r"\\?\{([^{}\s]*)\}|[{}]")


def template(text: str) -> str:
    """A text with placeholders of ours; raises UnsayableError."""

    def convert(match: re.Match[str]) -> str:
        name = match[1]
        if name is None or match[0].startswith("\\"):
            return match[0].lstrip("\\").replace("{", "{{").replace("}", "}}")
        if name in _KNOWN:
            return _KNOWN[name]
        for prefix, ours in _PREFIXES.items():
            if name.startswith(prefix):
                key = name.removeprefix(prefix)
                return f"{{{ours}.{key.lower() if ours == 'header' else key}}}"
        group = _GROUP.fullmatch(name)
        if group is not None:
            return f"{{match.{group[1]}}}"
        raise UnsayableError(f"there is no placeholder like {{{name}}}")

    return _PLACEHOLDER.sub(convert, text)


def is_constant(text: str) -> bool:
    return "{" not in text
