"""What the operator's limits refuse, beyond what the transport refuses by itself."""

from __future__ import annotations

import asyncio
import heapq
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable

import structlog

from quicedge.config.limits import (
    CLOSES_LOGGED_PER_SECOND,
    REFUSAL_LOG_INTERVAL,
    RETRY_AFTER,
)
from quicedge.config.schema import Config
from quicedge.http.errors import H3ErrorCode, error_name
from quicedge.proxy.exchange import Exchange
from quicedge.quic.admission import (
    Admission,
    AdmissionRules,
    BoundedLog,
    Decision,
    RateLimit,
    Verdict,
)
from quicedge.quic.prefixes import AccessList, packed
from quicedge.telemetry.outcomes import Outcome, Refusal
from quicedge.worker.fleetrates import FleetCounts, open_store
from quicedge.worker.memory import MemoryBudget, default_budget
from quicedge.worker.requestrates import RequestRates
from quicedge.worker.response_memory import ResponseMemory
from quicedge.worker.session import Session

log = structlog.get_logger(__name__)


def admission_rules(config: Config) -> AdmissionRules:
    """What a configuration says of new connections."""
    quic, limits = config.quic, config.limits
    return AdmissionRules(
        retry=quic.retry,
        retry_threshold=quic.retry_threshold,
        max_half_open=quic.max_half_open,
        max_half_open_per_prefix=limits.max_half_open_per_prefix,
        max_connections=limits.max_connections,
        max_connections_per_address=limits.max_connections_per_address,
        max_connections_per_prefix=limits.max_connections_per_prefix,
        handshakes_per_second=limits.handshakes_per_second,
        handshakes_per_second_per_prefix=limits.handshakes_per_second_per_prefix,
        access=AccessList(limits.allow, limits.deny),
    )


def _say_refused(reason: str, count: int) -> None:
    log.warning("requests refused", reason=reason, count=count)


