"""Alt-Svc: where the same origin is to be had over HTTP/3 (RFC 7838)."""

from __future__ import annotations

from quicedge.config.schema import AltSvc as AltSvcConfig
from quicedge.http.message import Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.base import Filter


class AltSvc(Filter):
    """Puts the edge's own in place of the origin's, which does not know our port."""

    def __init__(self, config: AltSvcConfig) -> None:
        self._port = config.port
        self._max_age = config.max_age

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        port = self._port or exchange.client.local_port
        if port is None:
            return response
        fields = [field for field in response.fields if field[0] != b"alt-svc"]
        # RFC 7838 section 3; an empty host is the one that was asked.
        fields.append((b"alt-svc", b'h3=":%d"; ma=%d' % (port, self._max_age)))
        return Response(response.status, fields, response.version)
