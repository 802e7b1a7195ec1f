"""The export of spans, as currently configured."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import structlog

from quicedge.config.schema import Otel
from quicedge.telemetry.spans import Span, SpanCounts, is_disabled

if TYPE_CHECKING:
    from quicedge.telemetry.otlp import SpanExport

log = structlog.get_logger("quicedge.supervisor")


class Spans:
    """Receives the spans that workers recorded; discards them while no export is configured."""

    def __init__(self) -> None:
        self._config = Otel()
        self._export: SpanExport | None = None

    async def configure(self, config: Otel) -> None:
        """Export according to `config` from now on; pending spans go to the previous endpoint."""
        if config == self._config:
            return
        await self.close()
        self._config = config
        if config.enabled and not is_disabled(os.environ):
            from quicedge.telemetry.otlp import SpanExport

            try:
                self._export = SpanExport(config)
            except Exception as error:
                # For example, an invalid environment variable: the edge runs on without spans.
                log.error("spans are not exported", error=str(error))

    def put(self, spans: list[Span]) -> None:
        if self._export is not None:
            self._export.put(spans)

    @property
    def counts(self) -> SpanCounts | None:
        """None when nothing is exported."""
        return self._export.counts if self._export is not None else None

    async def close(self) -> None:
        """Send pending spans, for a bounded time."""
        export, self._export = self._export, None
        self._config = Otel()
        if export is not None:
            await asyncio.to_thread(export.close)
