"""What a worker loses on its own side, told to the operator at a bounded rate."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from quicedge.config.limits import REFUSAL_LOG_INTERVAL

log = structlog.get_logger(__name__)


class LossReport:
    """Says what was added to totals since it last spoke of them; seconds are any clock's."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._told_at: dict[str, float] = {}

    def check(self, totals: Mapping[str, int], now: float) -> None:
        """`totals`: how often each thing was lost since the start, by its name."""
        for what, total in totals.items():
            new = total - self._told.get(what, 0)
            silent_until = self._told_at.get(what, float("-inf")) + REFUSAL_LOG_INTERVAL
            if new > 0 and now >= silent_until:
                log.warning("lost on our side", what=what, count=new)
                self._told[what], self._told_at[what] = total, now
