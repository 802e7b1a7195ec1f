"""Load balancing between the servers of an upstream."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from quicedge.config.schema import Balance
from quicedge.http.message import Request
from quicedge.upstream.server import Server


class Balancer(Protocol):
    """A balancing policy."""

    def choose(self, candidates: Sequence[Server], request: Request) -> Server:
        """Choose one of `candidates`, which is not empty."""


class RoundRobin:
    """Each server in turn."""

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, candidates: Sequence[Server], request: Request) -> Server:
        self._turn += 1
        return candidates[self._turn % len(candidates)]


class LeastRequests(RoundRobin):
    """The server with the fewest active requests; round robin between equals."""

    def choose(self, candidates: Sequence[Server], request: Request) -> Server:
        least = min(server.load for server in candidates)
        return super().choose([s for s in candidates if s.load == least], request)


class ClientAddress:
    """Rendezvous hashing of the client address.

    A client keeps its server; only the clients of a server that goes down are redistributed.
    """

    def choose(self, candidates: Sequence[Server], request: Request) -> Server:
        # There is exactly one x-forwarded-for, written by the edge.
        client = next((v for name, v in request.fields if name == b"x-forwarded-for"), b"")
        return max(candidates, key=lambda server: _weight(client, server))


def _weight(client: bytes, server: Server) -> bytes:
    return hashlib.blake2b(client + b" " + server.address.text.encode(), digest_size=8).digest()


def make_balancer(balance: Balance) -> Balancer:
    """Create the policy that the configuration chooses."""
    policies: dict[Balance, type[Balancer]] = {
        Balance.ROUND_ROBIN: RoundRobin,
        Balance.LEAST_REQUESTS: LeastRequests,
        Balance.CLIENT_ADDRESS: ClientAddress,
    }
    return policies[balance]()
