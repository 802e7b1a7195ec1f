"""Where a trace file is broken, for people who must decide what to believe."""

from __future__ import annotations

from dataclasses import dataclass, field

from quicedge.config.tracelimits import QLOG_MAX_BREAKS


@dataclass(frozen=True, slots=True)
class Break:
    """One place that could not be read."""

    offset: int
    """Bytes from the start of the (uncompressed) file."""
    record: int
    """Records, or events, read before it."""
    reason: str

    def __str__(self) -> str:
        return f"byte {self.offset}, after record {self.record}: {self.reason}"


@dataclass(slots=True)
class Breaks:
    """The first places described, and how many there were in all."""

    places: list[Break] = field(default_factory=list)
    count: int = 0

    def add(self, offset: int, record: int, reason: str) -> None:
        if self.places and self.places[-1].offset == offset and self.places[-1].record == record:
            return  # one place, met again by whoever goes on from there
        self.count += 1
        if len(self.places) < QLOG_MAX_BREAKS:
            self.places.append(Break(offset, record, reason))
