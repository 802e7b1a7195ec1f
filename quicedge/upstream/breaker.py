"""The circuit breaker of an upstream: requests that would most likely fail are refused at once.

It judges the upstream as a whole, by the share of failed requests in a rolling window. A failed
request is one that its client would see fail: retries and the ejection of single servers come
before it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import structlog

from quicedge.config.limits import (
    BREAKER_SLICES,
    EJECTION_FORGOTTEN,
    EJECTIONS_COUNTED,
    RETRY_AFTER,
)
from quicedge.config.schema import CircuitBreaker as BreakerConfig
from quicedge.http.errors import OriginFailure
from quicedge.telemetry.upstreams import Circuit
from quicedge.upstream.base import UpstreamError

log = structlog.get_logger(__name__)

_FAILURES = frozenset(
    (
        OriginFailure.CONNECT, OriginFailure.CONNECT_TIMEOUT, OriginFailure.TLS,
        OriginFailure.FIRST_BYTE_TIMEOUT, OriginFailure.IDLE_TIMEOUT, OriginFailure.RESET,
        OriginFailure.PROTOCOL,
    )
)  # fmt: skip
"""Those that the upstream is to blame for, rather than the client or a limit of ours."""


class Call:
    """A request that the breaker has let pass; the first of its methods that is called counts."""

    __slots__ = ("_breaker", "_epoch")

    def __init__(self, breaker: Breaker, epoch: int) -> None:
        self._breaker: Breaker | None = breaker
        self._epoch = epoch

    def answered(self, status: int) -> None:
        """It has got a response head."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.settle(self._epoch, failed=status in breaker.statuses)

    def failed(self, kind: OriginFailure) -> None:
        """It has got none."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.settle(self._epoch, failed=True if kind in _FAILURES else None)

    def abandoned(self) -> None:
        """Its client has left."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.settle(self._epoch, failed=None)


class Window:
    """Requests and failures of the last `seconds`, in slices that expire one by one."""

    __slots__ = ("_failures", "_newest", "_requests", "_width", "failures", "requests")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / BREAKER_SLICES
        self._newest = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._requests = [0] * BREAKER_SLICES
        self._failures = [0] * BREAKER_SLICES
        self.requests = self.failures = 0

    def note(self, failed: bool, now: float) -> None:
        """A request has ended."""
        newest = int(now / self._width)
        if newest != self._newest:
            self._expire(newest)
        at = newest % BREAKER_SLICES
        self._requests[at] += 1
        self.requests += 1
        if failed:
            self._failures[at] += 1
            self.failures += 1

    def _expire(self, newest: int) -> None:
        for slot in range(self._newest + 1, min(newest, self._newest + BREAKER_SLICES) + 1):
            at = slot % BREAKER_SLICES
            self.requests -= self._requests[at]
            self.failures -= self._failures[at]
            self._requests[at] = self._failures[at] = 0
        self._newest = newest


class Breaker:
    """One upstream's. Call `admit` per request."""

    def __init__(
        self, upstream: str, settings: BreakerConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.state = Circuit.CLOSED
        self.statuses = frozenset(settings.statuses)
        self.opened = 0
        """How often it has opened."""
        self.refused = 0
        """Requests that were not let pass."""
        self._upstream = upstream
        self._settings = settings
        self._clock = clock
        self._window = Window(settings.window)
        self._epoch = 0
        """The number of the state: requests that began in an earlier one tell nothing of it."""
        self._in_a_row = 0
        self._open_until = 0.0
        self._closed_at = -math.inf
        self._probing = 0
        self._passed = 0

    def admit(self) -> Call | None:
        """Let a request pass, or refuse it."""
        if self.state is not Circuit.CLOSED:
            if self.state is Circuit.OPEN and self._clock() >= self._open_until:
                self._change(Circuit.HALF_OPEN)
                self._probing = self._passed = 0
                log.info("circuit half open: trying requests", upstream=self._upstream)
            if self.state is Circuit.OPEN or self._probing + self._passed >= self._settings.probes:
                self.refused += 1
                return None
            self._probing += 1
        return Call(self, self._epoch)

    def refusal(self) -> UpstreamError:
        """The error of a request that was refused."""
        left = math.ceil(self._open_until - self._clock())
        reason = f"the circuit of {self._upstream} is {self.state.value.replace('_', ' ')}"
        return UpstreamError(OriginFailure.CIRCUIT_OPEN, reason, max(left, RETRY_AFTER))

    def settle(self, epoch: int, *, failed: bool | None) -> None:
        """A request that was let pass is over; None: it tells nothing of the upstream."""
        if epoch != self._epoch:
            return
        if self.state is Circuit.CLOSED:
            if failed is None:
                return
            window, settings = self._window, self._settings
            window.note(failed, self._clock())
            if (
                failed
                and window.requests >= settings.min_requests
                and window.failures >= settings.failures * window.requests
            ):
                self._open(failures=window.failures, requests=window.requests)
            return
        self._probing -= 1
        if failed:
            self._open(failures=1, requests=self._passed + 1)
        elif failed is False:
            self._passed += 1
            if self._passed >= self._settings.probes:
                self._close()

    def _change(self, state: Circuit) -> None:
        self.state = state
        self._epoch += 1

    def _open(self, *, failures: int, requests: int) -> None:
        now = self._clock()
        if self._closed_at + EJECTION_FORGOTTEN < now and self.state is Circuit.CLOSED:
            self._in_a_row = 0
        self._in_a_row = min(self._in_a_row + 1, EJECTIONS_COUNTED)
        seconds = self._settings.open_for * self._in_a_row
        self._open_until = now + seconds
        self.opened += 1
        self._change(Circuit.OPEN)
        self._window.clear()
        log.warning(
            "circuit open: requests fail",
            upstream=self._upstream,
            failures=failures,
            requests=requests,
            seconds=seconds,
        )

    def _close(self) -> None:
        self._change(Circuit.CLOSED)
        self._closed_at = self._clock()
        log.info("circuit closed: requests succeed again", upstream=self._upstream)
