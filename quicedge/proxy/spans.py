"""Spans of exchanges for distributed tracing: a server span, and below it a client span for the
request to the origin.

Identifiers are generated on arrival, because origins receive them; the spans are written
once, when the exchange has ended, and only for recorded traces.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable

import structlog

from quicedge.config.host_port import HostPort
from quicedge.config.schema import Otel
from quicedge.config.tracelimits import OTEL_MAX_TEXT, OTEL_WORKER_BATCH, OTEL_WORKER_INTERVAL
from quicedge.http.message import Field, Request
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.trace_context import SpanContext, new_span_id, new_trace_id, parent_of
from quicedge.telemetry.protocols import TransportKind
from quicedge.telemetry.spans import Attribute, SamplerError, Span, is_disabled, sampler_of
from quicedge.telemetry.text import text
from quicedge.upstream.base import OriginStream

log = structlog.get_logger(__name__)

_METHODS = frozenset(
    (
        b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT", b"QUERY",
        b"TRACE",
    )
)  # fmt: skip
"""Other methods are `_OTHER`: clients must not choose the names of spans."""

_HTTPS_PORT = 443
_REMOTE = ("http", "https")

_CREDENTIALS = re.compile(r"(^|&)(AWSAccessKeyId|Signature|sig|X-Goog-Signature)=[^&]*")
"""Query parameters whose values the semantic conventions require to redact (url.query)."""


class SpanRecorder:
    """The spans of one worker. `clock` is the exchanges' clock.

    `send` accepts a batch, or returns that its queue is full; it is set when there is a consumer.
    """

    def __init__(
        self,
        config: Otel,
        clock: Callable[[], float],
        send: Callable[[list[Span]], bool] = lambda spans: False,
    ) -> None:
        self.send = send
        self.dropped = 0
        """Spans that were dropped because the queue was full."""
        self._clock = clock
        self._waiting: list[Span] = []
        self._timer: asyncio.TimerHandle | None = None
        self.configure(config)

    def configure(self, config: Otel) -> None:
        """Apply a configuration to new requests."""
        self.enabled = config.enabled and not is_disabled(os.environ)
        try:
            self._sampler = sampler_of(config.sample_ratio, os.environ)
        except SamplerError as error:
            self._sampler = sampler_of(1.0, {})
            log.warning("invalid sampler; recording all traces", reason=str(error))

    def begin(self, fields: list[Field], *, trusted: bool) -> SpanContext:
        """Start the span of a request, below the client's span if clients are trusted."""
        parent = parent_of(fields) if trusted else None
        trace_id = parent.trace_id if parent is not None else new_trace_id()
        sampled = parent.sampled if parent is not None else None
        return SpanContext(
            trace_id, new_span_id(), new_span_id(), parent, self._sampler.samples(trace_id, sampled)
        )

    def end(self, exchange: Exchange) -> None:
        """Record the spans of an ended exchange."""
        context = exchange.trace
        if not isinstance(context, SpanContext) or not context.recorded:
            return
        epoch = time.time() - self._clock()
        self._waiting.append(_server_span(context, exchange, epoch))
        if exchange.origin is not None and exchange.origin.scheme in _REMOTE:
            self._waiting.append(_client_span(context, exchange, epoch))
        if len(self._waiting) >= OTEL_WORKER_BATCH:
            self.flush()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(OTEL_WORKER_INTERVAL, self.flush)

    def flush(self) -> None:
        """Send queued spans."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        spans, self._waiting = self._waiting, []
        if spans and not self.send(spans):
            self.dropped += len(spans)


def _server_span(context: SpanContext, exchange: Exchange, epoch: float) -> Span:
    request, transport = exchange.request, exchange.client.transport
    name, attributes = _method(request.method)
    path, _, query = text(request.path).partition("?")
    host, port = _authority(text(request.authority))
    kind = transport.kind.value
    attributes |= {
        "url.scheme": "https",
        "url.path": path[:OTEL_MAX_TEXT],
        "server.address": host[:OTEL_MAX_TEXT],
        "server.port": port,
        "network.protocol.name": "http",
        "network.protocol.version": exchange.client.http_version.decode(),
        "network.transport": kind,
        "http.request.body.size": exchange.bytes_received,
        "http.response.body.size": exchange.bytes_delivered,
        f"{kind}.connection_id": transport.connection_id,
        f"{kind}.stream_id": exchange.stream_id,
        "quicedge.outcome": str(exchange.outcome),
    }
    if query:
        attributes["url.query"] = _CREDENTIALS.sub(r"\1\2=REDACTED", query)[:OTEL_MAX_TEXT]
    if exchange.client.address is not None:
        address, attributes["network.peer.port"] = exchange.client.address
        attributes["client.address"] = attributes["network.peer.address"] = address
    agent = next((value for name, value in request.fields if name == b"user-agent"), None)
    if agent is not None:
        attributes["user_agent.original"] = text(agent)[:OTEL_MAX_TEXT]
    for figure, value in (
        ("smoothed_rtt", transport.smoothed_rtt),
        ("min_rtt", transport.min_rtt),
        ("congestion_window", transport.congestion_window),
        ("packets_sent", transport.packets_sent),
        ("packets_lost", transport.packets_lost),
    ):
        if value is not None:
            attributes[f"{kind}.{figure}"] = value
    if transport.kind is TransportKind.QUIC:
        attributes["quic.version"] = transport.version or ""
        attributes["quic.early_data"] = exchange.early_data
    if exchange.route is not None:
        attributes["http.route"] = exchange.route.path_exact or exchange.route.path
        if exchange.upstream is not None:
            attributes["quicedge.upstream"] = exchange.upstream
        name = f"{name} {attributes['http.route']}"
    if exchange.status:
        attributes["http.response.status_code"] = exchange.status
    # Semantic conventions: on server spans, client errors (4xx) are not errors.
    outcome = exchange.outcome
    error = outcome.value if outcome is not None and outcome.origin_failure else None
    if error is None and exchange.status >= 500:
        error = str(exchange.status)
    parent = context.parent
    if error is not None:
        attributes["error.type"] = error
    return Span(
        trace_id=context.trace_id,
        span_id=context.server_id,
        parent_id=parent.span_id if parent is not None else None,
        remote_parent=True,
        kind="server",
        name=name,
        start=epoch + exchange.started_at,
        end=epoch + (exchange.ended_at or exchange.started_at),
        attributes=attributes,
        error=error,
        state=parent.state.decode("latin-1") if parent is not None else "",
    )


def _client_span(context: SpanContext, exchange: Exchange, epoch: float) -> Span:
    origin, request = exchange.origin, exchange.request
    assert origin is not None
    name, attributes = _method(request.method)
    attributes |= {
        "url.full": _full_url(origin, request)[:OTEL_MAX_TEXT],
        "network.protocol.name": "http",
        "quicedge.queue_seconds": origin.queue_seconds,
        "quicedge.connect_seconds": origin.connect_seconds,
    }
    if origin.server.startswith("unix:"):
        attributes["server.address"] = origin.server.removeprefix("unix:")
        attributes["network.transport"] = "unix"
    elif origin.server:
        attributes["server.address"], attributes["server.port"] = HostPort.parse(origin.server)
        attributes["network.transport"] = "tcp"
    if origin.http_version:
        attributes["network.protocol.version"] = origin.http_version
    if origin.retries:
        attributes["http.request.resend_count"] = origin.retries
    error = None
    if exchange.first_byte_at is not None:
        attributes["http.response.status_code"] = exchange.status
        attributes["quicedge.first_byte_seconds"] = exchange.first_byte_at - exchange.started_at
        if exchange.status >= 400:
            error = str(exchange.status)
    if exchange.response_at is None:
        error = str(exchange.outcome)
    if error is not None:
        attributes["error.type"] = error
    return Span(
        trace_id=context.trace_id,
        span_id=context.client_id,
        parent_id=context.server_id,
        remote_parent=False,
        kind="client",
        name=name,
        start=epoch + exchange.started_at,
        end=epoch + (exchange.response_at or exchange.ended_at or exchange.started_at),
        attributes=attributes,
        error=error,
        state=context.parent.state.decode("latin-1") if context.parent is not None else "",
    )


def _method(method: bytes) -> tuple[str, dict[str, Attribute]]:
    """The span name prefix and the attributes for a method."""
    if method in _METHODS:
        return method.decode(), {"http.request.method": method.decode()}
    original = text(method)[:OTEL_MAX_TEXT]
    return "HTTP", {"http.request.method": "_OTHER", "http.request.method_original": original}


def _full_url(origin: OriginStream, request: Request) -> str:
    """The URL of the request at the chosen server, not at the requested host."""
    authority = "localhost" if origin.server.startswith("unix:") else origin.server
    path, mark, query = text(request.path).partition("?")
    query = _CREDENTIALS.sub(r"\1\2=REDACTED", query)
    return f"{origin.scheme}://{authority}{path}{mark}{query}"


def _authority(authority: str) -> HostPort:
    """Host and port of an authority; a malformed one is returned unchanged."""
    try:
        return HostPort.parse(authority, default_port=_HTTPS_PORT)
    except ValueError:
        return HostPort(authority, _HTTPS_PORT)
