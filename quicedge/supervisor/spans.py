"""The export of spans, as the configuration has it just now."""

from __future__ import annotations

import asyncio
import os

import structlog

from quicedge.config.schema import Otel
from quicedge.telemetry.otlp import SpanExport
from quicedge.telemetry.spans import Span, SpanCounts, is_disabled

log = structlog.get_logger("quicedge.supervisor")


class Spans:
    """Takes what workers recorded; without an export it goes nowhere."""

    def __init__(self) -> None:
        self._config = Otel()
        self._export: SpanExport | None = None

    async def configure(self, config: Otel) -> None:
        """Export to where this says from now on; what waits still goes where it was meant to."""
        if config == self._config:
            return
        await self.close()
        self._config = config
        if config.enabled and not is_disabled(os.environ):
            try:
                self._export = SpanExport(config)
            except Exception as error:
                # Of the variables, for one: the edge serves on without spans.
                log.error("spans are not exported", error=repr(error))

    def put(self, spans: list[Span]) -> None:
        if self._export is not None:
            self._export.put(spans)

    @property
    def counts(self) -> SpanCounts | None:
        """None: nothing is exported."""
        return self._export.counts if self._export is not None else None

    async def close(self) -> None:
        """Send what waits, for a bounded time."""
        export, self._export = self._export, None
        self._config = Otel()
        if export is not None:
            await asyncio.to_thread(export.close)
