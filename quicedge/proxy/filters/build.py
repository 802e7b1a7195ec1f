"""Builds the filters of a configuration."""

from __future__ import annotations

from collections.abc import Callable

from quicedge.config.schema import Config
from quicedge.http.forwarding import Reserved
from quicedge.proxy.filters.alt_svc import AltSvc
from quicedge.proxy.filters.base import Filter, FilterChain
from quicedge.proxy.filters.client_certificate import ClientCertificateFields
from quicedge.proxy.filters.forwarding import Forwarding
from quicedge.proxy.filters.server_timing import ServerTiming
from quicedge.proxy.filters.tracing import ContinueTrace, RecordSpans
from quicedge.proxy.filters.transport_fields import TransportFields
from quicedge.proxy.spans import SpanRecorder


def build_filters(config: Config, spans: SpanRecorder, date: Callable[[], bytes]) -> FilterChain:
    """Build the filter chain for all routes. `date` returns the current time as an HTTP date."""
    options = config.forwarding
    added: list[Filter] = []
    if options.transport_headers:
        added.append(TransportFields())
    if options.client_certificate != "off":
        with_chain = options.client_certificate == "chain"
        added.append(ClientCertificateFields(with_chain=with_chain))
    if spans.enabled:
        added.append(RecordSpans(spans, trusted=options.trace_context))
    elif options.trace_context:
        added.append(ContinueTrace())
    if config.alt_svc.enabled:
        added.append(AltSvc())
    if options.server_timing:
        added.append(ServerTiming())
    further = frozenset[bytes]().union(*(item.reserved for item in added))
    reserved = Reserved(further, tell_underscores=options.underscores)
    return FilterChain([Forwarding(reserved, date), *added], reserved)
