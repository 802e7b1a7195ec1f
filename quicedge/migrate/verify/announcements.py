"""Which line of the report has announced a difference.

A line announces differences of the requests that its block handles: one in a location those of the
location, one in a server all of the server's, any other all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from quicedge.migrate.effects import Aspect, Effect, Side
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.report import Line, Note

_BLOCKS = frozenset(("server", "location"))

_ASKED = frozenset((Effect(Side.ORIGIN, Aspect.HOST), Effect(Side.ORIGIN, Aspect.TARGET)))
_TOLD = frozenset(
    Effect(Side.CLIENT, Aspect.HEADER, name) for name in ("location", "refresh", "set-cookie")
)
"""What origins tell clients of the host and target that they were asked for."""

Scope = Directive | None
"""The server or location that a line is about; None: everything."""


@dataclass(frozen=True)
class Announcement:
    """A line or a note of the report that announces differences."""

    text: str
    effects: tuple[Effect, ...]
    scopes: frozenset[int] | None
    """Identities of blocks; None: everything."""

    def covers(self, effect: Effect, contexts: frozenset[int]) -> bool:
        is_meant = self.scopes is None or not self.scopes.isdisjoint(contexts)
        return is_meant and any(
            own.covers(effect) or (own in _ASKED and effect in _TOLD) for own in self.effects
        )

    def names(self, effect: Effect) -> bool:
        """Whether it announces this one and not any of its kind."""
        return any(own.name and own.covers(effect) for own in self.effects)


class Announcements:
    """All that a report announces."""

    def __init__(
        self, lines: Iterable[Line], notes: Iterable[Note], top: Sequence[Directive] = ()
    ) -> None:
        """`top`: the directives that lines are about, where they have places of their own."""
        scopes: dict[tuple[str, int, str], list[Scope]] = defaultdict(list)
        for directive, scope in _with_scopes(top, None):
            scopes[directive.file, directive.line, directive.text].append(scope)
        self._all = [
            Announcement(
                f"{line.place} {line.text}", line.effects,
                _identities(scopes.get((line.file, line.line, line.text), [None])),
            )
            for line in lines if line.effects
        ]  # fmt: skip
        self._all += [Announcement(note.text, note.effects, None) for note in notes if note.effects]
        # The nearest line explains most.
        self._all.sort(key=lambda one: one.scopes is None)

    def of(self, effect: Effect, handled_by: Iterable[Directive]) -> str | None:
        """What has announced a difference in a request that these blocks handled."""
        contexts = frozenset(id(block) for block in handled_by)
        found = [one for one in self._all if one.covers(effect, contexts)]
        # The one that says most exactly what is different.
        named = next((one for one in found if one.names(effect)), None)
        best = named or next(iter(found), None)
        return None if best is None else best.text


def _identities(scopes: Sequence[Scope]) -> frozenset[int] | None:
    if any(scope is None for scope in scopes):
        return None
    return frozenset(id(scope) for scope in scopes)


def _with_scopes(
    directives: Iterable[Directive], scope: Scope
) -> Iterator[tuple[Directive, Scope]]:
    """All directives, each with the server or location that it is in or that it is."""
    for directive in directives:
        is_block = directive.name in _BLOCKS and directive.block is not None
        inner = directive if is_block else scope
        yield directive, inner
        yield from _with_scopes(directive.body, inner)
