"""The circuit breaker of an upstream: requests that would most likely fail are refused at once.

It judges the upstream as a whole, by the share of failed requests in a rolling window. A failed
request is one that its client would see fail: retries and the ejection of single servers come
before it.

One network of clients alone cannot open the circuit for others: without the network that most
failed requests are of, the share must be as high, and where there are no others, the first that
comes is a trial. Nor can it keep the circuit open: a network whose trial has failed, or that makes
its trials take long, gets the next one a little later than others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeAlias

import structlog

from quicedge.config.limits import (
    BREAKER_NETWORKS,
    BREAKER_SLICES,
    BREAKER_SUSPECT_WAIT,
    EJECTION_FORGOTTEN,
    EJECTIONS_COUNTED,
    RETRY_AFTER,
)
from quicedge.config.schema import CircuitBreaker as BreakerConfig
from quicedge.http.errors import OriginFailure
from quicedge.shares import Client
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
    """A request that was let through; the first of its methods that is called counts."""

    __slots__ = ("_breaker", "_epoch", "_network")

    def __init__(self, breaker: Breaker, epoch: int, network: bytes | None) -> None:
        self._breaker: Breaker | None = breaker
        self._epoch = epoch
        self._network = network

    def answered(self, status: int) -> None:
        """It has got a response head."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.settle(self._epoch, self._network, failed=status in breaker.statuses)

    def failed(self, kind: OriginFailure) -> None:
        """It has got none."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.settle(self._epoch, self._network, failed=True if kind in _FAILURES else None)

    def abandoned(self) -> None:
        """Its client has left."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.settle(self._epoch, self._network, failed=None)


class Counts:
    """Requests, and how many of them failed."""

    __slots__ = ("failures", "requests")

    def __init__(self, requests: int = 0, failures: int = 0) -> None:
        self.requests = requests
        self.failures = failures


_ByNetwork: TypeAlias = dict[bytes | None, Counts]


class Window:
    """The requests of the last `seconds`, in slices that expire one by one; in all, and by network
    for the BREAKER_NETWORKS that came first."""

    def __init__(self, seconds: float) -> None:
        self._width = seconds / BREAKER_SLICES
        self._newest = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.total = Counts()
        self._networks: _ByNetwork = {}
        self._slices: list[_ByNetwork] = [{} for _ in range(BREAKER_SLICES)]

    def note(self, network: bytes | None, failed: bool, now: float) -> None:
        """A request has ended."""
        newest = int(now / self._width)
        if newest != self._newest:
            self._expire(newest)
        if network not in self._networks and len(self._networks) >= BREAKER_NETWORKS:
            network = None
        for counts in (
            self.total,
            _of(network, self._networks),
            _of(network, self._slices[newest % BREAKER_SLICES]),
        ):
            counts.requests += 1
            counts.failures += failed

    @property
    def is_of_one_network(self) -> bool:
        """Whether all requests are of the same network."""
        return len(self._networks) == 1

    def without_worst(self) -> Counts:
        """What is left without the network that most failures are of; all if there is no other."""
        known = [counts for network, counts in self._networks.items() if network is not None]
        worst = max(known, key=lambda counts: counts.failures, default=Counts())
        total = self.total
        if worst.requests == total.requests:
            return total
        return Counts(total.requests - worst.requests, total.failures - worst.failures)

    def _expire(self, newest: int) -> None:
        for number in range(self._newest + 1, min(newest, self._newest + BREAKER_SLICES) + 1):
            at = number % BREAKER_SLICES
            for network, counts in self._slices[at].items():
                for sums in (self.total, self._networks[network]):
                    sums.requests -= counts.requests
                    sums.failures -= counts.failures
                if not self._networks[network].requests:
                    del self._networks[network]
            self._slices[at] = {}
        self._newest = newest


