"""The configured limits on requests, and the counters of refusals."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable

import structlog

from quicedge.config.limits import CLOSES_LOGGED_PER_SECOND, REFUSAL_LOG_INTERVAL, RETRY_AFTER
from quicedge.config.routes import filters_of, route_text
from quicedge.config.schema import Config
from quicedge.http.errors import error_name, h2_error_name
from quicedge.proxy.client import ClientInfo, address_of, host_of
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.request_rates import RequestRates
from quicedge.proxy.response_memory import ResponseMemory
from quicedge.proxy.shared_rate_limit import FleetCounts, open_store
from quicedge.shares.prefixes import AccessList, packed
from quicedge.shares.rates import RateLimit
from quicedge.telemetry.bounded_log import BoundedLog
from quicedge.telemetry.outcomes import Outcome, Refusal

log = structlog.get_logger(__name__)


def _say_refused(reason: str, count: int) -> None:
    log.warning("requests refused", reason=reason, count=count)


class Policy:
    """Enforces the request limits of one worker. `clock` is that of the connections.

    `configure` may be called at any time; `close` last. `refuses` must be called only after the
    client's address is validated if `needs_address`.
    """

    def __init__(self, config: Config, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.memory_is_full = False
        """Whether the worker's memory budget is exhausted: new requests are refused."""
        self.response_memory = ResponseMemory(
            config.limits.response_memory, asyncio.get_running_loop().call_soon
        )
        self.counters: Counter[str] = Counter({reason.value: 0 for reason in Refusal})
        """Requests refused and streams ended because of a limit, by reason."""
        self._refusals = BoundedLog(_say_refused, REFUSAL_LOG_INTERVAL)
        self._closes_logged = RateLimit(CLOSES_LOGGED_PER_SECOND)
        self._fleet: FleetCounts | None = None
        self._fleet_task: asyncio.Task[None] | None = None
        self._fleet_url: str | None = None
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Apply the limits of a configuration from now on."""
        self._limits = config.limits
        self._access = AccessList(config.limits.allow, config.limits.deny)
        self.response_memory.pool.capacity = config.limits.response_memory
        self._join_fleet(config.limits.redis)
        fleet = self._fleet
        self._rates = RequestRates(config.limits.requests, fleet=fleet)
        # Keyed by identity: equal routes may occur in different configurations.
        self._route_rates = {
            id(route): RequestRates(route.requests, route_text(route), fleet)
            for route in config.routes
            if route.requests
        }
        self._is_restricted = bool(self._access)
        self._is_rated = bool(self._rates or self._route_rates)
        self._rules_by_client = self._is_restricted or self._is_rated
        self.needs_address = (
            bool(self._access)
            or self._rates.needs_address
            or any(rates.needs_address for rates in self._route_rates.values())
            or any(route.clients for route in config.routes)
            or any(route.split is not None and route.split.needs_address for route in config.routes)
            or any(
                entry.needs_address
                for route in config.routes
                for entry in filters_of(config, route)
            )
        )
        """Whether any rule uses the client's address: requests then wait for its validation.

        A forged address must neither pass an allow list nor use up another client's rate
        (CVE-2024-49214).
        """

    def _join_fleet(self, url: str | None) -> None:
        """Share request rates with all users of the same store."""
        if url == self._fleet_url:
            return
        self.close()
        self._fleet_url = url
        if url is not None:
            self._fleet = FleetCounts(open_store(url))
            self._fleet_task = asyncio.get_running_loop().create_task(self._fleet.run())

    def close(self) -> None:
        """Disconnect from the fleet."""
        if self._fleet_task is not None:
            self._fleet_task.cancel()
        self._fleet = self._fleet_task = None

    def refuses(self, exchange: Exchange) -> bool:
        """Whether a request is refused; a refused one has been answered."""
        host = host_of(exchange.client) if self._rules_by_client else ""
        route = exchange.route
        own = route.max_uri if route is not None else None
        if self._is_restricted and not self._access.permits(packed(host)):
            # The client has migrated since its connection was admitted (CVE-2026-40460).
            self.count(Refusal.DENIED)
            exchange.refuse(403, Outcome.DENIED)
        elif len(exchange.request.path) > (self._limits.max_uri if own is None else own):
            self.count(Refusal.URI_TOO_LONG)
            exchange.refuse(414, Outcome.URI_TOO_LONG)
        elif self.memory_is_full:
            self.count(Refusal.OVERLOADED)
            reason = "the memory budget is used up"
            exchange.refuse(503, Outcome.OVERLOADED, reason=reason, retry_after=RETRY_AFTER)
        elif self._is_rated and (wait := self._wait(exchange, host)):
            self.count(Refusal.RATE_LIMITED)
            exchange.refuse(429, Outcome.RATE_LIMITED, retry_after=math.ceil(wait))
        else:
            return False
        return True

    def _wait(self, exchange: Exchange, host: str) -> float:
        """Seconds until the request conforms to its rates; 0 if it does."""
        now = self._clock()
        own = self._route_rates.get(id(exchange.route))
        wait = self._rates.wait(exchange.request, host, now)
        return wait or (0.0 if own is None else own.wait(exchange.request, host, now))

    def count(self, reason: Refusal, count: int = 1) -> None:
        """Record a refusal for counters and log."""
        self.counters[reason] += count
        self._refusals.note(reason, self._clock())

    def note_closed(self, client: ClientInfo, code: int, reason: str) -> None:
        """Log that a connection was closed because of its client's behaviour; `code` is one of the
        client's HTTP version."""
        if self._closes_logged.allow(self._clock()):
            log.warning(
                "connection closed",
                connection=client.transport.connection_id,
                client=address_of(client),
                code=(
                    h2_error_name(code)
                    if client.http_version == b"2"
                    else error_name(code, application=True)
                ),
                reason=reason,
            )
