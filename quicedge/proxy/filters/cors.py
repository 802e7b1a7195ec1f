"""Cross-origin requests of browsers (the CORS protocol of the Fetch standard)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from quicedge.config import filters as config
from quicedge.http.message import Fields, Request, Response
from quicedge.http.vary import with_vary
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RequestResult, RouteFilter
from quicedge.proxy.reply import Reply


def _value(request: Request, name: bytes) -> bytes | None:
    return next((value for key, value in request.fields if key == name), None)


class Cors(RouteFilter):
    """Answers preflight requests, and says in responses which origins may read them."""

    def __init__(self, settings: config.Cors) -> None:
        self._any = "*" in settings.origins
        origins = [origin.lower() for origin in settings.origins]
        self._origins = frozenset(origin.encode() for origin in origins if "*" not in origin)
        wildcards = [origin.partition("*") for origin in origins if "*" in origin]
        self._wildcards = [
            re.compile(re.escape(start.encode()) + rb"[a-z0-9._-]+" + re.escape(end.encode()))
            for start, _, end in wildcards
            if start
        ]
        self._methods = b", ".join(name.encode() for name in settings.methods)
        self._echoes_headers = "*" in settings.headers
        self._headers = b", ".join(name.encode() for name in settings.headers)
        self._common: Fields = []
        if settings.credentials:
            self._common.append((b"access-control-allow-credentials", b"true"))
        self._exposed: Fields = []
        if settings.expose:
            exposed = b", ".join(name.encode() for name in settings.expose)
            self._exposed.append((b"access-control-expose-headers", exposed))
        self._max_age = b"%d" % settings.max_age
        self._depends = not self._any

    def _permitted(self, origin: bytes | None) -> bytes | None:
        """The value of Access-Control-Allow-Origin for an origin; None: it is not permitted."""
        if origin is None:
            return None
        if self._any:
            return b"*"
        lower = origin.lower()
        if lower in self._origins:
            return origin
        return origin if any(item.fullmatch(lower) for item in self._wildcards) else None

    def on_request(self, request: Request, exchange: Exchange) -> RequestResult:
        wanted = _value(request, b"access-control-request-method")
        if request.method != b"OPTIONS" or wanted is None or _value(request, b"origin") is None:
            return request
        fields: Fields = []
        if self._permitted(_value(request, b"origin")) is not None:
            fields.append((b"access-control-allow-methods", self._methods))
            headers = self._headers
            if self._echoes_headers:
                headers = _value(request, b"access-control-request-headers") or b""
            if headers:
                fields.append((b"access-control-allow-headers", headers))
            fields.append((b"access-control-max-age", self._max_age))
        return Reply(Response(204, fields))

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        permitted = self._permitted(_value(exchange.request, b"origin"))
        fields = [line for line in response.fields if line[0] not in _SET]
        if permitted is not None:
            fields.append((b"access-control-allow-origin", permitted))
            fields += self._common
            fields += self._exposed
        if self._depends:
            fields = with_vary(fields, b"origin")
        return Response(response.status, fields, response.version)


_SET = frozenset(
    (
        b"access-control-allow-origin", b"access-control-allow-credentials",
        b"access-control-expose-headers",
    )
)  # fmt: skip
"""What the origin says of it: two answers would be none."""


def build(given: config.Cors, where: str, resources: Resources) -> Iterator[RouteFilter]:
    yield Cors(given)
