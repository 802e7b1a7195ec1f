"""What a verification has found, and how it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from quicedge.migrate.effects import Aspect
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.verify.announcements import Announcements
from quicedge.migrate.verify.differences import Comparison, Difference
from quicedge.migrate.verify.message import Outcome, Sample
from quicedge.migrate.verify.sample_list import Made

_REQUESTS_SHOWN = 5
"""Requests that are named for a difference that more have; their number is told."""


@dataclass
class Finding:
    """A difference, and the requests that have it."""

    difference: Difference
    announced_by: str | None
    samples: list[Sample] = field(default_factory=list)


@dataclass
class Verdict:
    """What a verification has found."""

    findings: list[Finding]
    played: int
    answered: int
    """Requests that the original has answered at all."""
    same: int
    """Requests without any difference, but that plain ones are redirected to https."""
    notes: list[str]
    """What could not be played."""

    @classmethod
    def of(
        cls, made: Made, outcomes: Sequence[tuple[Outcome, Outcome]], comparison: Comparison,
        announcements: Announcements,
        handled_by: Callable[[Sample, Outcome], Iterable[Directive]],
    ) -> Verdict:  # fmt: skip
        """Compare the outcomes of the samples, as far as they were played."""
        findings: dict[tuple[Difference, str | None], Finding] = {}
        answered = same = 0
        for sample, (original, ours) in zip(made.samples, outcomes, strict=False):
            found = comparison.differences(sample, original, ours)
            same += all(one.effect.aspect is Aspect.SCHEME for one in found)
            answered += bool(original.response.status)
            blocks = tuple(handled_by(sample, original))
            for difference in found:
                announced = announcements.of(difference.effect, blocks)
                finding = findings.setdefault(
                    (difference, announced), Finding(difference, announced)
                )
                finding.samples.append(sample)
        notes = list(made.notes)
        if len(outcomes) < len(made.samples):
            left = len(made.samples) - len(outcomes)
            notes.append(f"{left} of {len(made.samples)} requests were not played: time is over")
        return cls(list(findings.values()), len(outcomes), answered, same, notes)

    @property
    def unannounced(self) -> list[Finding]:
        return [one for one in self.findings if one.announced_by is None]

    @property
    def is_proven(self) -> bool:
        """Whether requests were answered and no difference came unannounced."""
        return bool(self.answered) and not self.unannounced

    def render(self) -> str:
        """The verdict as text."""
        announced = [one for one in self.findings if one.announced_by is not None]
        lines: list[str] = []
        if announced:
            lines += ["Announced differences:", *_listed(announced), ""]
        if self.unannounced:
            lines += ["DIFFERENCES THAT THE REPORT DID NOT ANNOUNCE:", *_listed(self.unannounced)]
            lines.append("")
        lines += [f"note: {note}" for note in self.notes]
        if not self.answered:
            lines.append("note: the original has answered no request; nothing is proven")
        lines.append(
            f"{self.played} requests played to both: {self.same} without a difference, "
            f"{len(announced)} announced differences, {len(self.unannounced)} unannounced"
        )
        return "\n".join(lines) + "\n"


def _listed(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        difference = finding.difference
        yield f"  {difference.effect}: {difference.original} -> {difference.ours}"
        if finding.announced_by is not None:
            yield f"      announced: {finding.announced_by}"
        yield from (f"      {sample}" for sample in finding.samples[:_REQUESTS_SHOWN])
        if len(finding.samples) > _REQUESTS_SHOWN:
            yield f"      and {len(finding.samples) - _REQUESTS_SHOWN} more requests"
