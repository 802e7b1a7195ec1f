"""Export of spans to an OpenTelemetry collector via OTLP over HTTP.

Runs in a thread of the parent process; workers only send it their spans. OpenTelemetry is imported
only when an exporter is created.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import structlog

from quicedge import __version__
from quicedge.config.schema import Otel
from quicedge.config.tracelimits import OTEL_BATCH, OTEL_CLOSE_TIMEOUT, OTEL_INTERVAL, OTEL_QUEUE
from quicedge.telemetry.spans import Span, SpanCounts

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult

log = structlog.get_logger(__name__)


class Exporter(Protocol):
    """Sends a batch, blocking (`opentelemetry.sdk.trace.export.SpanExporter`)."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult: ...

    def shutdown(self) -> None: ...


class SpanExport:
    """A bounded queue of spans and the thread that empties it."""

    def __init__(
        self,
        config: Otel,
        *,
        exporter: Exporter | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """`exporter` replaces the one that sends to `config.endpoint` in tests."""
        from opentelemetry.sdk.resources import Resource

        given = {"service.name": config.service_name or _service_name(environment)}
        self._resource = Resource.create({**given, "service.version": __version__})
        self._exporter = exporter or _otlp(config, environment)
        delay = _number(environment, "OTEL_BSP_SCHEDULE_DELAY", OTEL_INTERVAL * 1000)
        self._interval = delay / 1000
        self._size = int(_number(environment, "OTEL_BSP_MAX_QUEUE_SIZE", OTEL_QUEUE))
        batch = int(_number(environment, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", OTEL_BATCH))
        self._batch = min(batch, self._size)
        self._queue: deque[Span] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._warned = False
        # Each counter has one writer: the caller's thread the first, ours the others.
        self._refused = 0
        self._failed = 0
        self._exported = 0
        # Daemon thread: a hanging collector must not delay the exit of the process.
        self._thread = threading.Thread(target=self._run, name="otlp-export", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> SpanCounts:
        dropped = {"queue": self._refused, "export": self._failed}
        return SpanCounts(self._exported, dropped)

    def put(self, spans: Sequence[Span]) -> None:
        """Queue spans; never blocks. Dropped and counted when the queue is full."""
        room = max(self._size - len(self._queue), 0)
        self._queue.extend(spans[:room])
        self._refused += len(spans) - len(spans[:room])
        if len(self._queue) >= self._batch:
            self._wake.set()

    def close(self, timeout: float = OTEL_CLOSE_TIMEOUT) -> None:
        """Send pending spans, for `timeout` seconds at most."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        # Also wakes a thread that waits between retries.
        self._exporter.shutdown()

    # --- the exporting thread -------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(self._interval)
            self._wake.clear()
            self._drain()
        self._drain()

    def _drain(self) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
            try:
                result = self._exporter.export([self._readable(span) for span in batch])
                failed, error = result is not SpanExportResult.SUCCESS, ""
            except Exception as problem:
                failed, error = True, f"{type(problem).__name__}: {problem}"
            if failed:
                self._failed += len(batch)
                if not self._warned:
                    log.warning("span export failed", error=error or None)
            else:
                self._exported += len(batch)
            self._warned = failed

    def _readable(self, span: Span) -> ReadableSpan:
        """Convert to a span of the SDK."""
        from opentelemetry import trace
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        trace_id = int(span.trace_id, 16)
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        state = trace.TraceState.from_header([span.state] if span.state else [])
        parent = None
        if span.parent_id is not None:
            parent = trace.SpanContext(
                trace_id, int(span.parent_id, 16), span.remote_parent, flags, state
            )
        # Semantic conventions: no description where the status code is sufficient.
        reason = None if span.error is None or span.error.isdigit() else span.error
        failed = trace.Status(trace.StatusCode.ERROR, reason)
        return ReadableSpan(
            name=span.name,
            context=trace.SpanContext(trace_id, int(span.span_id, 16), False, flags, state),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=trace.SpanKind[span.kind.upper()],
            status=failed if span.error is not None else trace.Status(),
            start_time=int(span.start * 1e9),
            end_time=int(span.end * 1e9),
            instrumentation_scope=InstrumentationScope("quicedge", __version__),
        )


def _otlp(config: Otel, environment: Mapping[str, str]) -> Exporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    protocol = environment.get(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    )
    if protocol not in ("", "http/protobuf"):
        log.warning("OTLP protocol not supported; using http/protobuf", protocol=protocol)
    # The exporter reads other options from the environment.
    return OTLPSpanExporter(endpoint=config.endpoint, timeout=config.timeout)


def _service_name(environment: Mapping[str, str]) -> str:
    """The service name from the environment, with the precedence that OpenTelemetry defines."""
    if name := environment.get("OTEL_SERVICE_NAME"):
        return name
    for pair in environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == "service.name" and value.strip():
            return value.strip()
    return "quicedge"


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    """A number of at least 1; invalid values count as unset, as in the SDK."""
    text = environment.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if value >= 1:
        return value
    log.warning("invalid value ignored: expected a number of at least 1", variable=name, value=text)
    return default
