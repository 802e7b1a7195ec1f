"""The report of a translation: what became of each directive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from typing import Any

from quicedge.migrate.document import Document
from quicedge.migrate.effects import Effect


class Status(StrEnum):
    """What became of a directive."""

    TRANSLATED = "translated"
    DIFFERENT = "translated with a difference"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one directive."""

    file: str
    line: int
    text: str
    """The directive, without its block."""
    status: Status
    words: str = ""
    """The difference, why it is left out, or what it became."""
    effects: tuple[Effect, ...] = ()
    """Where the difference can be seen, for requests that the block of the directive is for."""
    group: str = ""
    """Lines of one group (the entries of a block of media types) that say the same may be shown as
    one."""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Note:
    """A difference that holds for all requests, whatever was configured."""

    text: str
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class Translation:
    """A configuration that has been translated."""

    document: Document
    toml: str
    report: list[Line]
    """One line per directive, in the order of the files."""
    notes: list[Note] = field(default_factory=list)
    to_supply: list[str] = field(default_factory=list)
    """What the operator must do before the edge can start."""
    source: Any = None
    """What was read, in the form of the source's own reader."""


_MARK = {Status.TRANSLATED: "  ", Status.DIFFERENT: "~ ", Status.LEFT_OUT: "! "}


def render(translation: Translation) -> str:
    """The report as text: one line per directive with its place, then what holds for all."""
    parts = [_rendered(lines) for lines in _shown(translation.report)]
    if translation.to_supply:
        parts += ["", "To do before the edge can start:"]
        parts += [f"  - {text}" for text in translation.to_supply]
    if translation.notes:
        parts += ["", "Differences for all requests:"]
        parts += [f"  - {note.text}" for note in translation.notes]
    return "\n".join([*parts, "", summary(translation), ""])


def summary(translation: Translation) -> str:
    """How many directives became what."""
    counted = Counter(line.status for line in translation.report)
    return (
        f"{len(translation.report)} directives: {counted[Status.TRANSLATED]} translated, "
        f"{counted[Status.DIFFERENT]} with a difference (~), "
        f"{counted[Status.LEFT_OUT]} left out (!)"
    )


def as_dict(translation: Translation) -> dict[str, Any]:
    """The report for programs."""
    lines = [
        {
            "file": line.file,
            "line": line.line,
            "directive": line.text,
            "status": line.status.value,
            "words": line.words,
        }
        for line in translation.report
    ]
    notes = [note.text for note in translation.notes]
    return {"lines": lines, "notes": notes, "to_supply": translation.to_supply}


def _shown(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """The lines, those of one group that say the same joined."""
    for group, found in groupby(lines, lambda line: (line.group, line.status, line.words)):
        together = list(found)
        if group[0] and len(together) > 1:
            yield together
        else:
            yield from ([line] for line in together)


def _rendered(lines: Sequence[Line]) -> str:
    first, last = lines[0], lines[-1]
    place = first.place if first.line == last.line else f"{first.place}-{last.line}"
    text = first.text if len(lines) == 1 else f"{len(lines)} entries of {first.group}"
    return f"{_MARK[first.status]}{place}: {text}  -> {_words(first)}"


def _words(line: Line) -> str:
    """What became of a line; what was translated into something says only into what."""
    if not line.words:
        return line.status.value
    if line.status is Status.TRANSLATED:
        return line.words
    return f"{line.status}: {line.words}"
