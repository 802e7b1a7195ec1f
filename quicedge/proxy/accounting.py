"""Accounting of exchanges: access-log records and counters."""

from __future__ import annotations

from collections.abc import Sequence

from quicedge.config.limits import LOGGED_VALUE
from quicedge.config.routes import route_text
from quicedge.config.schema import Config, Route
from quicedge.http.message import Field, Request
from quicedge.http.validation import MessageError
from quicedge.proxy.client import ClientInfo, address_of
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.tunnel import Tunnel
from quicedge.telemetry.access import AccessRecord, TunnelFacts
from quicedge.telemetry.metrics import Metrics
from quicedge.telemetry.outcomes import Outcome
from quicedge.telemetry.protocols import HttpProtocol, http_protocol
from quicedge.telemetry.series import NO_ROUTE, series_names
from quicedge.telemetry.text import text
from quicedge.upstream.hedging import HedgedStream


def access_record(exchange: Exchange) -> AccessRecord:
    """The access-log record of an ended exchange."""
    request, origin, client = exchange.request, exchange.origin, exchange.client
    transport, tls = client.transport, client.tls
    certificate = tls.certificate
    agent = next((value for name, value in request.fields if name == b"user-agent"), None)
    assert exchange.outcome is not None, "the exchange has not ended"
    return AccessRecord(
        method=_shown(_sent_method(exchange)),
        authority=_shown(request.authority),
        path=_shown(request.path),
        status=exchange.status or None,
        outcome=exchange.outcome,
        reason=exchange.reason or None,
        bytes_received=exchange.bytes_received,
        bytes_sent=exchange.bytes_delivered,
        total_seconds=(exchange.ended_at or exchange.started_at) - exchange.started_at,
        response_seconds=(
            exchange.response_at - exchange.started_at if exchange.response_at is not None else None
        ),
        queue_seconds=origin.queue_seconds if origin is not None else None,
        connect_seconds=origin.connect_seconds if origin is not None else None,
        first_byte_seconds=(
            exchange.first_byte_at - exchange.started_at
            if exchange.first_byte_at is not None
            else None
        ),
        upstream=exchange.upstream,
        server=(origin.server or None) if origin is not None else None,
        hedge=origin.hedge if isinstance(origin, HedgedStream) else None,
        client=address_of(client),
        protocol=http_protocol(client.http_version),
        quic_version=transport.version,
        tls_group=tls.group,
        client_subject=_shown(certificate.subject.encode()) if certificate is not None else None,
        client_fingerprint=certificate.fingerprint if certificate is not None else None,
        connection_id=transport.connection_id,
        stream_id=exchange.stream_id,
        smoothed_rtt=transport.smoothed_rtt,
        min_rtt=transport.min_rtt,
        congestion_window=transport.congestion_window,
        bytes_in_flight=transport.bytes_in_flight,
        packets_lost=transport.packets_lost,
        limited_by=client.limited_by(exchange.ended_at or exchange.started_at),
        trace_id=exchange.trace.trace_id if exchange.trace is not None else None,
        tunnel=_tunnel_facts(exchange.tunnel) if exchange.tunnel is not None else None,
        user_agent=_shown(agent) if agent is not None else None,
    )


def _shown(value: bytes) -> str:
    """What a client has sent, for a record: no client decides how large that is."""
    if len(value) > LOGGED_VALUE:
        return text(value[:LOGGED_VALUE]) + "..."
    return text(value)


def _sent_method(exchange: Exchange) -> bytes:
    """The method as the client has sent it: that of an HTTP/1.1 request to switch is GET."""
    request = exchange.request
    return b"GET" if request.protocol is not None and exchange.speaks_http1 else request.method


def _tunnel_facts(tunnel: Tunnel) -> TunnelFacts | None:
    if not tunnel.is_open:
        return None
    return TunnelFacts(
        protocol=_shown(tunnel.protocol),
        client_close_code=tunnel.client_close_code,
        origin_close_code=tunnel.origin_close_code,
        ended_first=tunnel.ended_first,
    )


