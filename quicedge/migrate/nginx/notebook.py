"""What became of each directive, written down while it is translated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quicedge.migrate.effects import Effect
from quicedge.migrate.nginx.left_out import UNUSED, reason
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.report import Line, Status

_MOST_WORDS = 4
"""Remarks on one directive that are reported."""

LISTS = frozenset(("types", "map", "geo", "split_clients"))
"""Blocks with entries in place of directives."""


@dataclass(frozen=True, slots=True)
class _Mark:
    status: Status
    words: str
    effects: tuple[Effect, ...] = ()


class Notebook:
    """Remarks on directives; one that is used in several places may have several."""

    def __init__(self) -> None:
        self._marks: dict[Directive, list[_Mark]] = {}
        self._otherwise: dict[Directive, str] = {}
        """What to say of directives that nothing else is said of."""

    def translated(self, directive: Directive | None, words: str = "") -> None:
        if directive is not None:
            self._add(directive, _Mark(Status.TRANSLATED, words))

    def different(self, directive: Directive, words: str, *effects: Effect) -> None:
        self._add(directive, _Mark(Status.DIFFERENT, words, effects))

    def left_out(self, directive: Directive, words: str, *effects: Effect) -> None:
        """With everything in its block that nothing has been written down of."""
        self._add(directive, _Mark(Status.LEFT_OUT, words, effects))
        for inner in directive.body:
            if inner not in self._marks:
                self.left_out(inner, f"belongs to {directive.name} in line {directive.line}")

    def unless_used(self, directive: Directive, words: str) -> None:
        """Translated by these words, if it is not translated for other requests."""
        self._otherwise.setdefault(directive, words)

    def skipped(self, directive: Directive) -> None:
        """As `left_out`, for the usual reason."""
        why = reason(directive.name)
        self.left_out(directive, why.words, *why.effects)

    def __contains__(self, directive: Directive) -> bool:
        return directive in self._marks

    def _add(self, directive: Directive, mark: _Mark) -> None:
        marks = self._marks.setdefault(directive, [])
        if mark not in marks:
            marks.append(mark)

    def lines(self, directives: Sequence[Directive]) -> Iterator[Line]:
        """One line per directive."""
        groups = {
            entry: " ".join([directive.name, *directive.args])
            for directive in directives
            if directive.name in LISTS
            for entry in directive.body
        }
        for directive in directives:
            group = groups.get(directive, "")
            mark = self._outcome(directive, is_entry=bool(group))
            yield Line(
                directive.file, directive.line, directive.text, mark.status, mark.words,
                mark.effects, group,
            )  # fmt: skip

    def _outcome(self, directive: Directive, *, is_entry: bool) -> _Mark:
        """All that has been written down of a directive, as one."""
        marks = self._marks.get(directive)
        if marks is None and directive in self._otherwise:
            return _Mark(Status.TRANSLATED, self._otherwise[directive])
        if marks is None:
            why = UNUSED if is_entry else reason(directive.name)
            return _Mark(Status.LEFT_OUT, *why)
        found = {mark.status for mark in marks}
        # Somewhere it is translated, and somewhere not, or not as it was.
        status = found.pop() if len(found) == 1 else Status.DIFFERENT
        if status is not Status.TRANSLATED:
            marks = [mark for mark in marks if mark.status is not Status.TRANSLATED] or marks
        words = list(dict.fromkeys(mark.words for mark in marks if mark.words))
        more = [f"and {len(words) - _MOST_WORDS} more"] if len(words) > _MOST_WORDS else []
        effects = dict.fromkeys(effect for mark in marks for effect in mark.effects)
        return _Mark(status, "; ".join([*words[:_MOST_WORDS], *more]), tuple(effects))
