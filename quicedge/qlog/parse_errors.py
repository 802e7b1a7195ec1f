"""Parse errors of a trace file, with their location."""

from __future__ import annotations

from dataclasses import dataclass, field

from quicedge.config.tracelimits import QLOG_MAX_PARSE_ERRORS


@dataclass(frozen=True, slots=True)
class ParseError:
    """One location that could not be parsed."""

    offset: int
    """Bytes from the start of the (uncompressed) file."""
    record: int
    """The number of records or events before it."""
    reason: str

    def __str__(self) -> str:
        return f"byte {self.offset}, after record {self.record}: {self.reason}"


@dataclass(slots=True)
class ParseErrors:
    """The first parse errors, and their total number."""

    places: list[ParseError] = field(default_factory=list)
    count: int = 0

    def add(self, offset: int, record: int, reason: str) -> None:
        if self.places and self.places[-1].offset == offset and self.places[-1].record == record:
            return  # the same error, met again on resuming
        self.count += 1
        if len(self.places) < QLOG_MAX_PARSE_ERRORS:
            self.places.append(ParseError(offset, record, reason))
