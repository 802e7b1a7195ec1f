"""Consistency checks: contradictions that no connection can produce.

Packet numbers are used once (RFC 9000 section 12.3), ACK ranges ascend, and an endpoint
acknowledges only what it received (section 13.1). A trace that begins late or lost events may lack
acknowledged packets: numbers below the first one seen are never checked, and the others only in a
complete trace.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple

from quicedge.config.tracelimits import QLOG_MAX_NUMBER_RANGES
from quicedge.qlog.event import Direction, Event, frames, integer, mapping, sequence, text
from quicedge.qlog.names import space_of

_NO_NUMBER = {"retry", "version_negotiation", "stateless_reset"}
_HANDSHAKE_SPACES = ("initial", "handshake")


class NumberSet:
    """Packet numbers as ascending ranges; beyond a limit the lowest ones are discarded."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.floor: int | None = None
        """The lowest number that can be checked; None before the first."""

    def add(self, number: int) -> bool:
        """Add a number; False if it was already present."""
        if self.floor is None:
            self.floor = number
        at = bisect_right(self._starts, number) - 1
        if at >= 0 and number <= self._ends[at]:
            return False
        joins_left = at >= 0 and self._ends[at] == number - 1
        joins_right = at + 1 < len(self._starts) and self._starts[at + 1] == number + 1
        if joins_left and joins_right:
            self._ends[at] = self._ends.pop(at + 1)
            del self._starts[at + 1]
        elif joins_left:
            self._ends[at] = number
        elif joins_right:
            self._starts[at + 1] = number
        else:
            self._starts.insert(at + 1, number)
            self._ends.insert(at + 1, number)
            if len(self._starts) > QLOG_MAX_NUMBER_RANGES:
                del self._starts[0], self._ends[0]
                self.floor = self._starts[0]
        return True

    def lacks(self, first: int, last: int) -> int | None:
        """A checkable number from `first` to `last` that is missing; None if there is none."""
        if self.floor is not None:
            first = max(first, self.floor)
        if first > last:
            return None
        at = bisect_right(self._starts, first) - 1
        if at < 0 or self._ends[at] < first:
            return first
        return None if last <= self._ends[at] else self._ends[at] + 1


class Contradiction(NamedTuple):
    """A contradiction in a trace."""

    what: str
    example: str
    needs_all: bool
    """It is only conclusive in a trace without lost events."""


class Consistency:
    """Checks the packets of one connection; call `check` with every event in order."""

    def __init__(self) -> None:
        self._sent: dict[str, NumberSet] = {}
        self._received: dict[str, NumberSet] = {}
        self._whole = False
        """The trace includes the handshake: numbers below the first one were never used."""

    def check(self, event: Event) -> Iterator[Contradiction]:
        """Contradictions of a packet_sent or packet_received event."""
        if event.name not in ("quic:packet_sent", "quic:packet_received"):
            return
        sent = event.name == "quic:packet_sent"
        header = mapping(event.data, "header")
        kind = text(header, "packet_type")
        space = space_of(kind)
        self._whole = self._whole or space in _HANDSHAKE_SPACES
        number = integer(header, "packet_number")
        if number is not None and kind not in _NO_NUMBER:
            numbers = (self._sent if sent else self._received).setdefault(space, NumberSet())
            if self._whole and numbers.floor is None:
                numbers.floor = 0
            if not numbers.add(number):
                what = f"a packet number of the {space} space is {_did(sent)} twice"
                yield Contradiction(what, f"packet {number}", needs_all=False)
        for frame in frames(event.data):
            if frame.get("frame_type") == "ack":
                yield from self._check_ack(frame, space, sent)

    def _check_ack(self, frame: dict[str, Any], space: str, sent: bool) -> Iterator[Contradiction]:
        known = (self._received if sent else self._sent).get(space)
        for item in sequence(frame, "acked_ranges"):
            if not isinstance(item, list) or not item or not all(type(b) is int for b in item[:2]):
                continue
            first, last = item[0], item[min(1, len(item) - 1)]
            if first > last:
                what = "data.frames[](ack).acked_ranges has a reversed range"
                yield Contradiction(what, f"{first} to {last}", needs_all=False)
                continue
            if known is None and not self._whole:
                continue
            missing = first if known is None else known.lacks(first, last)
            if missing is not None:
                what = f"acknowledges a packet of the {space} space that was never {_did(not sent)}"
                yield Contradiction(what, f"packet {missing}", needs_all=True)


def _did(sent: bool) -> Direction:
    return Direction.SENT if sent else Direction.RECEIVED
