"""Which server of an upstream gets a request, by what is known of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Protocol

from quicedge.config.limits import LATENCY_OF_FAILURE, UPSTREAM_MAX_WAITING
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.message import Field, Request
from quicedge.shares import Client
from quicedge.upstream.balancer import Balancer, make_balancer
from quicedge.upstream.retry_budget import RetryBudget
from quicedge.upstream.server import Server
from quicedge.upstream.sticky import StickyCookie


class Expectant(Protocol):
    """A request that waits until the first servers are known (`stream.UpstreamStream`)."""

    def servers_known(self) -> None:
        """There are servers now, or it is known that there are none."""


class Selection:
    """Chooses servers, and is told how they do."""

    def __init__(self, servers: Sequence[Server], config: UpstreamConfig) -> None:
        self.retry_budget = RetryBudget(config.retry_budget)
        self._config = config
        self._outliers = config.outliers
        self._expecting: list[Expectant] = []
        self.use(servers)

    def use(self, servers: Sequence[Server], *, are_looked_up: bool = False) -> None:
        """Choose among these servers from now on.

        `are_looked_up`: DNS is still being asked for the first time, so that requests without a
        server wait.
        """
        self.observes = len(servers) > 1
        """Whether to call `answered` and `failed`: with one server there is no choice."""
        self._servers = tuple(servers)
        self._has_tiers = len({server.tier for server in servers}) > 1
        self._balancer: Balancer = make_balancer(self._config)
        # Otherwise a second attempt would take a turn, and that of the server whose first attempt
        # has failed or is slow would come again all the sooner.
        self._second_balancer: Balancer = make_balancer(self._config)
        cookie = self._config.sticky_cookie
        self._sticky = None if cookie is None else StickyCookie(cookie, servers)
        self._are_looked_up = are_looked_up
        if self._servers or not are_looked_up:
            self._stop_waiting()

    def expect_nothing(self) -> None:
        """No server will be looked up anymore."""
        self._are_looked_up = False
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        expecting, self._expecting = self._expecting, []
        for request in expecting:
            request.servers_known()

    def expect(self, request: Expectant) -> bool:
        """Have a request wait for the first servers, if there will be any and it may wait."""
        if not self._are_looked_up or len(self._expecting) >= UPSTREAM_MAX_WAITING:
            return False
        self._expecting.append(request)
        return True

    def choose(
        self, request: Request, failed: frozenset[Server], client: Client | None = None
    ) -> Server | None:
        """The server for a request, excluding `failed`; None if there is no other.

        Prefers servers that are up, of them those of the lowest tier. If none is up, any may be
        chosen: a misjudgement of the edge must not cause an outage. `client`: who has made the
        request; None: the edge itself.
        """
        candidates = self._servers
        if len(candidates) == 1 and not failed:
            return candidates[0]
        if failed:
            candidates = tuple(server for server in candidates if server not in failed)
        if not candidates:
            return None
        if len(candidates) > 1:
            candidates = tuple(s for s in candidates if s.health.is_up) or candidates
        if self._has_tiers:
            first = min(server.tier for server in candidates)
            candidates = tuple(server for server in candidates if server.tier == first)
        if self._sticky is not None:
            server = self._sticky.server_of(request)
            if server is not None and server in candidates:
                return server
        balancer = self._second_balancer if failed else self._balancer
        return balancer.choose(candidates, request, client)

    def has_another(self, server: Server, failed: frozenset[Server]) -> bool:
        """Whether there is another server that is up, of the same tier, and not in `failed`."""
        return any(other not in failed for other in self._equals(server))

    def refusing(self, client: Client | None, *, tunnels: bool) -> frozenset[Server]:
        """The servers that refuse a request of this client, or one for a tunnel, for now."""
        pools = ((server, server.tunnels if tunnels else server) for server in self._servers)
        return frozenset(server for server, pool in pools if pool.refuses(client))

    def unfit_for_second(self, first: Server | None) -> frozenset[Server] | None:
        """The servers that a second attempt must not be sent to while `first` has the other one;
        None: there is none that it may be sent to."""
        if first is None:
            return None
        fit = {server for server in self._equals(first) if not server.is_contended}
        return frozenset(self._servers) - fit if fit else None

    def _equals(self, server: Server) -> Iterator[Server]:
        """The other servers of its tier that are up."""
        for other in self._servers:
            if other is not server and other.tier == server.tier and other.health.is_up:
                yield other

    def sticky_field(self, request: Request, server: Server) -> Field | None:
        """The field by which a client stays with the server that has answered; None: no need."""
        return None if self._sticky is None else self._sticky.field_for(request, server)

    def answered(self, server: Server, status: int, seconds: float) -> None:
        """A server has answered a request after `seconds`."""
        outliers = self._outliers
        if outliers is not None:
            if status in outliers.statuses:
                self.failed(server, seconds)
                return
            server.health.request_succeeded()
        server.latency.note(seconds, monotonic())

    def failed(self, server: Server, seconds: float) -> None:
        """A request that a server had received has failed after `seconds`."""
        server.latency.note(max(seconds, LATENCY_OF_FAILURE), monotonic())
        outliers = self._outliers
        if outliers is None or not server.health.request_failed(outliers.failures):
            return
        ejected = sum(other.health.is_ejected for other in self._servers)
        may_eject = ejected + 1 <= outliers.max_ejected * len(self._servers)
        if may_eject and not server.health.is_ejected:
            server.health.eject(outliers.eject_for)
