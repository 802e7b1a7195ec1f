"""What mirrored requests have shown."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct, field

from quicedge.telemetry.sums import exact


class MirrorResult(StrEnum):
    """How the response to a copy compares with the original one; the first difference counts."""

    SAME = "same"
    STATUS = "status"
    HEADERS = "headers"
    SIZE = "size"
    FAILED = "failed"
    """The copy was not answered, or not in time."""
    ABANDONED = "abandoned"
    """The original one is not complete: its client left, or its origin failed."""
    SKIPPED = "skipped"
    """Not sent: too many at once, or the body is too long."""


class MirrorSummary(Struct, frozen=True):
    """`GET /api/v1/mirrors`, by upstream; None: nothing was compared yet."""

    results: dict[str, int]
    same_share: float | None
    """Share of the compared pairs of responses that are the same."""
    first_byte_seconds: float | None
    """Mean time until the original responses began."""
    mirror_first_byte_seconds: float | None


class MirrorMetrics(Struct):
    """Of one upstream that gets copies. Seconds are those until responses begin."""

    results: dict[str, int] = field(
        default_factory=lambda: {result.value: 0 for result in MirrorResult}
    )
    compared: int = 0
    seconds: float = 0.0
    """Of the original responses that were compared, in total."""
    mirror_seconds: float = 0.0
    """Of their copies."""

    def count(self, result: MirrorResult) -> None:
        """A copy is over."""
        self.results[result.value] += 1

    def timed(self, seconds: float, mirror_seconds: float) -> None:
        """A pair of responses was compared."""
        self.compared += 1
        self.seconds += seconds
        self.mirror_seconds += mirror_seconds

    def summary(self) -> MirrorSummary:
        """The same for people."""
        pairs = self.compared
        return MirrorSummary(
            results=self.results,
            same_share=self.results[MirrorResult.SAME] / pairs if pairs else None,
            first_byte_seconds=self.seconds / pairs if pairs else None,
            mirror_first_byte_seconds=self.mirror_seconds / pairs if pairs else None,
        )

    def add(self, other: MirrorMetrics) -> None:
        """Add those of another worker."""
        for name, count in other.results.items():
            self.results[name] = self.results.get(name, 0) + count
        self.compared += other.compared
        self.seconds += exact(other.seconds)
        self.mirror_seconds += exact(other.mirror_seconds)
