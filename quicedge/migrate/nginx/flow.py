"""nginx's rewrite directives (`return`, `rewrite`, `set`, `if`, `break`), run for all requests of a
place at once: each way that they can take becomes a rule with its conditions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from quicedge.config.filter_validation import template_problem
from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.conditions import Case, cases_of, decide
from quicedge.migrate.nginx.matching import (
    ALWAYS,
    has_alternatives,
    match_values,
    meets_all_paths,
    pattern_of,
)
from quicedge.migrate.nginx.outcomes import Redirect, Respond, Rule, State
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.variables import (
    PART,
    Names,
    UnsayableError,
    template,
    variables,
)
from quicedge.migrate.nginx.world import World

End = Callable[[State], list[Rule]]
"""What follows when the directives are through."""

REDIRECTS = (301, 302, 303, 307, 308)
_MOST_RULES = 20_000
"""Rules of one place, which grow with every `if` that does not answer."""


class Finder(Protocol):
    """Chooses another location for a path that has been rewritten."""

    def find_again(self, state: State, path: str, where: Directive) -> list[Rule]: ...


class Flow:
    """Runs rewrite directives."""

    def __init__(self, world: World, finder: Finder) -> None:
        self._world = world
        self._note = world.notebook
        self._finder = finder

    def run(self, directives: Sequence[Directive], state: State, end: End) -> list[Rule]:
        """The rules for requests in a state."""
        for index, directive in enumerate(directives):
            rest = directives[index + 1 :]
            name = directive.name
            if name == "return":
                return self._return(directive, state)
            if name == "break":
                self._note.translated(directive)
                return end(state)
            if name == "if":
                return self._if(directive, rest, state, end)
            if name == "rewrite":
                return self._rewrite(directive, rest, state, end)
            if name == "set":
                state = self._set(directive, state)
        return end(state)

    def with_tables(
        self, texts: Sequence[str], state: State, then: Callable[[State], list[Rule]]
    ) -> list[Rule]:
        """Rules for each value that the maps have whose variables occur in texts.

        What cannot be said remains a variable without a placeholder.
        """
        for variable in dict.fromkeys(name for text in texts for name in variables(text)):
            table = self._world.tables.get(variable)
            if table is None or table.is_upgrade or variable in state.asked.names.values:
                continue
            if table.directive.name == "split_clients" or table.is_of_response:
                continue
            try:
                cases = cases_of(table, state.asked)
                found = self._cases(cases, state, lambda s, _: self.with_tables(texts, s, then))
            except UnsayableError as error:
                self._note.left_out(table.directive, str(error))
                continue
            self._note.translated(table.directive)
            return found
        return then(state)

    def _cases(
        self, cases: Sequence[Case], state: State, then: Callable[[State, Case], list[Rule]]
    ) -> list[Rule]:
        """The rules of each case in turn."""
        found: list[Rule] = []
        for case in cases:
            met = state.meet(case)
            for entry in case.entries:
                self._note.translated(entry)
            if met is None:
                continue
            found += then(met, case)
            if len(found) > _MOST_RULES:
                raise UnsayableError("more ways than can be written down")
            if met.match == state.match:
                break
        return found

    # --- directives -------------------------------------------------------------------------------

    def _if(
        self, directive: Directive, rest: Sequence[Directive], state: State, end: End
    ) -> list[Rule]:
        def take(met: State, case: Case) -> list[Rule]:
            if not case.truth:
                return self.run(rest, met, end)
            entered = (
                met
                if state.location.is_server
                else replace(met, scope=met.scope.inside(directive.body))
            )
            return self.run([*directive.body, *rest], entered, end)

        try:
            cases = decide(directive.args, state.asked)
            found = self._cases(cases, state, take)
        except UnsayableError as error:
            effects = (*visible.ANSWER, visible.BODY, visible.TARGET)
            self._note.left_out(directive, str(error), *effects)
            self._world.warn_of_lost_protection(directive)
            return self.run(rest, state, end)
        for case in cases:
            if case.entries:
                self._mark_table(case)
        if any(case.truth for case in cases):
            self._note.translated(directive)
        else:
            self._never(directive)
        return found

    def _mark_table(self, case: Case) -> None:
        for variable in case.values:
            if (table := self._world.tables.get(variable)) is not None:
                self._note.translated(table.directive)

    def _never(self, directive: Directive) -> None:
        """A condition that no request meets."""
        words = "never met here"
        if set(variables(" ".join(directive.args))) & {"scheme", "https", "server_port"}:
            words = "never met: all requests come over TLS, and plain HTTP is redirected"
        self._note.unless_used(directive, words)
        for inner in directive.body:
            self._note.unless_used(inner, words)

    def _set(self, directive: Directive, state: State) -> State:
        if len(directive.args) != 2:
            return state
        variable = directive.args[0].lstrip("$")
        try:
            value = template(directive.args[1], state.asked.names)
        except UnsayableError as error:
            self._note.left_out(directive, str(error))
            return state
        self._note.translated(directive)
        names = state.asked.names.with_values({variable: value})
        return replace(state, asked=replace(state.asked, names=names))

    def _return(self, directive: Directive, state: State) -> list[Rule]:
        return self.with_tables(directive.args, state, lambda met: self._answer(directive, met))

    def _answer(self, directive: Directive, state: State) -> list[Rule]:
        args = directive.args
        status = int(args[0]) if args[0].isdigit() else 302
        text = args[-1] if len(args) > 1 or not args[0].isdigit() else ""
        try:
            if status in REDIRECTS:
                return self._redirect(directive, text, status, state)
            body = template(text, state.asked.names)
        except UnsayableError as error:
            self._note.left_out(directive, f"{error}; answered 501", visible.status("", 501))
            return [Rule(state.match, Respond(501, "", state, directive))]
        if status == 444:
            self._note.different(
                directive, "answered 403, the connection stays open", visible.status("", 403)
            )
            status = 403
        elif not 200 <= status <= 599:
            words = f"{status} is not the status of a response; answered 500"
            self._note.different(directive, words, visible.status("", 500))
            status = 500
        elif status >= 300 and not text:
            self._note.different(
                directive, "with quicedge's text in place of nginx's page", visible.BODY
            )
        else:
            self._note.translated(directive)
        return [Rule(state.match, Respond(status, body, state, directive))]

    def _redirect(self, directive: Directive, text: str, status: int, state: State) -> list[Rule]:
        to = target(text, state.asked.names)
        self._note.translated(directive)
        return [Rule(state.match, Redirect(to, status, state, directive))]

    def _rewrite(
        self, directive: Directive, rest: Sequence[Directive], state: State, end: End
    ) -> list[Rule]:
        regex, replacement = directive.args[:2]
        flag = directive.args[2] if len(directive.args) > 2 else ""
        try:
            pattern = pattern_of(regex)
            if re.match(r"https?://|\$scheme\b|\$\{scheme\}", replacement) or flag in (
                "redirect",
                "permanent",
            ):
                status = 301 if flag == "permanent" else 302
                return self._redirecting(directive, pattern, replacement, status, rest, state, end)
            return self._moving(directive, pattern, replacement, flag, rest, state, end)
        except UnsayableError as error:
            self._note.left_out(directive, str(error), *visible.ANSWER, visible.TARGET)
            return self.run(rest, state, end)

    def _moved(self, directive: Directive, replacement: str) -> None:
        path, _, query = replacement.partition("?")
        if _takes_groups(query):
            self._note.different(directive, _ENCODED, visible.TARGET)
        elif _takes_groups(path):
            self._note.different(directive, _ENCODED, visible.ENCODING)
        else:
            self._note.translated(directive)

    def _redirecting(
        self, directive: Directive, pattern: str, replacement: str, status: int,
        rest: Sequence[Directive], state: State, end: End,
    ) -> list[Rule]:  # fmt: skip
        def answer(met: State, case: Case) -> list[Rule]:
            names = met.asked.names
            to = target(_with_query(replacement), names)
            return [Rule(met.match, Redirect(to, status, met, directive))]

        case = _path_case(pattern, replacement)
        found = self._cases([case], state, answer)
        if _takes_groups(replacement):
            effects = visible.client("location")
            self._note.different(directive, _ENCODED, *effects)
        else:
            self._note.translated(directive)
        if found and found[-1].match == state.match:
            return found
        return found + self.run(rest, state, end)

    def _moving(
        self, directive: Directive, pattern: str, replacement: str, flag: str,
        rest: Sequence[Directive], state: State, end: End,
    ) -> list[Rule]:  # fmt: skip
        """A rewrite of the path, after which a location may be chosen anew."""
        by_pattern = _pattern_rewrite(pattern, replacement)
        goes_on = flag in ("", "break") and not (state.location.is_server and flag == "")
        if goes_on and by_pattern is not None and not (flag == "break" and _are_left(rest)):
            moved = replace(state, rewrites=(*state.rewrites, by_pattern))
            self._moved(directive, replacement)
            return self.run(rest, moved, end)

        def move(met: State, case: Case) -> list[Rule]:
            names = met.asked.names
            path, mark, query = replacement.partition("?")
            if by_pattern is not None:
                filters = by_pattern
            else:
                text = template(path, names) + (f"?{template(query, names)}" if query else "")
                filters = {"path": text} | ({"query": "drop"} if mark and not query else {})
                if problem := template_problem(text):
                    raise UnsayableError(problem)
                if not text.startswith(("/", "{path}", "{uri}")):
                    raise UnsayableError(f"{replacement} does not begin with a slash")
            moved = replace(met, rewrites=(*met.rewrites, filters))
            if flag == "break":
                return end(moved)
            if flag == "":
                return self.run(rest, moved, end)
            return self._finder.find_again(moved, path, directive)

        case = _path_case(pattern, replacement)
        found = self._cases([case], state, move)
        self._moved(directive, replacement)
        if any(rule.match == state.match for rule in found):
            return found
        return found + self.run(rest, state, end)


_ENCODED = "what groups hold is encoded as clients have sent it"


def _takes_groups(replacement: str) -> bool:
    return (
        re.search(r"\$\{?(?!args|query_string|request_uri|is_args|host|scheme)\w", replacement)
        is not None
    )


def _are_left(rest: Sequence[Directive]) -> bool:
    """Whether rewrite directives follow, which `break` must skip."""
    return any(item.name in ("rewrite", "return", "if", "set") for item in rest)


def _path_case(pattern: str, replacement: str) -> Case:
    """The case of a rewrite: its pattern, unless all paths match and no group is needed."""
    numbers = {name for name in variables(replacement) if name.isdigit()}
    if meets_all_paths(pattern):
        whole = re.fullmatch(r"\^?\(/?\.\*\)\$?", pattern)
        if not numbers:
            return Case(ALWAYS)
        if whole and "/" not in pattern and numbers == {"1"}:
            return Case(ALWAYS, True, {"1": "{path}"})
    return Case({"path_regex": pattern}, True, match_values(pattern))


def _with_query(replacement: str) -> str:
    """A replacement with the query that nginx adds."""
    if replacement.endswith("?"):
        return replacement[:-1]
    if re.search(r"\$\{?(?:request_uri|args|query_string|is_args)\b", replacement):
        return replacement
    return replacement + ("\0&" if "?" in replacement else "\0?")


def target(text: str, names: Names) -> str:
    """The template of a redirect's target; raises UnsayableError."""
    text = re.sub(r"^\$(?:scheme|\{scheme\})://", "https://", text)
    found = template(text, names).replace("\0?", "{?query}").replace("\0&", "{&query}")
    found = found.replace("{path}{?query}", "{uri}").replace(" ", "%20")
    if problem := template_problem(found):
        raise UnsayableError(problem)
    if not re.match(r"/|\{uri\}|\{path\}|[a-z][a-z0-9+.-]*://", found) or found.startswith("//"):
        raise UnsayableError(f"{text} is neither a path nor a URL")
    if not re.fullmatch(r"[!-~]+", found):
        raise UnsayableError(f"{text} has characters that are none of a URL")
    return found


_GROUP = re.compile(r"\$(?:\{(\d)\}|(\d))")


def _pattern_rewrite(pattern: str, replacement: str) -> dict[str, Any] | None:
    """A rewrite as a filter that replaces what a pattern matches; None: it needs more."""
    if "?" in replacement or not re.match(r"/|\$1|\$\{1\}", replacement):
        return None
    without = _GROUP.sub("", replacement)
    if PART.search(without) or "$" in without or "\\" in replacement:
        return None
    flags = re.match(r"\(\?i\)", pattern)
    start = flags[0] if flags else ""
    body = pattern[len(start) :]
    if has_alternatives(body):
        body = f"(?:{body})"
    if not body.startswith("^"):
        body = f"^.*?{body}"
    if not re.search(r"(?<!\\)\$$|\.\*\)?$", body):
        body += ".*$"
    text = _GROUP.sub(lambda m: f"\\{m[1] or m[2]}", replacement)
    pattern_of(start + body)
    return {"pattern": start + body, "replacement": text}
