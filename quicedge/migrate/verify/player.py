"""Plays samples to one edge, one after the other, and collects what its origins see."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol
from urllib.parse import urlsplit

from quicedge.config.devcerts import DevCertificate
from quicedge.migrate.verify.client import play
from quicedge.migrate.verify.limits import MAX_SECONDS, SETTLE
from quicedge.migrate.verify.message import Outcome, Response, Sample, value_of
from quicedge.migrate.verify.origins import Origins

_PER_NETWORK = 250
"""Addresses of a /24 of 127.0.0.0/8 that samples come from."""


def source_of(number: int) -> str:
    """The loopback address of a sample: each has its own, so that limits per client do not make one
    sample depend on those before it."""
    return f"127.77.{number // _PER_NETWORK}.{number % _PER_NETWORK + 1}"


def _has_loopback_network() -> bool:
    """Whether all of 127.0.0.0/8 is this machine, as on Linux, and not 127.0.0.1 alone."""
    with socket.socket() as probe:
        try:
            probe.bind((source_of(0), 0))
        except OSError:
            return False
    return True


class Entrance(Protocol):
    """The ports of an edge."""

    def port_for(self, sample: Sample) -> int | None:
        """The local port that a sample is sent to; None: the edge does not listen there."""
        ...

    def tls_port_for(self, sample: Sample) -> int | None:
        """The port that a plain sample goes to when the edge redirects it to https; None: the edge
        does not do that."""
        ...


class Player:
    """Plays until the list ends, the time is over or `stop` is set."""

    def __init__(
        self, entrance: Entrance, origins: Origins, identity: DevCertificate,
        stop: threading.Event, *, settles: bool,
    ) -> None:  # fmt: skip
        """`identity`: what clients show to an edge that asks for a certificate; `settles`: origins
        may see a request after its client has got the response."""
        self._entrance = entrance
        self._origins = origins
        self._identity = identity
        self._stop = stop
        self._settles = settles
        self._deadline = time.monotonic() + MAX_SECONDS

    def outcomes(self, samples: Sequence[Sample]) -> list[Outcome]:
        """One for each sample that was played."""
        return list(self._outcomes(samples))

    def _outcomes(self, samples: Sequence[Sample]) -> Iterator[Outcome]:
        has_sources = _has_loopback_network()
        for number, sample in enumerate(samples):
            if self._stop.is_set() or time.monotonic() > self._deadline:
                return
            source = source_of(number) if has_sources else None
            yield self._outcome(replace(sample, source=sample.source or source))

    def _outcome(self, sample: Sample) -> Outcome:
        port = self._entrance.port_for(sample)
        if port is None:
            return Outcome(Response(0, failure="nothing listens there"))
        if sample.burst > 1:
            return self._burst(sample, port)
        outcome = self._played(sample, port)
        tls_port = self._entrance.tls_port_for(sample)
        if tls_port is not None and is_redirect_to_https(sample, outcome.response):
            outcome.over_tls = self._played(sample.over("https"), tls_port)
        return outcome

    def _played(self, sample: Sample, port: int) -> Outcome:
        response = play(sample, port, self._identity)
        if self._settles:
            time.sleep(SETTLE)
        return Outcome(response, self._origins.take())

    def _burst(self, sample: Sample, port: int) -> Outcome:
        with ThreadPoolExecutor(sample.burst) as pool:
            responses = list(
                pool.map(lambda _: play(sample, port, self._identity), range(sample.burst))
            )
        self._origins.take()
        statuses = dict(Counter(response.status for response in responses))
        return Outcome(responses[0], statuses=statuses)


def is_redirect_to_https(sample: Sample, response: Response) -> bool:
    """Whether a plain request is sent to the same place with https."""
    location = value_of(response.headers, "location")
    if sample.is_secure or response.status not in (301, 302, 303, 307, 308) or location is None:
        return False
    to = urlsplit(location)
    target = location.split("/", 3)[3:]
    return (
        to.scheme == "https"
        and to.hostname == sample.authority.partition(":")[0].lower()
        and "/" + "".join(target) == sample.target
    )
