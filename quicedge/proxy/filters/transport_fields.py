"""`X-Quic-*`: describes the client's transport to origins."""

from __future__ import annotations

from typing import ClassVar

from quicedge.http.message import Fields, Request
from quicedge.proxy.client import Transport
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.base import Filter


class TransportFields(Filter):
    """Origins can trust these fields, because those of clients are dropped."""

    reserved: ClassVar[frozenset[bytes]] = frozenset(
        (
            b"x-quic-version", b"x-quic-rtt-ms", b"x-quic-min-rtt-ms", b"x-quic-loss",
            b"x-quic-congestion-window", b"x-quic-0rtt",
        )
    )  # fmt: skip

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        added = transport_fields(exchange.client.transport)
        return request.with_fields([*request.fields, *added])


def transport_fields(transport: Transport) -> Fields:
    """The fields for a transport; unknown values are omitted."""
    fields: Fields = [
        (b"x-quic-version", (transport.version or "").encode()),
        (b"x-quic-loss", b"%.4f" % transport.loss_ratio),
        (b"x-quic-congestion-window", b"%d" % transport.congestion_window),
        (b"x-quic-0rtt", b"1" if transport.early_data else b"0"),
    ]
    if transport.smoothed_rtt is not None:
        fields.append((b"x-quic-rtt-ms", b"%.3f" % (transport.smoothed_rtt * 1000)))
    if transport.min_rtt is not None:
        fields.append((b"x-quic-min-rtt-ms", b"%.3f" % (transport.min_rtt * 1000)))
    return fields
