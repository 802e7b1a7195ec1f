"""Rate-limited log lines about losses within a worker."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from quicedge.config.limits import REFUSAL_LOG_INTERVAL

log = structlog.get_logger(__name__)


class LossReport:
    """Logs the growth of loss counters since the last report; any clock in seconds will do."""

    def __init__(self) -> None:
        self._reported: dict[str, int] = {}
        self._reported_at: dict[str, float] = {}

    def check(self, totals: Mapping[str, int], now: float) -> None:
        """`totals`: number of losses since the start, by kind."""
        for kind, total in totals.items():
            new = total - self._reported.get(kind, 0)
            silent_until = self._reported_at.get(kind, float("-inf")) + REFUSAL_LOG_INTERVAL
            if new > 0 and now >= silent_until:
                log.warning("local loss", kind=kind, count=new)
                self._reported[kind], self._reported_at[kind] = total, now
