"""Header fields that tell browsers to be strict."""

from __future__ import annotations

from collections.abc import Iterator

from quicedge.config import filters as config
from quicedge.http.message import Fields, Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RouteFilter


class SecurityHeaders(RouteFilter):
    """Adds the fields that a response does not have itself."""

    def __init__(self, settings: config.SecurityHeaders) -> None:
        self._fields: Fields = [(b"x-content-type-options", b"nosniff")]
        if settings.hsts_max_age:
            value = b"max-age=%d" % settings.hsts_max_age
            value += b"; includeSubDomains" if settings.hsts_subdomains else b""
            value += b"; preload" if settings.hsts_preload else b""
            self._fields.append((b"strict-transport-security", value))
        if settings.frame != "allow":
            self._fields.append((b"x-frame-options", settings.frame.upper().encode()))
        for name, text in (
            (b"referrer-policy", settings.referrer_policy),
            (b"cross-origin-opener-policy", settings.opener_policy),
            (b"content-security-policy", settings.content_security_policy),
            (b"permissions-policy", settings.permissions_policy),
        ):
            if text:
                self._fields.append((name, text.encode()))

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        present = {name for name, _ in response.fields}
        missing = [line for line in self._fields if line[0] not in present]
        return Response(response.status, response.fields + missing, response.version)


def build(given: config.SecurityHeaders, where: str, resources: Resources) -> Iterator[RouteFilter]:
    yield SecurityHeaders(given)
