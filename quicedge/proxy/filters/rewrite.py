"""Changes the target of requests on their way to the origin."""

from __future__ import annotations

import re
from collections.abc import Iterator

from quicedge.config import filters as config
from quicedge.config.filterlimits import MATCHED_LENGTH, TEMPLATE_MAX_VALUE
from quicedge.config.patterns import compile_pattern
from quicedge.http.grammar import AUTHORITY, PATH
from quicedge.http.message import Request
from quicedge.http.target import is_ambiguous, normal_path, whole_segments
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RequestResult, RouteFilter
from quicedge.proxy.reply import text_reply
from quicedge.proxy.templates import Template
from quicedge.telemetry.outcomes import Outcome

_DOT_SEGMENT = re.compile(rb"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)


class Rewrite(RouteFilter):
    """Rewrites the path in normal form, as routes see it (`http.target`).

    The route, with its limits, was chosen by the client's own path. A result that is no path, or
    that servers would understand in different ways, is answered 400.
    """

    def __init__(self, settings: config.Rewrite) -> None:
        self._strip = whole_segments(settings.strip_prefix)
        self._add = whole_segments(settings.add_prefix)
        self._path = None if settings.path is None else Template(settings.path, for_url=True)
        self._host = None if settings.host is None else Template(settings.host)
        self._pattern = None if settings.pattern is None else compile_pattern(settings.pattern)
        self._replacement = settings.replacement.encode()
        self._keeps_query = settings.query == "keep"

    def on_request(self, request: Request, exchange: Exchange) -> RequestResult:
        authority = request.authority
        if self._host is not None:
            authority = self._host.fill(exchange)
            if not AUTHORITY.fullmatch(authority):
                return text_reply(400, outcome=Outcome.MALFORMED, reason="rewritten to no host")
        if self._pattern is not None and _length_of_path(request.path) > MATCHED_LENGTH:
            # Unchanged it would be another path than the rule allows for.
            return text_reply(414, outcome=Outcome.URI_TOO_LONG)
        target = request.path if request.path == b"*" else self._target(request.path, exchange)
        if len(target) > len(request.path) + TEMPLATE_MAX_VALUE:
            return text_reply(414, outcome=Outcome.URI_TOO_LONG)
        if target != request.path and (
            not PATH.fullmatch(target) or is_ambiguous(target) or _has_dots(target)
        ):
            return text_reply(400, outcome=Outcome.MALFORMED, reason="rewritten to no clear path")
        rewritten = request.with_fields(request.fields)
        rewritten.authority, rewritten.path = authority, target
        return rewritten

    def _target(self, target: bytes, exchange: Exchange) -> bytes:
        _, mark, query = target.partition(b"?")
        if not self._keeps_query:
            mark = query = b""
        before = path = normal_path(target)
        strip = self._strip
        if strip and (path == strip or path.startswith(strip + b"/")):
            path = path[len(strip) :] or b"/"
        if self._pattern is not None:
            path = self._pattern.sub(self._replacement, path, 1)
        path = self._add + path
        if self._path is not None:
            path, _, own = self._path.fill(exchange).partition(b"?")
            query = b"&".join(part for part in (own, query) if part)
            mark = b"?" if query or own else b""
        if path == before:
            # As the client has sent it.
            return target.partition(b"?")[0] + mark + query
        # Two slashes at the start would be taken for a host.
        return b"/" + path.lstrip(b"/") + mark + query


def _length_of_path(target: bytes) -> int:
    mark = target.find(b"?")
    return len(target) if mark < 0 else mark


def _has_dots(target: bytes) -> bool:
    path = target.partition(b"?")[0]
    return (b"/." in path or b"/%2" in path) and _DOT_SEGMENT.search(path) is not None


def build(given: config.Rewrite, where: str, resources: Resources) -> Iterator[RouteFilter]:
    yield Rewrite(given)
