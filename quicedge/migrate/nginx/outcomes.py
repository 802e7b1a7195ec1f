"""What nginx's rewriting and choice of a location end with, for requests of some kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from quicedge.migrate.nginx.conditions import Asked, Case
from quicedge.migrate.nginx.matching import ALWAYS, Match, Place, conjoin, filled
from quicedge.migrate.nginx.scope import Scope
from quicedge.migrate.nginx.source import Directive


@dataclass(eq=False)
class Location:
    """A `location` block; the outermost one has the server's own directives."""

    directive: Directive
    modifier: str
    pattern: str
    scope: Scope
    inner: list[Location] = field(default_factory=list)

    @property
    def is_regex(self) -> bool:
        return self.modifier in ("~", "~*")

    @property
    def is_prefix(self) -> bool:
        return self.modifier in ("", "^~")

    @property
    def is_server(self) -> bool:
        return self.modifier == "server"


@dataclass(frozen=True)
class State:
    """How far a request has come, and what is known of it."""

    asked: Asked
    place: Place
    scope: Scope
    location: Location
    match: Match = field(default_factory=lambda: ALWAYS)
    """What the requests have met on the way."""
    rewrites: tuple[Mapping[str, Any], ...] = ()
    """Changes of their path, as filters."""
    is_within: bool = False
    """Whether the location is chosen for paths that its prefix covers within a segment."""
    moves: int = 0
    """How often another location has been chosen."""

    @property
    def server(self) -> Sequence[Directive]:
        """The block of the server; nothing if this is not in one."""
        return self.scope.blocks[1] if len(self.scope.blocks) > 1 else ()

    @property
    def entered(self) -> Sequence[Sequence[Directive]]:
        """The block of the location, and those of `if` in it that have been entered."""
        return self.scope.blocks[len(self.location.scope.blocks) - 1 :]

    def meet(self, case: Case) -> State | None:
        """The same after a case; None: no such request comes here. Raises UnsayableError."""
        narrowed = self.place.narrow(case.match)
        if narrowed is None:
            return None
        match = conjoin(self.match, narrowed)
        if match is None:
            return None
        values, pattern = case.values, case.match.get("path_regex")
        if pattern is not None and "path_regex" not in match:
            path = self.place.path if self.place.is_exact else match["path_exact"]
            values = filled(values, pattern, path)
        asked = replace(self.asked, names=self.asked.names.with_values(values))
        return replace(self, match=match, asked=asked)


@dataclass(frozen=True)
class Redirect:
    to: str
    status: int
    state: State
    origin: Directive


@dataclass(frozen=True)
class Respond:
    status: int
    body: str
    state: State
    origin: Directive


@dataclass(frozen=True)
class Content:
    """What the location in effect serves."""

    state: State
    origin: Directive


Outcome = Redirect | Respond | Content


@dataclass(frozen=True)
class Rule:
    """An outcome for all requests that meet the match and none of the rules before."""

    match: Match
    outcome: Outcome
