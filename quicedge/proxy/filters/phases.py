"""The filters of one route, by phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from quicedge.config.filterlimits import FILTER_FAILURES_LOGGED_PER_SECOND
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.route_filter import RouteFilter
from quicedge.shares.rates import RateLimit

log = structlog.get_logger(__name__)


class Phases:
    """Which filters of a route have which phase; built once per configuration."""

    __slots__ = ("_clock", "_logged", "all", "done", "requests", "responses", "written")

    def __init__(self, filters: Sequence[RouteFilter], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._logged = RateLimit(FILTER_FAILURES_LOGGED_PER_SECOND)
        self.all = tuple(filters)
        self.requests = tuple(item for item in filters if _has(item, "on_request"))
        self.responses = tuple(item for item in reversed(filters) if _has(item, "on_response"))
        """In the order in which responses pass them: the last filter first."""
        self.written = frozenset[bytes]().union(*(item.written for item in filters))
        """Names of request fields that they set or remove."""
        self.done = tuple(item for item in filters if _has(item, "on_done"))

    def on_done(self, exchange: Exchange) -> None:
        """Run the last phase; a failure is logged, the exchange has ended anyway."""
        for step in self.done:
            try:
                step.on_done(exchange)
            except BaseException as error:  # even SystemExit: it would end the worker
                self.note_failure(step.name, describe(error), error)

    def note_failure(self, name: str, reason: str, error: BaseException) -> None:
        """Log the failure of a filter, with its traceback, at a bounded rate."""
        if self._logged.allow(self._clock()):
            log.error("filter failed", filter=name, reason=reason, exc_info=error)


def describe(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _has(item: RouteFilter, phase: str) -> bool:
    return getattr(type(item), phase) is not getattr(RouteFilter, phase)