def _of(network: bytes | None, counts: _ByNetwork) -> Counts:
    found = counts.get(network)
    if found is None:
        found = counts[network] = Counts()
    return found


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
        """Requests that were not let through."""
        self._upstream = upstream
        self._settings = settings
        self._clock = clock
        self._window = Window(settings.window)
        self._epoch = 0
        """The number of the state: requests that began in an earlier one tell nothing of it."""
        self._in_a_row = 0
        self._open_until = 0.0
        self._closed_at = -math.inf
        self._trying: dict[bytes | None, int] = {}
        """Requests that are being tried, by network."""
        self._passed = 0
        self._places = 0
        """How many may be tried, running ones and those that have passed."""
        self._more_at = 0.0
        """When more may be, because those that run take long."""
        self._suspect: bytes | None = None
        """The network whose trial has failed last, or takes long."""
        self._suspect_until = 0.0
        self._lone: bytes | None = None
        """The network that has opened the circuit, if there were requests of no other."""

    def admit(self, client: Client | None = None) -> Call | None:
        """Let a request through; returns None if it is refused. `client`: who has made it; None:
        the edge itself."""
        network = None if client is None else client.prefix
        if self.state is not Circuit.CLOSED:
            if self.state is Circuit.OPEN:
                self._begin_trials(network)
            if self.state is Circuit.OPEN or not self._may_try(network):
                self.refused += 1
                return None
            self._trying[network] = self._trying.get(network, 0) + 1
        return Call(self, self._epoch, network)

    def _begin_trials(self, network: bytes | None) -> None:
        """If it is time, or if a network other than the one that all failures were of asks."""
        if self._clock() < self._open_until:
            if self._lone is None or network == self._lone:
                return
            self._suspects(self._lone, self._open_until)
        self._change(Circuit.HALF_OPEN)
        self._lone = None
        self._trying.clear()
        self._passed = self._places = 0
        self._more_at = self._clock()
        log.info("circuit half open: trying requests", upstream=self._upstream)

    def _may_try(self, network: bytes | None) -> bool:
        now = self._clock()
        if sum(self._trying.values()) + self._passed >= self._places and not self._add_places(now):
            return False
        return network is None or network != self._suspect or now >= self._suspect_until

    def _add_places(self, now: float) -> bool:
        """Have more requests tried, if those that are take long: a client may be to blame."""
        if now < self._more_at:
            return False
        if self._trying:
            self._suspects(max(self._trying, key=self._trying.__getitem__), now)
        self._places += self._settings.probes
        self._more_at = now + self._settings.open_for
        return True

    def _suspects(self, network: bytes | None, since: float) -> None:
        self._suspect = network
        self._suspect_until = since + BREAKER_SUSPECT_WAIT

    def refusal(self) -> UpstreamError:
        """The error of a request that was refused."""
        left = math.ceil(self._open_until - self._clock())
        reason = f"the circuit of {self._upstream} is {self.state.value.replace('_', ' ')}"
        return UpstreamError(OriginFailure.CIRCUIT_OPEN, reason, max(left, RETRY_AFTER))

    def settle(self, epoch: int, network: bytes | None, *, failed: bool | None) -> None:
        """A request that was let through is over; None: it tells nothing of the upstream."""
        if epoch != self._epoch:
            return
        if self.state is Circuit.CLOSED:
            if failed is not None:
                self._window.note(network, failed, self._clock())
                if failed and self._fails():
                    total = self._window.total
                    self._lone = network if self._window.is_of_one_network else None
                    self._open(failures=total.failures, requests=total.requests)
            return
        self._trying[network] -= 1
        if not self._trying[network]:
            del self._trying[network]
        if failed:
            self._lone = None
            self._open(failures=1, requests=self._passed + 1)
            self._suspects(network, self._open_until)
        elif failed is False:
            self._passed += 1
            if self._passed >= self._settings.probes:
                self._close()

    def _fails(self) -> bool:
        """Whether the upstream does, and not for one network of clients alone."""
        total, share = self._window.total, self._settings.failures
        if total.requests < self._settings.min_requests or total.failures < share * total.requests:
            return False
        rest = self._window.without_worst()
        return rest.failures >= share * rest.requests

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
        self._suspect = None
        self._closed_at = self._clock()
        log.info("circuit closed: requests succeed again", upstream=self._upstream)
