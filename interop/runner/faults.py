"""What goes wrong at the receiving end of the link: losses by rate, by list and by time."""

from __future__ import annotations

import random
from typing import Literal, Protocol

from interop.runner.packet import Packet
from interop.runner.scenario import Scenario

Direction = Literal["to_server", "to_client"]
# The interop simulator corrupts one byte somewhere in the first 51 of a UDP payload.
CORRUPTIBLE_BYTES = 51


class Fault(Protocol):
    """Decides over each packet that reaches the end of the link."""

    def loses(self, packet: Packet, direction: Direction, now: float) -> bool:
        """Whether `packet` is lost; `now` is in seconds since the link came up."""
        ...


class NoFault:
    def loses(self, packet: Packet, direction: Direction, now: float) -> bool:
        return False


class RandomLoss:
    """Loses UDP packets by a percentage, never more than a burst in a row."""

    def __init__(self, scenario: Scenario, rng: random.Random) -> None:
        self._rng = rng
        self._rate = {"to_server": scenario.rate_to_server, "to_client": scenario.rate_to_client}
        self._burst = {
            "to_server": scenario.burst_to_server,
            "to_client": scenario.burst_to_client,
        }
        self._run = {"to_server": 0, "to_client": 0}

    def loses(self, packet: Packet, direction: Direction, now: float) -> bool:
        return packet.is_udp and self.selects(direction)

    def selects(self, direction: Direction) -> bool:
        hit = self._rng.randrange(100) < self._rate[direction]
        if hit and self._run[direction] < self._burst[direction]:
            self._run[direction] += 1
            return True
        self._run[direction] = 0
        return False


class Corruption(RandomLoss):
    """Picks packets as RandomLoss does, Version Negotiation excepted.

    The deployed simulator drops the packet it has corrupted; with `deliver_corrupted` it arrives
    with one byte changed and a right UDP checksum, as the simulator's own manual promises.
    """

    def __init__(self, scenario: Scenario, rng: random.Random) -> None:
        super().__init__(scenario, rng)
        self._deliver = scenario.deliver_corrupted

    def loses(self, packet: Packet, direction: Direction, now: float) -> bool:
        if not packet.is_udp or packet.is_version_negotiation or not self.selects(direction):
            return False
        if self._deliver and len(packet.payload):
            offset = self._rng.randrange(min(CORRUPTIBLE_BYTES, len(packet.payload)))
            packet.flip(offset, packet.payload[offset] ^ self._rng.randrange(1, 256))
            return False
        return True


class DropList:
    """Loses UDP packets by their place in the order of arrival, counted from 1 a direction."""

    def __init__(self, scenario: Scenario) -> None:
        self._drops = {
            "to_server": scenario.drops_to_server,
            "to_client": scenario.drops_to_client,
        }
        self._count = {"to_server": 0, "to_client": 0}

    def loses(self, packet: Packet, direction: Direction, now: float) -> bool:
        if not packet.is_udp:
            return False
        self._count[direction] += 1
        return self._count[direction] in self._drops[direction]


class Blackhole:
    """Loses every packet, whatever its protocol, in one window of time."""

    def __init__(self, scenario: Scenario) -> None:
        self._begin = scenario.on
        self._end = scenario.on + scenario.off

    def loses(self, packet: Packet, direction: Direction, now: float) -> bool:
        return self._begin <= now < self._end


def make_fault(scenario: Scenario, rng: random.Random) -> Fault:
    match scenario.name:
        case "drop-rate":
            return RandomLoss(scenario, rng)
        case "corrupt-rate":
            return Corruption(scenario, rng)
        case "droplist":
            return DropList(scenario)
        case "blackhole":
            return Blackhole(scenario)
        case _:
            return NoFault()
