"""Locations, and nginx's order of choice among them, in the order of quicedge's routes.

nginx takes an exact location; else it remembers the longest prefix, and if that is not `^~` takes
the first regular expression that matches, and else the prefix. quicedge takes the route of the
longest prefix, and of those with the same prefix the first whose conditions are met. So the regular
expressions are written for each prefix below which they can match, before its own route.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from quicedge.config.patterns import compile_pattern
from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.conditions import Asked, Case
from quicedge.migrate.nginx.content import is_unsayable
from quicedge.migrate.nginx.flow import Flow
from quicedge.migrate.nginx.matching import (
    Place,
    covers,
    extensions_of,
    match_values,
    pattern_of,
)
from quicedge.migrate.nginx.outcomes import Content, Location, Redirect, Respond, Rule, State
from quicedge.migrate.nginx.scope import Scope
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.variables import UnsayableError
from quicedge.migrate.nginx.world import World

_MOST_MOVES = 10
"""As nginx's own limit of internal redirects."""

_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()+,;=:@/-]|%[0-9A-Fa-f]{2})*")


def location_of(directive: Directive, scope: Scope) -> Location:
    """A location and those in it."""
    modifier, pattern = parts_of(directive.args)
    location = Location(directive, modifier, pattern, scope.inside(directive.body))
    location.inner = [
        location_of(inner, location.scope) for inner in directive.body if inner.name == "location"
    ]
    return location


def parts_of(args: Sequence[str]) -> tuple[str, str]:
    """The modifier of a location and what it matches: `("~*", "\\.png$")`; `@` of a named one."""
    if len(args) >= 2:
        return args[0], args[1]
    text = args[0] if args else ""
    for modifier in ("=", "^~", "~*", "~", "@"):
        if text.startswith(modifier):
            return modifier, text.removeprefix(modifier)
    return "", text


@dataclass(frozen=True)
class Choice:
    """The locations of a place, in nginx's order: regular expressions, longer prefixes that are no
    whole segments, and the one that is left."""

    place: Place
    regexes: tuple[Location, ...]
    partial: tuple[Location, ...]
    final: Location
    adds_slash: bool = False
    """nginx redirects to a prefix that it passes on, if the slash at its end is missing."""


