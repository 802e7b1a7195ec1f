"""The tunnels of a worker: which are allowed, how many, and until when."""

from __future__ import annotations

from typing import NamedTuple

from quicedge.config.limits import RETRY_AFTER, TUNNEL_DRAIN_SPREAD
from quicedge.config.routes import upstreams_of
from quicedge.config.schema import Config, Route
from quicedge.http.message import Request
from quicedge.http.upgrade import ordinary_request
from quicedge.proxy.accounting import route_label
from quicedge.proxy.client import ClientInfo
from quicedge.proxy.exchange import Exchange, Origin
from quicedge.proxy.policy import Policy
from quicedge.proxy.tunnel import Tunnel
from quicedge.shares import Pool
from quicedge.telemetry.metrics import Metrics, RouteMetrics
from quicedge.telemetry.outcomes import Outcome, Refusal
from quicedge.telemetry.text import text


class _Running(NamedTuple):
    """A running tunnel, and where it is counted."""

    tunnel: Tunnel
    pool: Pool
    metrics: RouteMetrics


class Tunnels:
    """Starts tunnels and ends idle ones; call `check` about once per second.

    Each route has a number of tunnels per worker, shared fairly among clients (`shares.Pool`).
    Routes are known by their labels, so that running tunnels count across reloads.
    """

    def __init__(self, policy: Policy, metrics: Metrics) -> None:
        self._policy = policy
        self._metrics = metrics
        self._allowed: dict[str, frozenset[bytes]] = {}
        self._pools: dict[str, Pool] = {}
        self._running: dict[Exchange, _Running] = {}
        self._closing: list[tuple[float, Exchange]] = []
        """When to close which WebSockets, latest first, while the worker drains."""

    def configure(self, config: Config) -> None:
        """Apply the limits of a configuration to new tunnels; running ones stay."""
        previous, self._pools = self._pools, {}
        self._allowed = {}
        for route in config.routes:
            label = route_label(route)
            pool = self._pools[label] = previous.get(label) or Pool(route.max_tunnels)
            pool.capacity = route.max_tunnels
            upstreams = [config.upstreams.get(name) for name in upstreams_of(route)]
            # Files answer no handshake.
            takes_any = not upstreams or any(up is None or up.root is None for up in upstreams)
            names = route.upgrade if takes_any else ()
            self._allowed[label] = frozenset(name.lower().encode() for name in names)

    def served_form(self, request: Request, route: Route | None, client: ClientInfo) -> Request:
        """A request for a tunnel as it is served on a route.

        RFC 9110 section 7.8: a server MAY ignore an Upgrade field, so an HTTP/1.1 request to switch
        to a protocol that the route does not allow is an ordinary one.
        """
        if route is None or client.http_version != b"1.1" or self._allows(route, request):
            return request
        return ordinary_request(request)

    def _allows(self, route: Route, request: Request) -> bool:
        return request.protocol in self._allowed[route_label(route)]

    def start(self, exchange: Exchange, origin: Origin | None, now: float) -> None:
        """Forward a request for a tunnel, or refuse it."""
        route, request = exchange.route, exchange.request
        assert route is not None
        assert request.protocol is not None
        if not self._allows(route, request):
            # RFC 9220 section 3: a server that does not support the protocol SHOULD answer 501.
            reason = f"no tunnels of {text(request.protocol)} on this route"
            exchange.refuse(501, Outcome.NOT_SERVED, reason=reason)
            return
        label, client = route_label(route), exchange.client.share
        pool = self._pools[label]
        if not pool.may_take(client):
            self._policy.count(Refusal.TUNNELS)
            reason = "the route has no more tunnels for this client"
            exchange.refuse(503, Outcome.OVERLOADED, reason=reason, retry_after=RETRY_AFTER)
            return
        pool.take(client)
        tunnel = Tunnel(exchange, request.protocol, route.tunnel_idle_timeout, now)
        running = self._running[exchange] = _Running(tunnel, pool, self._metrics.route(label))
        running.metrics.tunnels += 1
        exchange.start_tunnel(origin, tunnel)

    def ended(self, exchange: Exchange) -> None:
        """An exchange has ended that is, or was to become, a tunnel."""
        running = self._running.pop(exchange, None)
        if running is not None:
            running.pool.give_back(exchange.client.share)
            running.metrics.tunnels -= 1

    def check(self, now: float) -> None:
        """End tunnels that are past a deadline."""
        opening: list[tuple[float, Exchange]] = []
        while self._closing and self._closing[-1][0] <= now:
            at, exchange = self._closing.pop()
            if exchange not in self._running:
                continue
            tunnel = self._running[exchange].tunnel
            if not tunnel.is_open:
                opening.append((at, exchange))
            elif tunnel.may_close_cleanly:
                tunnel.close(Outcome.TUNNEL_DRAINED, now)
        self._closing += opening
        for running in list(self._running.values()):
            running.tunnel.check(now)

    def drain(self, timeout: float, now: float) -> None:
        """Close the WebSockets one after the other, within half of `timeout`.

        Tunnels of other protocols cannot be told; they have until the connection closes.
        """
        each = min(timeout / 2, TUNNEL_DRAIN_SPREAD) / max(len(self._running), 1)
        running = list(enumerate(self._running))
        self._closing = [(now + number * each, exchange) for number, exchange in reversed(running)]
        self.check(now)
