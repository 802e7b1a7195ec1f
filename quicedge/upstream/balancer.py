"""Which server of an upstream takes a request."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, Protocol

from quicedge.http.message import Request
from quicedge.upstream.server import Server


class Balancer(Protocol):
    """A balancing policy."""

    def choose(self, candidates: Sequence[Server], request: Request) -> Server:
        """One of `candidates`, of which there is at least one."""


class RoundRobin:
    """Each server in its turn."""

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, candidates: Sequence[Server], request: Request) -> Server:
        self._turn += 1
        return candidates[self._turn % len(candidates)]


class LeastRequests(RoundRobin):
    """The server with the fewest requests under way; among equals, each in its turn."""

    def choose(self, candidates: Sequence[Server], request: Request) -> Server:
        least = min(server.running for server in candidates)
        return super().choose([s for s in candidates if s.running == least], request)


class ClientAddress:
    """By rendezvous hashing: a client keeps its server, and only those of a server that goes
    down find another."""

    def choose(self, candidates: Sequence[Server], request: Request) -> Server:
        # The one x-forwarded-for there is: the edge has written it.
        client = next((v for name, v in request.fields if name == b"x-forwarded-for"), b"")
        return max(candidates, key=lambda server: _weight(client, server))


def _weight(client: bytes, server: Server) -> bytes:
    return hashlib.blake2b(client + b" " + server.address.text.encode(), digest_size=8).digest()


def make_balancer(name: Literal["round_robin", "least_requests", "client_address"]) -> Balancer:
    """The policy of that name (`balance` in the configuration)."""
    policies: dict[str, type[Balancer]] = {
        "round_robin": RoundRobin,
        "least_requests": LeastRequests,
        "client_address": ClientAddress,
    }
    return policies[name]()
