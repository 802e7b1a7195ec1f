"""`X-Transport-*`: describes the client's transport to origins."""

from __future__ import annotations

from typing import ClassVar

from quicedge.http.message import Fields, Request
from quicedge.proxy.client import Transport
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.base import Filter
from quicedge.telemetry.protocols import TransportKind

_FORMER = (b"x-quic-rtt-ms", b"x-quic-min-rtt-ms", b"x-quic-loss", b"x-quic-congestion-window")
"""Names that releases without TCP sent: an origin may still read and trust them."""


class TransportFields(Filter):
    """Origins can trust these fields, because those of clients are dropped."""

    reserved: ClassVar[frozenset[bytes]] = frozenset(
        (
            b"x-transport-protocol", b"x-transport-rtt-ms", b"x-transport-min-rtt-ms",
            b"x-transport-loss", b"x-transport-congestion-window", b"x-quic-version",
            b"x-quic-0rtt", *_FORMER,
        )
    )  # fmt: skip

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        added = transport_fields(exchange.client.transport)
        return request.with_fields([*request.fields, *added])


def transport_fields(transport: Transport) -> Fields:
    """The fields for a transport; unknown values are omitted."""
    fields: Fields = [(b"x-transport-protocol", transport.kind.value.encode())]
    if transport.kind is TransportKind.QUIC:
        fields.append((b"x-quic-version", (transport.version or "").encode()))
        fields.append((b"x-quic-0rtt", b"1" if transport.early_data else b"0"))
    loss = transport.loss_ratio
    if loss is not None:
        fields.append((b"x-transport-loss", b"%.4f" % loss))
    if transport.congestion_window is not None:
        fields.append((b"x-transport-congestion-window", b"%d" % transport.congestion_window))
    if transport.smoothed_rtt is not None:
        fields.append((b"x-transport-rtt-ms", b"%.3f" % (transport.smoothed_rtt * 1000)))
    if transport.min_rtt is not None:
        fields.append((b"x-transport-min-rtt-ms", b"%.3f" % (transport.min_rtt * 1000)))
    return fields
