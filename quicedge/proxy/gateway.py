"""The gateway: accepts the requests of all protocols, filters, routes and logs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from quicedge.client_auth.rules import ClientAuth
from quicedge.config.limits import RETRY_AFTER
from quicedge.config.routes import upstreams_of
from quicedge.config.schema import Config
from quicedge.http.message import Field, Request, Response
from quicedge.http.validation import MessageError, MessageLimits
from quicedge.proxy.accounting import (
    access_record,
    count_exchange,
    count_rejected,
    rejected_record,
    use_series,
)
from quicedge.proxy.client import ClientInfo
from quicedge.proxy.exchange import Downstream, Exchange, Origin
from quicedge.proxy.filters import FilterChain, Phases, RouteFilters, build_filters
from quicedge.proxy.local_reply import MAY_BE_LOCAL, LocalReply, local_reply
from quicedge.proxy.policy import Policy
from quicedge.proxy.router import Router, host_of
from quicedge.proxy.spans import SpanRecorder
from quicedge.proxy.split import KeepSide, Split
from quicedge.proxy.tunnels import Tunnels
from quicedge.telemetry.access import AccessLog
from quicedge.telemetry.discovery import DiscoveryStats
from quicedge.telemetry.metrics import Metrics
from quicedge.telemetry.outcomes import Outcome
from quicedge.telemetry.upstreams import UpstreamState
from quicedge.upstream.group import Upstream
from quicedge.upstream.limited import LimitedUpstream, overrides_of


class AnyUpstream(Origin, Protocol):
    """A group of servers, or a directory of files (`upstream`)."""

    @property
    def is_contended(self) -> bool:
        """Whether requests wait for resources that others hold."""

    def reclaim(self) -> None:
        """Take resources that others wait for from stalled clients."""

    def stats(self) -> dict[str, dict[str, int]]:
        """Gauges and counters per server."""


class Gateway:
    """Handles all requests of one worker.

    Call `use` before the first request and again on each reload. Sessions call `handle` once per
    request, or `rejected` for a malformed one. `clock` returns seconds, and is the clock of the
    connections; `date` returns the current time as an HTTP date.
    """

    def __init__(
        self,
        policy: Policy,
        spans: SpanRecorder,
        access_log: AccessLog | None,
        *,
        clock: Callable[[], float],
        date: Callable[[], bytes],
    ) -> None:
        self.policy = policy
        self.access_log = access_log
        self.metrics = Metrics()
        self.requests_total = 0
        self.message_limits = MessageLimits()
        self.now = clock
        self.date = date
        self.tunnels = Tunnels(policy, self.metrics)
        self.client_auth: ClientAuth | None = None
        """The hosts that ask clients for certificates; None: none does."""
        self._spans = spans
        self._router = Router(())
        self._upstreams: Mapping[str, AnyUpstream] = {}
        self._filters = FilterChain()
        self._route_filters: RouteFilters = {}
        self._chains: dict[int, FilterChain] = {}
        """Of routes with filters of their own, by identity."""
        self._splits: dict[int, Split] = {}
        """Of routes with several upstreams, by identity."""
        self._limited: dict[tuple[int, str], Origin] = {}
        """The upstreams of routes with timeouts or retries of their own, by identity and name."""

    def use(
        self,
        config: Config,
        router: Router,
        upstreams: Mapping[str, AnyUpstream],
        route_filters: RouteFilters | None = None,
    ) -> None:
        """Apply a configuration to new requests; running exchanges keep theirs."""
        self._router = router
        self._upstreams = upstreams
        self._limited = _limited(config, upstreams)
        self._filters = build_filters(config, self._spans, self.date)
        self._splits = {
            id(route): Split(route.split) for route in config.routes if route.split is not None
        }
        self._chains = {
            id(route): self._filters.with_filter(KeepSide(route.split.sticky_cookie))
            for route in config.routes
            if route.split is not None and route.split.sticky_cookie is not None
        }
        for route, filters in (route_filters or {}).items():
            chain = self._chains.get(route, self._filters)
            self._chains[route] = chain.with_phases(Phases(filters, self.now))
        previous, self._route_filters = self._route_filters, route_filters or {}
        for filters in self._route_filters.values():
            for item in filters:
                item.adopted(self.metrics, self.now)
        for filters in previous.values():
            for item in filters:
                item.retired()
        self.message_limits = MessageLimits(
            max_size=config.http3.max_field_section_size,
            max_fields=config.http3.max_fields,
            extended_connect=True,
        )
        self.tunnels.configure(config)
        use_series(self.metrics, config)

    # --- requests -------------------------------------------------------------------------------

    def handle(self, request: Request, downstream: Downstream, client: ClientInfo) -> Exchange:
        """Accept a request: answer it, or forward it to its upstream."""
        exchange = self._accept(request, downstream, client)
        host = host_of(request.authority)
        auth = self.client_auth
        if not client.is_authoritative(host) or (
            auth is not None and not auth.admits(client.identity, host)
        ):
            # RFC 9110 section 15.5.20: this connection may not carry requests for that name.
            exchange.refuse(421, Outcome.MISDIRECTED)
        elif request.method in MAY_BE_LOCAL and (own := local_reply(request)) is not None:
            _answer(exchange, own)
        elif exchange.route is None:
            exchange.refuse(404, Outcome.NO_ROUTE)
        elif self._router.is_evaded(exchange.route, request, client):
            reason = "servers disagree about the slashes of the path"
            exchange.refuse(400, Outcome.MALFORMED, reason=reason)
        elif not self.policy.refuses(exchange):
            name = exchange.route.upstream
            if name is None and (split := self._splits.get(id(exchange.route))) is not None:
                exchange.choice = split.choose(exchange.request, client)
                name = exchange.choice.upstream
            upstream: Origin | None = None if name is None else self._upstreams[name]
            if self._limited and name is not None:
                upstream = self._limited.get((id(exchange.route), name), upstream)
            if exchange.request.protocol is None:
                exchange.start(upstream)
            else:
                self.tunnels.start(exchange, upstream, self.now())
        return exchange

    def refuse_late(self, request: Request, downstream: Downstream, client: ClientInfo) -> None:
        """Answer a request that was held for too long before `handle`."""
        exchange = self._accept(request, downstream, client)
        exchange.refuse(503, Outcome.OVERLOADED, retry_after=RETRY_AFTER)

    def _accept(self, request: Request, downstream: Downstream, client: ClientInfo) -> Exchange:
        self.requests_total += 1
        route = self._router.find(request.authority, request.path, request, client)
        filters = self._filters
        if self._chains:
            filters = self._chains.get(id(route), filters)
        if request.protocol is not None:
            request = self.tunnels.served_form(request, route, client)
        exchange = Exchange(
            request,
            downstream,
            route,
            client,
            filters,
            clock=self.now,
            on_done=self._done,
        )
        filters.on_accept(exchange)
        downstream.accepted(exchange)
        return exchange

    def _done(self, exchange: Exchange) -> None:
        exchange.downstream.done(exchange)
        count_exchange(self.metrics, exchange)
        exchange.filters.on_done(exchange)
        if self.access_log is not None:
            self.access_log.log(access_record(exchange))
        if exchange.tunnel is not None:
            self.tunnels.ended(exchange)
            exchange.tunnel = None  # break the reference cycle
        exchange.run = None  # this one, too

    def rejected(
        self,
        client: ClientInfo,
        stream_id: int,
        fields: Sequence[Field],
        error: MessageError,
        bytes_sent: int,
    ) -> None:
        """Account for a malformed request that the session answered."""
        self.requests_total += 1
        if self.access_log is not None:
            self.access_log.log(rejected_record(client, stream_id, fields, error, bytes_sent))
        count_rejected(self.metrics, client, error, bytes_sent)

    # --- upstreams ------------------------------------------------------------------------------

    @property
    def is_contended(self) -> bool:
        """Whether requests wait for origin resources that others hold."""
        return any(upstream.is_contended for upstream in self._upstreams.values())

    def reclaim(self) -> None:
        """Take resources that others wait for from stalled clients."""
        for upstream in self._upstreams.values():
            upstream.reclaim()

    def servers(self) -> dict[str, dict[str, dict[str, int]]]:
        """Gauges and counters per upstream and server."""
        return {name: upstream.stats() for name, upstream in self._upstreams.items()}

    def discoveries(self) -> dict[str, list[DiscoveryStats]]:
        """The names whose servers are looked up, by upstream."""
        return {
            name: found
            for name, upstream in self._upstreams.items()
            if isinstance(upstream, Upstream) and (found := upstream.discoveries())
        }

    def upstream_states(self) -> dict[str, UpstreamState]:
        """What is known of each upstream with servers as a whole."""
        return {
            name: upstream.state()
            for name, upstream in self._upstreams.items()
            if isinstance(upstream, Upstream)
        }


def _limited(config: Config, upstreams: Mapping[str, AnyUpstream]) -> dict[tuple[int, str], Origin]:
    """The upstreams of the routes that have limits of their own."""
    found: dict[tuple[int, str], Origin] = {}
    for route in config.routes:
        overrides = overrides_of(route)
        for name in upstreams_of(route) if overrides else ():
            upstream = upstreams[name]
            if isinstance(upstream, Upstream):  # others have neither timeouts nor retries
                found[id(route), name] = LimitedUpstream(upstream, overrides)
    return found


def _answer(exchange: Exchange, own: LocalReply) -> None:
    if own is LocalReply.OPTIONS:
        exchange.answer(Response(204))
    elif own is LocalReply.NOT_SERVED:
        exchange.refuse(501, Outcome.NOT_SERVED, reason="TRACE is not served")
    else:
        exchange.refuse(400, Outcome.MALFORMED, reason="max-forwards is not a number")
