"""Alt-Svc: advertises the HTTP/3 endpoint of the edge (RFC 7838)."""

from __future__ import annotations

from quicedge.http.message import Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.base import Filter


class AltSvc(Filter):
    """Replaces the origin's Alt-Svc, because the origin does not know the edge's port.

    Responses over HTTP/3 carry it too: it renews what their client remembers (section 2.2), which
    otherwise would have to come back to TCP each time that expires.
    """

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        client = exchange.client
        source = client.alt_svc
        value = source.value_for(client.share.address) if source is not None else None
        if b"alt-svc" in dict(response.fields):
            response.fields = [field for field in response.fields if field[0] != b"alt-svc"]
        if value is not None:
            response.fields.append((b"alt-svc", value))
        return response
