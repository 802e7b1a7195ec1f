"""Certificates on demand: asks an URL of the operator whether a name may have one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import structlog

from quicedge.config.acmelimits import (
    ASKS_AT_ONCE,
    ON_DEMAND_REFUSALS,
    ON_DEMAND_REFUSALS_LOGGED,
    ON_DEMAND_REFUSED_FOR,
    ON_DEMAND_WAITING,
)
from quicedge.config.rates import parse_rate
from quicedge.config.schema import OnDemand as OnDemandConfig
from quicedge.shares.rates import RateLimit

log = structlog.get_logger(__name__)


def ask(url: str, name: str) -> bool | None:
    """Whether the URL allows a name; None if it does not say. Blocks."""
    from quicedge.supervisor import ask_url  # an HTTP client takes 4 MB

    return ask_url.ask(url, name)


class OnDemand:
    """Decides about names that clients ask for. `allowed` is called with each that may have a
    certificate, `refused` with each that gets none for now."""

    def __init__(
        self,
        allowed: Callable[[str], None],
        refused: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._allowed = allowed
        self._refused = refused
        self._clock = clock
        self._config: OnDemandConfig | None = None
        self._rate = RateLimit(1.0)
        self._lines = RateLimit(ON_DEMAND_REFUSALS_LOGGED)
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._until: dict[str, float] = {}
        """When names may be asked about again; oldest first."""
        self._slots = asyncio.Semaphore(ASKS_AT_ONCE)

    def configure(self, config: OnDemandConfig | None) -> None:
        if config == self._config:
            return
        self._config = config
        self._until.clear()
        if config is not None:
            count, period = parse_rate(config.rate)
            self._rate = RateLimit(count / period, count)

    def want(self, name: str) -> None:
        """A client asks for a name without a certificate."""
        now = self._clock()
        if self._config is None or name in self._asking:
            return
        if self._until.get(name, 0.0) > now:
            self._refused(name)
        elif len(self._asking) >= ON_DEMAND_WAITING or not self._rate.allow(now):
            self.counts["too_many"] += 1
            if self._lines.allow(now):
                log.warning("too many certificates on demand", host=name)
            self._refused(name)
        else:
            task = asyncio.create_task(self._decide(name))
            self._asking[name] = task
            task.add_done_callback(lambda _: self._asking.pop(name, None))

    async def _decide(self, name: str) -> None:
        answer = await self.is_allowed(name)
        if answer:
            self.counts["allowed"] += 1
            self._allowed(name)
            return
        self.counts["refused" if answer is False else "unanswered"] += 1
        if answer is None:
            log.error("no answer whether a certificate may be ordered", host=name)
        self.leave_alone(name, ON_DEMAND_REFUSED_FOR)
        self._refused(name)

    async def is_allowed(self, name: str) -> bool | None:
        """What the operator says; None: nothing."""
        if self._config is None:
            return False
        async with self._slots:
            return await asyncio.to_thread(ask, self._config.ask, name)

    def leave_alone(self, name: str, seconds: float) -> None:
        """Refuse a name for some time without asking."""
        self._until.pop(name, None)
        self._until[name] = self._clock() + seconds
        while len(self._until) > ON_DEMAND_REFUSALS:
            del self._until[next(iter(self._until))]

    def close(self) -> None:
        for task in self._asking.values():
            task.cancel()
