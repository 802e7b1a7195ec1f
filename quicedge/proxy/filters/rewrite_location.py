"""Changes where redirects of origins lead.

Only what the origin has sent is changed, by the first rule that matches. A relative redirect is the
client's to resolve and stays as it is, unless a rule is for paths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from quicedge.config import filters as config
from quicedge.config.filterlimits import TEMPLATE_MAX_VALUE
from quicedge.config.filters import UPSTREAM
from quicedge.config.url_prefix import SCHEME, joined, path_below, split_url
from quicedge.http.grammar import FIELD_VALUE
from quicedge.http.message import Fields, Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.mounts import Mounts
from quicedge.proxy.filters.replacement import Replacement
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RouteFilter
from quicedge.proxy.templates import Template

Rule = Callable[[bytes, Exchange], bytes | None]
"""What a URL becomes; None: the rule is not for it."""


class RewriteLocation(RouteFilter):
    """Rewrites the URLs in Location, Refresh and other fields of responses."""

    def __init__(self, settings: config.RewriteLocation, mounts: Mounts) -> None:
        self._names = frozenset(name.lower().encode() for name in settings.fields)
        self._rules = [_rule(start, to, mounts) for start, to in settings.map.items()]

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        names = self._names
        if not any(name in names for name, _ in response.fields):
            return response
        if exchange.first_byte_at is None:
            return response  # not the origin's
        fields: Fields = []
        for name, value in response.fields:
            if name in names:
                rewrite = self._refresh if name == b"refresh" else self._url
                value = rewrite(value, exchange)
            fields.append((name, value))
        return Response(response.status, fields, response.version)

    def _url(self, url: bytes, exchange: Exchange) -> bytes:
        for rule in self._rules:
            found = rule(url, exchange)
            if found is not None:
                is_sound = found and FIELD_VALUE.fullmatch(found)
                return found if is_sound and len(found) <= _longest(url) else url
        return url

    def _refresh(self, value: bytes, exchange: Exchange) -> bytes:
        """`5; url=https://example.com/`, where the URL may be in quotes."""
        match = _REFRESH.match(value)
        if match is None:
            return value
        url = value[match.end() :]
        quote = match[1]
        if quote:
            if len(url) < 2 or url[-1:] != quote:
                return value
            url = url[:-1]
        return value[: match.end()] + self._url(url, exchange) + quote


_REFRESH = re.compile(rb"[^=]*url[ \t]*=[ \t]*([\"']?)", re.IGNORECASE)


def _longest(url: bytes) -> int:
    """Bytes that the URL may have into which this one is rewritten."""
    return len(url) + TEMPLATE_MAX_VALUE


# --- rules ----------------------------------------------------------------------------------------


def _rule(start: str, to: str, mounts: Mounts) -> Rule:
    if start == UPSTREAM:
        return _of_upstream(Template(to, for_url=True), mounts)
    if start.startswith("~"):
        return _by_pattern(start[1:], to)
    template, target = Template(start, for_url=True), Template(to, for_url=True)
    if start.startswith("/"):
        return _below_path(template, target)
    if SCHEME.fullmatch(start.encode()):
        return _of_scheme(start.lower().encode(), target)
    return _below_url(template, target)


def _of_upstream(to: Template, mounts: Mounts) -> Rule:
    """For the addresses of the upstream itself, with the path that the edge has for its own."""

    def rule(url: bytes, exchange: Exchange) -> bytes | None:
        found = split_url(url)
        if found is None or not mounts.is_own(found[0], exchange):
            return None
        rest = found[1] if found[1][:1] == b"/" else b"/" + found[1]
        path = mounts.of(exchange).url_path(rest)
        return None if path is None else joined(to.fill(exchange), path)

    return rule


def _below_url(start: Template, to: Template) -> Rule:
    known = None if start.constant is None else split_url(start.constant)

    def rule(url: bytes, exchange: Exchange) -> bytes | None:
        prefix = known or split_url(start.fill(exchange))
        found = split_url(url)
        if prefix is None or found is None or found[0] != prefix[0]:
            return None
        rest = path_below(found[1], prefix[1])
        return None if rest is None else joined(to.fill(exchange), rest)

    return rule


def _below_path(start: Template, to: Template) -> Rule:
    def rule(url: bytes, exchange: Exchange) -> bytes | None:
        if url[:1] != b"/" or url[1:2] in (b"/", b"\\"):
            return None
        rest = path_below(url, start.fill(exchange))
        return None if rest is None else joined(to.fill(exchange), rest)

    return rule


def _of_scheme(start: bytes, to: Template) -> Rule:
    def rule(url: bytes, exchange: Exchange) -> bytes | None:
        if url[: len(start)].lower() != start:
            return None
        return to.fill(exchange) + url[len(start) :]

    return rule


def _by_pattern(text: str, to: str) -> Rule:
    replacement = Replacement(text, to)

    def rule(url: bytes, exchange: Exchange) -> bytes | None:
        found = replacement.of(url, exchange)
        return None if found is None else joined(found, b"")

    return rule


def build(given: config.RewriteLocation, where: str, resources: Resources) -> Iterator[RouteFilter]:
    yield RewriteLocation(given, resources.mounts)
