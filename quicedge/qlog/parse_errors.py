"""Where a trace file is broken, for people who must decide what to believe."""

from __future__ import annotations

from dataclasses import dataclass, field

from quicedge.config.tracelimits import QLOG_MAX_PARSE_ERRORS


@dataclass(frozen=True, slots=True)
class ParseError:
    """One place that could not be read."""

    offset: int
    """Bytes from the start of the (uncompressed) file."""
    record: int
    """Records, or events, read before it."""
    reason: str

    def __str__(self) -> str:
        return f"byte {self.offset}, after record {self.record}: {self.reason}"


@dataclass(slots=True)
class ParseErrors:
    """The first places described, and how many there were in all."""

    places: list[ParseError] = field(default_factory=list)
    count: int = 0

    def add(self, offset: int, record: int, reason: str) -> None:
        if self.places and self.places[-1].offset == offset and self.places[-1].record == record:
            return  # one place, met again by whoever goes on from there
        self.count += 1
        if len(self.places) < QLOG_MAX_PARSE_ERRORS:
            self.places.append(ParseError(offset, record, reason))
