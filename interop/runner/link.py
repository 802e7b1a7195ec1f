"""The emulated link, without IO: packets in with the time, packets out when they are due."""

from __future__ import annotations

import random
from collections import deque

from interop.runner.faults import Direction, make_fault
from interop.runner.nat import RebindingNat
from interop.runner.packet import Packet
from interop.runner.scenario import Scenario

# A point-to-point device frames IP in PPP's two bytes and holds one packet beside its queue.
FRAMING_BYTES = 2
DEVICE_QUEUE = 1
# The simulator routes twice: once on each end of its bottleneck.
HOPS = 2


class _Pipe:
    """One direction: a drop-tail queue, serialisation, then delay."""

    def __init__(self, scenario: Scenario) -> None:
        self._bandwidth = scenario.bandwidth
        self._delay = scenario.delay
        self._capacity = scenario.queue + DEVICE_QUEUE
        self._idle_at = 0.0
        self._starts: deque[float] = deque()
        self.arrivals: deque[tuple[float, Packet]] = deque()

    def send(self, packet: Packet, now: float) -> bool:
        """Queue `packet`; False when the queue is full."""
        while self._starts and self._starts[0] <= now:
            self._starts.popleft()
        if len(self._starts) >= self._capacity:
            return False
        start = max(now, self._idle_at)
        self._idle_at = start + (packet.ip_length + FRAMING_BYTES) * 8 / self._bandwidth
        self._starts.append(start)
        self.arrivals.append((self._idle_at + self._delay, packet))
        return True


class Link:
    """Both directions, the scenario's faults and its NAT; times are seconds from link start."""

    def __init__(self, scenario: Scenario) -> None:
        rng = random.Random(scenario.seed)
        self._pipes: dict[Direction, _Pipe] = {
            "to_server": _Pipe(scenario),
            "to_client": _Pipe(scenario),
        }
        self._fault = make_fault(scenario, rng)
        self._nat = (
            RebindingNat(scenario.first_rebind, scenario.rebind_freq, scenario.rebind_addr, rng)
            if scenario.name == "rebind"
            else None
        )

    def send(self, packet: Packet, direction: Direction, now: float) -> bool:
        """Take a packet from an end at `now`; False when it is lost at once."""
        if not packet.hop(HOPS):
            return False
        if direction == "to_client" and self._nat and not self._nat.inbound(packet, now):
            return False
        return self._pipes[direction].send(packet, now)

    def next_arrival(self) -> float | None:
        """When the next packet is due at either end, or None when the link is empty."""
        heads = [pipe.arrivals[0][0] for pipe in self._pipes.values() if pipe.arrivals]
        return min(heads, default=None)

    def due(self, now: float) -> list[tuple[Direction, Packet]]:
        """The packets that have crossed the link by `now` and were not lost on it, in order."""
        ready: list[tuple[float, Direction, Packet]] = []
        for direction, pipe in self._pipes.items():
            while pipe.arrivals and pipe.arrivals[0][0] <= now:
                arrival, packet = pipe.arrivals.popleft()
                if not self._fault.loses(packet, direction, arrival):
                    ready.append((arrival, direction, packet))
        ready.sort(key=lambda item: item[0])
        if self._nat is not None:
            for arrival, direction, packet in ready:
                if direction == "to_server":
                    self._nat.outbound(packet, arrival)
        return [(direction, packet) for _, direction, packet in ready]
