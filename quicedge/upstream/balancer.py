"""Which server of an upstream takes a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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
