"""`Server-Timing`: where the time to the first byte went, told to clients (W3C Server Timing)."""

from __future__ import annotations

from quicedge.http.message import Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.base import Filter


class ServerTiming(Filter):
    """Adds time in the edge, of the origin, and the connection's RTT to origins' responses."""

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        if exchange.first_byte_at is None:
            return response  # the edge's own
        origin = exchange.origin
        total = exchange.first_byte_at - exchange.started_at
        # Until a connection to the origin is there, the time is ours.
        ours = (origin.queue_seconds or 0.0) if origin is not None else 0.0
        value = server_timing(total - ours, ours, exchange.client.transport.smoothed_rtt)
        fields = [*response.fields, (b"server-timing", value)]
        return Response(response.status, fields, response.version)


def server_timing(
    origin_seconds: float | None, edge_seconds: float, rtt_seconds: float | None
) -> bytes:
    """A `server-timing` value, in milliseconds."""
    parts = [b"edge;dur=%.1f" % (max(edge_seconds, 0.0) * 1000)]
    if origin_seconds is not None:
        parts.append(b"origin;dur=%.1f" % (origin_seconds * 1000))
    if rtt_seconds is not None:
        parts.append(b'quic;desc="smoothed RTT";dur=%.1f' % (rtt_seconds * 1000))
    return b", ".join(parts)
