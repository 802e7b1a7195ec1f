"""Load balancing between the servers of an upstream.

Every policy respects the weights of servers, which grow during a slow start (`Server.weight`).
"""

from __future__ import annotations

import hashlib
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from time import monotonic
from typing import Protocol

from quicedge.config.limits import BALANCE_BOUND, LATENCY_UNKNOWN
from quicedge.config.schema import Balance
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.message import Request
from quicedge.shares import Client
from quicedge.upstream.balance_key import BalanceKey, balance_key
from quicedge.upstream.server import Server


class Balancer(Protocol):
    """A balancing policy."""

    def choose(
        self, candidates: Sequence[Server], request: Request, client: Client | None
    ) -> Server:
        """Choose one of `candidates`, which is not empty; `client`: None: the edge itself."""


class RoundRobin:
    """Each server in turn; one of twice the weight has twice as many turns, evenly spread.

    The smooth weighted round robin of nginx: every server gains its weight, the richest is chosen
    and pays what all have gained.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._credit: dict[Server, float] = {}

    def choose(
        self, candidates: Sequence[Server], request: Request, client: Client | None
    ) -> Server:
        first = candidates[0].weight
        if all(server.weight == first for server in candidates):
            self._turn += 1
            return candidates[self._turn % len(candidates)]
        credit, total = self._credit, 0.0
        for server in candidates:
            weight = server.weight
            total += weight
            credit[server] = credit.get(server, 0.0) + weight
        chosen = max(candidates, key=credit.__getitem__)
        credit[chosen] -= total
        return chosen


class LeastRequests:
    """The server with the fewest active requests for its weight; turns, by weight, between equals:
    where few requests run at once, most servers are."""

    def __init__(self) -> None:
        self._between = RoundRobin()

    def choose(
        self, candidates: Sequence[Server], request: Request, client: Client | None
    ) -> Server:
        loads = [_load(server) for server in candidates]
        least = min(loads)
        equals = [s for s, load in zip(candidates, loads, strict=True) if load == least]
        return equals[0] if len(equals) == 1 else self._between.choose(equals, request, client)


class TwoChoices:
    """The better of two servers chosen at random (Mitzenmacher, "The Power of Two Choices in
    Randomized Load Balancing", 2001).

    With many workers or hosts, which know nothing of each other's requests, they do not all run to
    the same server, as they would to the least loaded. One of twice the weight is drawn first twice
    as often, and wins if both are equal.
    """

    def __init__(
        self, cost: Callable[[Server], float], draw: Callable[[], float] = random.random
    ) -> None:
        self._cost = cost
        self._draw = draw

    def choose(
        self, candidates: Sequence[Server], request: Request, client: Client | None
    ) -> Server:
        if len(candidates) == 1:
            return candidates[0]
        first = candidates[_drawn(candidates, self._draw())]
        others = [server for server in candidates if server is not first]
        second = others[_drawn(others, self._draw())]
        return min(first, second, key=self._cost)


class Rendezvous:
    """Weighted rendezvous hashing of a key of the request (Thaler and Ravishankar, 1998).

    A key keeps its server; only the keys of a server that goes away are redistributed. `bounded`:
    a server with more than BALANCE_BOUND times its share of the running requests is passed over
    (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018).
    """

    def __init__(self, key: BalanceKey, *, bounded: bool) -> None:
        self._key = key
        self._bounded = bounded

    def choose(
        self, candidates: Sequence[Server], request: Request, client: Client | None
    ) -> Server:
        key = self._key(request, client)
        if self._bounded and len(candidates) > 1:
            running = sum(server.load for server in candidates) + 1
            weights = sum(server.weight for server in candidates)
            bound = BALANCE_BOUND * running / weights
            below = [s for s in candidates if s.load < math.ceil(bound * s.weight)]
            candidates = below or candidates
        return max(candidates, key=lambda server: _score(key, server))


def _drawn(servers: Sequence[Server], draw: float) -> int:
    """The index of one of the servers, in proportion to their weights; `draw` is below 1."""
    sums = list(accumulate(server.weight for server in servers))
    return bisect_right(sums, draw * sums[-1], hi=len(sums) - 1)


def _load(server: Server) -> float:
    return server.load / server.weight


def _expected_wait(server: Server) -> float:
    seconds, load = server.latency.expected(monotonic()), server.load
    if seconds is None:
        # One request finds out.
        return LATENCY_UNKNOWN * load
    return (load + 1) * seconds / server.weight


def _score(key: bytes, server: Server) -> float:
    """Of the servers, that of the highest score has the key, in proportion to the weights."""
    text = key + b" " + server.address.text.encode()
    number = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest())
    return -server.weight / math.log((number + 0.5) / (1 << 56))


def make_balancer(config: UpstreamConfig) -> Balancer:
    """Create the policy that the configuration chooses."""
    match config.balance:
        case Balance.ROUND_ROBIN:
            return RoundRobin()
        case Balance.LEAST_REQUESTS:
            return LeastRequests()
        case Balance.TWO_CHOICES:
            return TwoChoices(_load)
        case Balance.LATENCY:
            return TwoChoices(_expected_wait)
        case Balance.CLIENT_ADDRESS:
            return Rendezvous(balance_key("client"), bounded=False)
        case Balance.HASH:
            return Rendezvous(balance_key(config.hash_by), bounded=True)
