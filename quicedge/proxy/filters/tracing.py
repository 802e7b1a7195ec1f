"""Distributed tracing: trace context of requests, and spans of exchanges."""

from __future__ import annotations

from typing import ClassVar

from quicedge.http.message import Request
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.base import Filter
from quicedge.proxy.spans import SpanRecorder
from quicedge.proxy.trace_context import TRACE_FIELDS, trace_context


class ContinueTrace(Filter):
    """Continues the client's trace or starts one; its ID is in the access log."""

    reserved: ClassVar[frozenset[bytes]] = TRACE_FIELDS

    def on_accept(self, exchange: Exchange) -> None:
        exchange.trace = trace_context(exchange.request.fields)

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        assert exchange.trace is not None
        return request.with_fields([*request.fields, *exchange.trace.fields])


class RecordSpans(ContinueTrace):
    """Additionally records spans of the edge.

    `trusted`: accept the parent span that clients send.
    """

    def __init__(self, recorder: SpanRecorder, *, trusted: bool) -> None:
        self._recorder = recorder
        self._trusted = trusted

    def on_accept(self, exchange: Exchange) -> None:
        exchange.trace = self._recorder.begin(exchange.request.fields, trusted=self._trusted)

    def on_done(self, exchange: Exchange) -> None:
        self._recorder.end(exchange)