class Locations:
    """The locations of one server."""

    def __init__(self, world: World, server: Location) -> None:
        self._world = world
        self._note = world.notebook
        self._server = server
        self._flow = Flow(world, self)
        self._named = {
            location.pattern: location for location in server.inner if location.modifier == "@"
        }
        self._prefixes: dict[str, tuple[Location, tuple[Location, ...]]] = {}
        self._exact: dict[str, Location] = {}
        self._collect(server, ())
        self._prefixes.setdefault("/", (server, self._regexes(server)))
        self._choices = list(self._make_choices())

    # --- order ------------------------------------------------------------------------------------

    def _regexes(self, location: Location) -> tuple[Location, ...]:
        return tuple(inner for inner in location.inner if inner.is_regex)

    def _collect(self, around: Location, outer: tuple[Location, ...]) -> None:
        """Note the prefixes and whole paths in a location, with the regular expressions that
        precede them."""
        regexes = (*self._regexes(around), *outer)
        for location in around.inner:
            if location.modifier == "@":
                self._note.translated(location.directive)
                continue
            if location.is_regex:
                self._check_regex(location)
                continue
            if not _PATH.fullmatch(location.pattern):
                words = f"{location.pattern} is no path of a URL"
                self._note.left_out(location.directive, words, *visible.ELSEWHERE)
                continue
            if location.modifier == "=":
                self._exact.setdefault(location.pattern, location)
                continue
            following = () if location.modifier == "^~" else regexes
            own = self._regexes(location)
            self._prefixes.setdefault(location.pattern, (location, (*own, *following)))
            self._collect(location, following)

    def _check_regex(self, location: Location) -> None:
        """Report what is in a location that is chosen by a regular expression."""
        for inner in location.inner:
            if not inner.is_regex or extensions_of(inner.pattern) is None:
                words = "a location in one with a regular expression, which a route cannot say"
                self._note.left_out(inner.directive, words, *visible.ELSEWHERE)
                self._world.warn_of_lost_protection(inner.directive)

    def _make_choices(self) -> Iterator[Choice]:
        paths = sorted(self._prefixes, key=lambda path: (-path.count("/"), -len(path)))
        for path, location in self._exact.items():
            yield Choice(Place(path, is_exact=True), (), (), location)
        for path, (prefix, _) in self._prefixes.items():
            short = path.removesuffix("/")
            passes = any(d.name.endswith("_pass") for d in prefix.scope.own)
            if passes and short not in ("", path, *self._exact, *self._prefixes):
                yield Choice(Place(short, is_exact=True), (), (), prefix, adds_slash=True)
        for path in [*[path for path in self._prefixes if path != "/"], "/"]:
            final, regexes = self._prefixes[path]
            below = tuple(other for other in paths if other != path and covers(path, other))
            place = Place(path, below=below, exact_below=frozenset(self._exact))
            partial = tuple(
                self._prefixes[other][0]
                for other in sorted(below, key=len, reverse=True)
                if not other.endswith("/") and self._above(other) == path
            )
            yield Choice(place, regexes, partial, final)

    def _above(self, path: str) -> str:
        """The longest other prefix that covers a path, by whole segments."""
        around = [other for other in self._prefixes if other != path and covers(other, path)]
        return max(around, key=len, default="")

    # --- rules ------------------------------------------------------------------------------------

    def rules(self, asked: Asked) -> Iterator[tuple[Place, list[Rule]]]:
        """The rules of each place for a host, in the order of the routes."""
        for choice in self._choices:
            state = State(asked, choice.place, self._server.scope, self._server)
            end = partial(self._choose, choice)
            yield choice.place, self._flow.run(self._server.scope.own, state, end)

    def _choose(self, choice: Choice, state: State) -> list[Rule]:
        found: list[Rule] = []
        for location in choice.partial:
            if location.modifier == "^~":
                found += self._within(location, state)
        for location in choice.regexes:
            more = self._of_regex(location, state)
            found += more
            if more and more[-1].match == state.match:
                return found
        for location in choice.partial:
            if location.modifier != "^~":
                found += self._within(location, state)
        if not choice.final.is_server:
            self._note.translated(choice.final.directive)
        if choice.adds_slash:
            to = f"{choice.final.pattern}{{?query}}"
            chosen = replace(state, location=choice.final, scope=choice.final.scope)
            return [Rule(state.match, Redirect(to, 301, chosen, choice.final.directive))]
        return found + self._enter(choice.final, state)

    def _within(self, location: Location, state: State) -> list[Rule]:
        """The rules for paths that a prefix covers within a segment, as nginx has it: `/api` covers
        `/apis`."""
        case = Case({"path_regex": f"^{re.escape(location.pattern)}"})
        inside = replace(state, is_within=True)
        return self._inner(location, case, inside) + self._met(location, case, inside)

    def _inner(self, location: Location, case: Case, state: State) -> list[Rule]:
        """The rules of locations for extensions in a location."""
        found: list[Rule] = []
        for inner in location.inner:
            endings = extensions_of(inner.pattern) if inner.is_regex else None
            if endings is not None:
                self._note.translated(inner.directive)
                both = Case({**case.match, "extensions": endings}, True, case.values)
                found += self._met(inner, both, state)
        return found

    def _of_regex(self, location: Location, state: State) -> list[Rule]:
        names = extensions_of(location.pattern) if location.modifier == "~*" else None
        try:
            if names is not None:
                case = Case({"extensions": names})
            else:
                pattern = pattern_of(location.pattern, ignore_case=location.modifier == "~*")
                case = Case({"path_regex": pattern}, True, match_values(pattern))
            met = state.meet(case)
        except UnsayableError as error:
            self._note.left_out(location.directive, str(error), *visible.ELSEWHERE)
            self._world.warn_of_lost_protection(location.directive)
            return []
        self._note.translated(location.directive)
        if met is None:
            return []
        return self._inner(location, Case({}), met) + self._enter(location, met)

    def _met(self, location: Location, case: Case, state: State) -> list[Rule]:
        try:
            met = state.meet(case)
        except UnsayableError as error:
            self._note.left_out(location.directive, str(error), *visible.ELSEWHERE)
            return []
        return [] if met is None else self._enter(location, met)

    def _enter(self, location: Location, state: State) -> list[Rule]:
        """The rules of a location that has been chosen."""
        entered = replace(state, location=location, scope=location.scope)
        if location.is_server:
            return self._content(entered)
        internal = next((d for d in location.scope.own if d.name == "internal"), None)
        if internal is not None and not state.moves:
            self._note.translated(internal, "answered 404")
            return [Rule(state.match, Respond(404, "", entered, internal))]
        return self._flow.run(location.scope.own, entered, self._content)

    def _content(self, state: State) -> list[Rule]:
        """What a location serves, for each value of the maps that it depends on."""
        scope = state.scope
        used = [
            *(d for d in scope.own if d.name in ("proxy_pass", "grpc_pass", "root", "alias")),
            *scope.all("proxy_set_header"),
            *scope.all("add_header"),
        ]
        texts = [text for directive in used for text in directive.args]
        origin = state.location.directive
        return self._flow.with_tables(
            texts, state, lambda met: self._tried(Rule(met.match, Content(met, origin)))
        )

    def _tried(self, rule: Rule) -> list[Rule]:
        """A rule after `try_files`, if that leads elsewhere."""
        assert isinstance(rule.outcome, Content)
        state = rule.outcome.state
        tried = next((d for d in state.scope.own if d.name == "try_files"), None)
        if tried is None or not tried.args:
            return [rule]
        last = tried.args[-1]
        if last.startswith("@"):
            location = self._named.get(last.removeprefix("@"))
            if location is None or state.moves >= _MOST_MOVES:
                return [rule]
            found = self._enter(location, replace(state, moves=state.moves + 1))
            return self._unless_files(tried, rule, found)
        if last.startswith("/") and not last.startswith("="):
            return self._fallback(tried, rule, last)
        return [rule]

    def _fallback(self, tried: Directive, rule: Rule, last: str) -> list[Rule]:
        """A path that counts when no file is there."""
        state = rule.outcome.state
        path = last.partition("?")[0]
        location = self._locate(path)
        if _serves_files(location) or "$" in path:
            # A page: the site serves it itself.
            if location is not state.location:
                self._announce_fields(tried, location, state.scope)
            return [rule]
        moved = replace(
            state,
            moves=state.moves + 1,
            rewrites=({"path": path},),
        )
        return self._unless_files(tried, rule, self.find_again(moved, path, tried))

    def _announce_fields(self, tried: Directive, location: Location, tried_scope: Scope) -> None:
        """Fields that nginx adds because the fallback is in a location of its own."""
        names = [
            "cache-control" if d.name == "expires" else d.args[0]
            for d in location.scope.own
            if d.name in ("add_header", "expires")
        ]
        if any(d.name == "add_header" for d in location.scope.own):
            names += [d.args[0] for d in tried_scope.all("add_header")]
        if names:
            words = f"the fallback gets the fields of this location, not those of {tried.args[-1]}"
            self._note.different(tried, words, *visible.client(*names))

    def _unless_files(self, tried: Directive, rule: Rule, found: list[Rule]) -> list[Rule]:
        """What `try_files` leads to where quicedge does not look for files first."""
        if not found or any(is_unsayable(other.outcome) for other in found):
            return [rule]
        words = "files are not looked for first: give those that exist a route of their own"
        tests = [arg for arg in tried.args[:-1] if arg != "$uri/"]
        if tests:
            fields = visible.client("content-type", "etag", "last-modified", "accept-ranges")
            self._note.different(tried, words, *visible.ANSWER, visible.BODY, *fields)
        else:
            self._note.translated(tried)
        return found

    # --- internal redirects -----------------------------------------------------------------------

    def _locate(self, path: str) -> Location:
        """The location that nginx chooses for a path."""
        if path in self._exact:
            return self._exact[path]
        final, regexes = self._prefix_of(path)
        for location in regexes:
            try:
                pattern = pattern_of(location.pattern, ignore_case=location.modifier == "~*")
            except UnsayableError:
                continue
            if compile_pattern(pattern).search(path.encode()):
                return location
        return final

    def find_again(self, state: State, path: str, where: Directive) -> list[Rule]:
        """The rules for requests whose path has been rewritten; `path` may have variables."""
        if state.moves >= _MOST_MOVES:
            raise UnsayableError("leads from location to location without an end")
        fixed, mark, _ = path.partition("$")
        if not fixed.startswith("/"):
            raise UnsayableError(f"which location {path} belongs to depends on the request")
        location = self._locate(fixed) if not mark else self._locate_start(fixed, where)
        return self._enter(location, replace(state, moves=state.moves + 1))

    def _locate_start(self, start: str, where: Directive) -> Location:
        """The location of paths that begin so."""
        final, regexes = self._prefix_of(start)
        if regexes or any(other.startswith(start) for other in self._prefixes if other != start):
            words = f"requests go to the location of {start}, whatever follows"
            self._note.different(where, words, *visible.ANSWER)
        return final

    def _prefix_of(self, path: str) -> tuple[Location, tuple[Location, ...]]:
        """The location of the longest prefix of a path, and the regular expressions before it."""
        around = [prefix for prefix in self._prefixes if path.startswith(prefix)]
        return self._prefixes[max(around, key=len)]


def _serves_files(location: Location) -> bool:
    return not any(
        directive.name.endswith("_pass") or directive.name == "return"
        for directive in location.scope.own
    )
