"""Alt-Svc: advertises the HTTP/3 endpoint of the edge (RFC 7838)."""

from __future__ import annotations

from quicedge.config.schema import AltSvc as AltSvcConfig
from quicedge.http.message import Field, Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.base import Filter


class AltSvc(Filter):
    """Replaces the origin's Alt-Svc, because the origin does not know the edge's port."""

    def __init__(self, config: AltSvcConfig) -> None:
        self._port = config.port
        self._max_age = config.max_age
        self._fields: dict[int, Field] = {}

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        port = self._port or exchange.client.local_port
        if port is None:
            return response
        fields = [field for field in response.fields if field[0] != b"alt-svc"]
        fields.append(self._field(port))
        return Response(response.status, fields, response.version)

    def _field(self, port: int) -> Field:
        """The field for a port; the edge listens on few."""
        field = self._fields.get(port)
        if field is None:
            # RFC 7838 section 3: an empty host means the host of the request.
            value = b'h3=":%d"; ma=%d' % (port, self._max_age)
            field = self._fields[port] = b"alt-svc", value
        return field
