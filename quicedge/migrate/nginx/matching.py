"""Conditions on requests as keys of routes, and where paths can meet them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from quicedge.config.patterns import compile_pattern
from quicedge.migrate.nginx.lookahead import without_lookahead
from quicedge.migrate.nginx.variables import Names, UnsayableError, template

Match = Mapping[str, Any]
"""Keys of a route that must all be met."""

ALWAYS: Match = {}


def conjoin(one: Match, other: Match) -> Match | None:
    """What meets both; None: nothing can. Raises UnsayableError."""
    both = dict(one)
    for key, wanted in other.items():
        if key not in both or both[key] == wanted:
            both[key] = wanted
        elif key in ("methods", "extensions", "protocols"):
            both[key] = [item for item in both[key] if item in wanted]
            if not both[key]:
                return None
        elif key in ("headers", "cookies", "query"):
            merged = _merge_values(both[key], wanted)
            if merged is None:
                return None
            both[key] = merged
        elif key == "path_exact":
            return None
        elif key == "tls" and not set(both[key]) & set(wanted):
            both[key] = {**both[key], **wanted}
        else:
            raise UnsayableError(f"a route has one {key}, and this needs two")
    return _on_exact_path(both)


def _on_exact_path(match: Match) -> Match | None:
    """Without conditions on a path that is known."""
    path = match.get("path_exact")
    if path is None:
        return match
    return decided(match, path)


def decided(match: Match, path: str) -> Match | None:
    """What is left to be met on a known path; None: it does not meet its conditions."""
    rest = dict(match)
    pattern = rest.pop("path_regex", None)
    extensions = rest.pop("extensions", ())
    if pattern is not None and not compile_pattern(pattern).search(path.encode()):
        return None
    if extensions and not path.lower().endswith(tuple("." + name for name in extensions)):
        return None
    return rest


def _merge_values(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str] | None:
    both = dict(one)
    for name, wanted in other.items():
        known = both.get(name, wanted)
        if known == wanted or (wanted == "*" and known != "!"):
            continue
        if known == "*" and wanted != "!":
            both[name] = wanted
        elif "!" in (known, wanted) or not (known.startswith("~") or wanted.startswith("~")):
            return None
        else:
            raise UnsayableError(f"a route has one condition on {name}, and this needs two")
    return both | {name: wanted for name, wanted in other.items() if name not in both}


def pattern_of(text: str, *, ignore_case: bool = False) -> str:
    """A regular expression of nginx (PCRE) as RE2 writes it; raises UnsayableError."""
    converted = re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", text)
    if ignore_case:
        converted = f"(?i){converted}"
    converted = without_lookahead(converted)
    try:
        compile_pattern(converted)
    except ValueError as error:
        raise UnsayableError(f"the regular expression {error}") from None
    return converted


def match_values(pattern: str) -> dict[str, str]:
    """The groups of the path_regex of a route as placeholders, by number and name."""
    compiled = compile_pattern(pattern)
    names = [*map(str, range(compiled.groups + 1)), *map(bytes.decode, compiled.groupindex)]
    return {name: f"{{match.{name}}}" for name in names}


def group_references(pattern: str) -> dict[str, str]:
    """The groups of a regular expression as replacements refer to them, by number and name."""
    compiled = compile_pattern(pattern)
    found = {str(number): f"\\{number}" for number in range(1, min(compiled.groups, 9) + 1)}
    return found | {name.decode(): f"\\g<{name.decode()}>" for name in compiled.groupindex}


def marked_pattern(text: str) -> str:
    """The regular expression of `~PATTERN`, or of `~*PATTERN`, which disregards case; raises
    UnsayableError."""
    pattern = text.removeprefix("~")
    return pattern_of(pattern.removeprefix("*"), ignore_case=pattern.startswith("*"))


def pattern_rule(old: str, new: str, names: Names) -> tuple[str, str]:
    """A marked regular expression and its replacement, as the filters that rewrite responses have
    them; raises UnsayableError."""
    if "\\" in new:
        raise UnsayableError(f"a backslash in {new}")
    pattern = marked_pattern(old)
    return f"~{pattern}", template(new, names.with_values(group_references(pattern)))


def filled(values: Mapping[str, str], pattern: str, path: str) -> dict[str, str]:
    """The same values where the path is known."""
    found = compile_pattern(pattern).search(path.encode())

    def group(match: re.Match[str]) -> str:
        name: int | bytes = int(match[1]) if match[1].isdigit() else match[1].encode()
        return "" if found is None else (found.group(name) or b"").decode()

    return {key: re.sub(r"\{match\.(\w+)\}", group, value) for key, value in values.items()}


_ALL_PATHS = re.compile(r"(?:\(\?i\))?\^?(?:\(?/?(?:\.\*)?\)?|/?\(\.\*\)|\(?/?\.\+\)?)\$?")


def meets_all_paths(pattern: str) -> bool:
    """Whether every path that there can be matches."""
    return pattern != "$" and _ALL_PATHS.fullmatch(pattern) is not None and ".+" not in pattern


_LITERAL = re.compile(r"[A-Za-z0-9/_~!@&=:;,'\" %<>#-]|\\[^A-Za-z0-9]")


def literal_start(pattern: str) -> str:
    """The text that every path begins with that matches; empty: any."""
    if not pattern.startswith("^") or has_alternatives(pattern):
        return ""
    found, at = "", 1
    while (match := _LITERAL.match(pattern, at)) is not None:
        if pattern[match.end() : match.end() + 1] in ("?", "*", "{"):
            break
        found += match[0][-1]
        at = match.end()
    return found


def has_alternatives(pattern: str) -> bool:
    """Whether there is a `|` outside of all groups."""
    depth = 0
    for token in re.findall(r"\\.|\[\^?\]?(?:\\.|[^\]])*\]|[()|]", pattern):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if token == "|" and depth == 0:
            return True
    return False


_EXTENSION = re.compile(r"(?:\.\*)?\\\.(?:\((?:\?:)?([a-z0-9|?]+)\)|([a-z0-9?]+))\$")


def extensions_of(pattern: str) -> list[str] | None:
    r"""The extensions in `\.(png|jpe?g)$`; None: it is something else."""
    found = _EXTENSION.fullmatch(pattern)
    if found is None:
        return None
    names = list(_spelled_out((found[1] or found[2]).split("|")))
    return list(dict.fromkeys(names)) if all(names) else None


def _spelled_out(names: list[str]) -> Iterator[str]:
    """`jpe?g` as `jpeg` and `jpg`."""
    for name in names:
        before, mark, after = name.partition("?")
        if mark:
            yield from _spelled_out([before + after, before[:-1] + after])
        else:
            yield name


@dataclass(frozen=True)
class Place:
    """A path that routes are written for: a whole path, or a prefix of whole segments."""

    path: str
    is_exact: bool = False
    below: tuple[str, ...] = ()
    """Prefixes of other places below it, to which paths there belong."""
    exact_below: frozenset[str] = frozenset()
    """Whole paths that are places of their own."""

    def narrow(self, match: Match) -> Match | None:
        """What is left to be met by requests of this place; None: they never meet it."""
        if self.is_exact:
            wanted = match.get("path_exact", self.path)
            if wanted != self.path:
                return None
            rest = decided(match, self.path)
            return None if rest is None else {k: v for k, v in rest.items() if k != "path_exact"}
        exact = match.get("path_exact")
        if exact is not None and (not self.has(exact) or exact in self.exact_below):
            return None
        start = literal_start(match.get("path_regex", ""))
        if start and not self._may_have(start):
            return None
        return match

    def has(self, path: str) -> bool:
        """Whether a path belongs here, and to no place below."""
        return covers(self.path, path) and not any(covers(other, path) for other in self.below)

    def _may_have(self, start: str) -> bool:
        """Whether a path that begins so may belong here."""
        if self.path.startswith(start):
            return True
        inside = [other if other.endswith("/") else f"{other}/" for other in self.below]
        return covers(self.path, start) and not start.startswith(tuple(inside))


def covers(prefix: str, path: str) -> bool:
    """Whether a path is below a prefix of whole segments."""
    return path.startswith(prefix) and (
        prefix.endswith("/") or len(path) == len(prefix) or path[len(prefix)] == "/"
    )