class Policy:
    """The limits of one worker. `clock` is that of connections and exchanges."""

    def __init__(self, config: Config, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.admission = Admission(admission_rules(config))
        self.memory = MemoryBudget(memory_budget(config))
        self.response_memory = ResponseMemory(
            config.limits.response_memory, asyncio.get_running_loop().call_soon
        )
        self.counters: Counter[str] = Counter({reason.value: 0 for reason in Refusal})
        """Requests refused and streams ended by a limit, by reason."""
        self._refusals = BoundedLog(_say_refused, REFUSAL_LOG_INTERVAL)
        self._closes_logged = RateLimit(CLOSES_LOGGED_PER_SECOND)
        self._draining = False
        self._fleet: FleetCounts | None = None
        self._fleet_task: asyncio.Task[None] | None = None
        self._fleet_url: str | None = None
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Refuse by these from now on."""
        self._limits = config.limits
        self.admission.configure(admission_rules(config))
        self.memory.budget = memory_budget(config)
        self.response_memory.pool.capacity = config.limits.response_memory
        self._join_fleet(config.limits.redis)
        fleet = self._fleet
        self._rates = RequestRates(config.limits.requests, fleet=fleet)
        # A route is known by its identity: equal ones could stand in different configurations.
        self._route_rates = {
            id(route): RequestRates(route.requests, f"{route.host}{route.path}", fleet)
            for route in config.routes
            if route.requests
        }
        self._needs_address = (
            bool(self.admission.rules.access)
            or self._rates.needs_address
            or any(rates.needs_address for rates in self._route_rates.values())
        )

    @property
    def needs_address(self) -> bool:
        """Whether any rule asks for the client's address: requests wait until it is validated.

        One that a packet merely claims must pass no allow list and use up no other client's rate
        (CVE-2024-49214).
        """
        return self._needs_address

    def _join_fleet(self, url: str | None) -> None:
        """Add request rates up with whoever uses the same store."""
        if url == self._fleet_url:
            return
        self.close()
        self._fleet_url = url
        if url is not None:
            self._fleet = FleetCounts(open_store(url))
            self._fleet_task = asyncio.get_running_loop().create_task(self._fleet.run())

    def close(self) -> None:
        """Leave the fleet."""
        if self._fleet_task is not None:
            self._fleet_task.cancel()
        self._fleet = self._fleet_task = None

    def drain(self) -> None:
        """Refuse every newcomer, at once: it has time to go elsewhere."""
        self._draining = True
        self.admission.closed = Verdict(Decision.REFUSE, "draining")

    def refuses(self, exchange: Exchange, host: str) -> bool:
        """Whether a request of a client at `host` is refused; it is answered then."""
        access = self.admission.rules.access
        if access and not access.permits(packed(host)):
            # The client has moved since it was let in (CVE-2026-40460).
            self.count(Refusal.DENIED)
            exchange.refuse(403, Outcome.DENIED)
        elif len(exchange.request.path) > self._max_uri(exchange):
            self.count(Refusal.URI_TOO_LONG)
            exchange.refuse(414, Outcome.URI_TOO_LONG)
        elif self.memory.full:
            self.count(Refusal.OVERLOADED)
            reason = "the memory budget is used up"
            exchange.refuse(503, Outcome.OVERLOADED, reason=reason, retry_after=RETRY_AFTER)
        elif wait := self._wait(exchange, host):
            self.count(Refusal.RATE_LIMITED)
            exchange.refuse(429, Outcome.RATE_LIMITED, retry_after=math.ceil(wait))
        else:
            return False
        return True

    def _max_uri(self, exchange: Exchange) -> int:
        route = exchange.route
        own = route.max_uri if route is not None else None
        return self._limits.max_uri if own is None else own

    def _wait(self, exchange: Exchange, host: str) -> float:
        """Seconds until the request is within its rates; 0 when it is."""
        if not self._rates and not self._route_rates:
            return 0.0
        now = self._clock()
        own = self._route_rates.get(id(exchange.route))
        wait = self._rates.wait(exchange.request, host, now)
        return wait or (0.0 if own is None else own.wait(exchange.request, host, now))

    def count(self, reason: Refusal, count: int = 1) -> None:
        """Note a refusal, for counters and the log."""
        self.counters[reason] += count
        self._refusals.note(reason, self._clock())

    def note_closed(self, session: Session, code: int, reason: str) -> None:
        """A connection is closed for what its client did: say why."""
        if self._closes_logged.allow(self._clock()):
            log.warning(
                "connection closed",
                connection=session.connection.id,
                client=session.client,
                code=error_name(code, application=True),
                reason=reason,
            )

    def check(self, sessions: Iterable[Session], now: float, *, contended: bool) -> None:
        """Deadlines of progress, and memory; about once a second.

        `contended`: requests wait for what others hold of an origin.
        """
        sessions = list(sessions)
        for session in sessions:
            if session.going_away:
                session.close_if_drained()
            if session.is_busy:
                late = session.progress.check(session, self._limits, now)
                if late:
                    self.count(Refusal.TOO_SLOW, late)
                self._check_stalls(session, now, contended)
        surplus = self.memory.check(len(sessions), now)
        if surplus:
            self.count(Refusal.SHED, surplus)
            for session in heapq.nlargest(surplus, sessions, key=lambda session: session.weight):
                session.close(H3ErrorCode.EXCESSIVE_LOAD, "out of memory")
        if not self._draining:
            full = Verdict(Decision.REFUSE, "memory")
            self.admission.closed = full if self.memory.full else None

    def _check_stalls(self, session: Session, now: float, contended: bool) -> None:
        session.expect_nothing()
        short = session.memory.is_short
        if contended or short:
            session.stalls.check(session, now)
        else:
            session.stalls.forget()
        if short and (cut := session.cut_stalled()):
            self.count(Refusal.STALLED, cut)
        session.check_held(now)


def memory_budget(config: Config) -> int:
    """Bytes that a worker may take."""
    if config.limits.memory is not None:
        return config.limits.memory
    workers = os.cpu_count() if config.workers == "auto" else config.workers
    return default_budget(workers or 1)