def rejected_record(
    client: ClientInfo,
    stream_id: int,
    fields: Sequence[Field],
    error: MessageError,
    bytes_sent: int,
) -> AccessRecord:
    """The access-log record of a malformed request, which never became an exchange.

    `fields`: its field section, as far as it could be decoded.
    """
    known: dict[bytes, bytes] = {}
    for name, value in fields:
        known.setdefault(name, value)
    transport = client.transport
    agent = known.get(b"user-agent")
    return AccessRecord(
        method=_shown(known.get(b":method", b"")),
        authority=_shown(known.get(b":authority", b"")),
        path=_shown(known.get(b":path", b"")),
        status=error.status_hint,
        outcome=Outcome.MALFORMED,
        reason=str(error),
        bytes_received=0,
        bytes_sent=bytes_sent,
        total_seconds=0.0,
        client=address_of(client),
        protocol=http_protocol(client.http_version),
        quic_version=transport.version,
        tls_group=client.tls.group,
        connection_id=transport.connection_id,
        stream_id=stream_id,
        user_agent=_shown(agent) if agent is not None else None,
    )


def plain_record(
    client: str, request: Request | None, status: int, reason: str | None, bytes_sent: int
) -> AccessRecord:
    """The access-log record of a request on port 80, which never becomes an exchange."""
    fields = request.fields if request is not None else ()
    agent = next((value for name, value in fields if name == b"user-agent"), None)
    return AccessRecord(
        method=_shown(request.method) if request is not None else "",
        authority=_shown(request.authority) if request is not None else "",
        path=_shown(request.path) if request is not None else "",
        status=status,
        outcome=Outcome.COMPLETE if reason is None else Outcome.MALFORMED,
        reason=reason,
        bytes_received=0,
        bytes_sent=bytes_sent,
        total_seconds=0.0,
        client=client,
        protocol=HttpProtocol.HTTP_1_1,
        user_agent=_shown(agent) if agent is not None else None,
    )


def count_rejected(
    metrics: Metrics, client: ClientInfo, error: MessageError, bytes_sent: int
) -> None:
    """Count a malformed request, which never became an exchange."""
    metrics.exchange(
        protocol=http_protocol(client.http_version),
        route=NO_ROUTE,
        upstream=None,
        status=error.status_hint,
        outcome=Outcome.MALFORMED,
        bytes_received=0,
        bytes_sent=bytes_sent,
        seconds=0.0,
        first_byte_seconds=None,
    )


def route_label(route: Route | None) -> str:
    """The metric label of a route: its configured host and path, and its conditions."""
    if route is None:
        return NO_ROUTE
    known = _labels.get(id(route))
    if known is None:
        # The route is kept with its label: as long as it is, no other has its identity.
        known = _labels[id(route)] = route, route_text(route)
    return known[1]


_labels: dict[int, tuple[Route, str]] = {}
"""The labels of the routes of this configuration: requests ask for them several times."""


def use_series(metrics: Metrics, config: Config) -> None:
    """Create all metric series of a configuration with the value 0; drop those of removed routes,
    upstreams and filters.

    A rate over a counter that appears with its first event would miss that event.
    """
    _labels.clear()
    names = series_names(config)
    metrics.keep(names.routes, names.upstreams, names.filters)
    for route in config.routes:
        found = metrics.routes.get(route_label(route))
        if found is not None:
            found.keep_sides(route.split.shares if route.split else ())


def count_exchange(metrics: Metrics, exchange: Exchange) -> None:
    """Count an ended exchange."""
    label, started, outcome = route_label(exchange.route), exchange.started_at, exchange.outcome
    assert outcome is not None, "the exchange has not ended"
    if exchange.choice is not None:
        metrics.route(label).side(exchange.choice.upstream).count(exchange.status)
    metrics.exchange(
        route=label,
        upstream=exchange.upstream if exchange.origin is not None else None,
        protocol=http_protocol(exchange.client.http_version),
        status=exchange.status,
        outcome=outcome,
        bytes_received=exchange.bytes_received,
        bytes_sent=exchange.bytes_delivered,
        seconds=(exchange.ended_at or started) - started,
        first_byte_seconds=(
            exchange.first_byte_at - started if exchange.first_byte_at is not None else None
        ),
        tunnel=exchange.tunnel is not None and exchange.tunnel.is_open,
    )
