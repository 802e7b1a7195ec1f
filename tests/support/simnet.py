"""Two QUIC connections, a clock and a link in memory: seconds of traffic in milliseconds."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent


@dataclass
class Link:
    """One direction of a path. Rates in bytes per second, times in seconds, loss as a fraction."""

    delay: float = 0.01
    loss: float = 0.0
    jitter: float = 0.0
    rate: float | None = None
    queue: int = 1_000_000
    """Bytes that wait for the link at most."""
    ce: float = 0.0
    """Fraction of ECT datagrams that it marks Congestion Experienced."""
    bleach: bool = False
    """Clears every mark."""
    duplicates: float = 0.0
    mtu: int | None = None
    """UDP payload bytes of the largest datagram that it carries."""
    swallows_marked: bool = False
    """Drops every datagram with an ECN mark."""
    _free_at: float = 0.0

    def backlog(self, now: float) -> float:
        """Bytes that wait for the link."""
        return max(0.0, self._free_at - now) * (self.rate or 0.0)

    def mark(self, ecn: int, rng: random.Random) -> int:
        """The ECN codepoint that a datagram arrives with."""
        if self.bleach or not ecn:
            return 0
        return 3 if self.ce and rng.random() < self.ce else ecn

    def arrival(self, size: int, now: float, rng: random.Random, ecn: int = 0) -> float | None:
        """When a datagram of `size` bytes sent now arrives, or None when it is lost."""
        if (self.mtu is not None and size > self.mtu) or (self.swallows_marked and ecn):
            return None
        sent = now
        if self.rate is not None:
            start = max(now, self._free_at)
            if (start - now) * self.rate > self.queue:
                return None
            sent = self._free_at = start + size / self.rate
        if rng.random() < self.loss:
            return None
        return sent + self.delay + rng.random() * self.jitter


def transmit(connection: Any, now: float) -> list[tuple[bytes, Any, int]]:
    """What a connection, ours or aioquic's, sends: single datagrams, address, ECN codepoint."""
    if isinstance(connection, QuicConnection):
        if connection.get_peer_address() is None:
            return []  # a server that nobody has spoken to
        return [(data, address, 0) for data, address in connection.datagrams_to_send(now)]
    return [
        (run.data[at : at + run.segment], run.path, run.ecn)
        for run in connection.poll_transmit(now)
        for at in range(0, len(run.data), run.segment)
    ]


def datagrams(connection: Any, now: float) -> list[bytes]:
    """What a connection sends, wherever it goes."""
    return [data for data, _, _ in transmit(connection, now)]


@dataclass
class Peer:
    """A connection, ours or aioquic's, on the link and its events."""

    connection: Any
    address: Any
    events: list[QuicEvent] = field(default_factory=list)
    on_event: Callable[[QuicEvent], None] | None = None

    @property
    def _is_stock(self) -> bool:
        return isinstance(self.connection, QuicConnection)

    def drain(self) -> None:
        connection = self.connection
        poll = connection.next_event if self._is_stock else connection.poll_event
        while (event := poll()) is not None:
            self.events.append(event)
            if self.on_event is not None:
                self.on_event(event)

    def transmit(self, now: float) -> list[tuple[bytes, Any, int]]:
        return transmit(self.connection, now)

    def receive(self, data: bytes, address: Any, now: float, ecn: int) -> None:
        if self._is_stock:
            self.connection.receive_datagram(data, address, now)
        else:
            self.connection.receive_datagram(data, address, now, ecn)

    def timer(self) -> float | None:
        connection = self.connection
        timer: float | None = (
            connection.get_timer() if self._is_stock else connection.poll_timeout()
        )
        return timer

    def handle_timer(self, now: float) -> None:
        if self._is_stock:
            self.connection.handle_timer(now)
        else:
            self.connection.handle_timeout(now)


class Pair:
    """A client and a server joined by two links on a virtual clock."""

    def __init__(
        self, client: Peer, server: Peer, up: Link, down: Link, seed: int = 1, now: float = 1000.0
    ) -> None:
        self.client, self.server = client, server
        self.up, self.down = up, down
        self.rng = random.Random(seed)
        self.now = now
        self.datagrams_lost = 0
        self._wire: list[tuple[float, int, Peer, bytes, Any, int]] = []
        self._order = count()
        self._timers: dict[int, float | None] = {}

    def transmit(self) -> None:
        """Deliver both sides' events and put what they send on the wire."""
        for peer, other, link in (
            (self.client, self.server, self.up),
            (self.server, self.client, self.down),
        ):
            peer.drain()
            for data, _, sent_ecn in peer.transmit(self.now):
                arrival = link.arrival(len(data), self.now, self.rng, sent_ecn)
                if arrival is None:
                    self.datagrams_lost += 1
                    continue
                ecn = link.mark(sent_ecn, self.rng)
                copies = 2 if link.duplicates and self.rng.random() < link.duplicates else 1
                for _ in range(copies):
                    heapq.heappush(
                        self._wire, (arrival, next(self._order), other, data, peer.address, ecn)
                    )
            peer.drain()

    def next_moment(self) -> float:
        """When the next datagram arrives or timer fires; infinity when none does."""
        moments = [timer for peer in (self.client, self.server)
                   if (timer := peer.timer()) is not None]  # fmt: skip
        if self._wire:
            moments.append(self._wire[0][0])
        return min(moments, default=float("inf"))

    def step(self, end: float = float("inf")) -> bool:
        """Advance to the next datagram or timer; False when none comes before `end`."""
        moment = self.next_moment()
        if moment == float("inf") or moment > end:
            return False
        # A real timer fires a little late; one that fires at its very moment would hide rounding.
        self.now = max(self.now, moment) + 1e-6
        while self._wire and self._wire[0][0] <= self.now:
            _, _, peer, data, address, ecn = heapq.heappop(self._wire)
            peer.receive(data, address, self.now, ecn)
        for peer in (self.client, self.server):
            timer = peer.timer()
            if timer is not None and timer <= self.now:
                peer.handle_timer(self.now)
        self.transmit()
        return True

    def run(self, until: Callable[[], bool], limit: float = 120.0) -> None:
        """Step until the condition holds; fails after `limit` virtual seconds."""
        end = self.now + limit
        self.transmit()
        while not until():
            if not self.step(end):
                raise AssertionError(f"condition not met by t={self.now:.3f}")

    def wait(self, seconds: float) -> None:
        """Let time pass, with all that it brings: datagrams that arrive and timers that fire."""
        end = self.now + seconds
        while self.step(end):
            pass
        self.now = end
