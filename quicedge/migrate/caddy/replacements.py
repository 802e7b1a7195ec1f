"""Replacements in header fields of responses (`header_down FIELD SEARCH REPLACE`).

Caddy replaces every match of a regular expression in a value. What people use it for can be said:
where redirects of the origin lead, and the domain, path and flags of its cookies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quicedge.config.filter_validation import cookie_flags_problem, cookie_problem, location_problem
from quicedge.config.filters import CookieFlag
from quicedge.config.patterns import compile_pattern
from quicedge.migrate.caddy.conditions import UnsayableError
from quicedge.migrate.caddy.placeholders import template

_URLS = ("location", "content-location")
_GROUP = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_ALL = frozenset(("(.*)", "(.+)", "^(.*)$", "^(.+)$", "^(.*)", "^(.+)", "(.*)$", "(.+)$"))
"""Patterns that match a whole value, with all of it as their group."""
_ATTRIBUTE = re.compile(r"(\(\?i\))?;?\s*(domain|path)=([^;]+?)(;?)", re.IGNORECASE)

Rules = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Replaced:
    """What the replacements in a field become."""

    field: str
    filter: dict[str, Any] | None
    """None: they cannot be said."""
    words: str
    """In what they differ, or why they cannot be said."""

    @property
    def name(self) -> str:
        return self.field.lower()


def replacements(fields: Mapping[str, Rules]) -> Iterator[Replaced]:
    """What the replacements in each field become."""
    for field, rules in fields.items():
        name = field.lower()
        try:
            if name in _URLS:
                yield Replaced(field, *_location(name, rules))
            elif name == "set-cookie":
                yield Replaced(field, *_cookies(rules))
            else:
                yield Replaced(field, None, "replacing a part of a value")
        except UnsayableError as error:
            yield Replaced(field, None, str(error))


def _location(name: str, rules: Rules) -> tuple[dict[str, Any], str]:
    table: dict[str, str] = {}
    words = ""
    for rule in rules:
        search, new = _search(rule), _replace(rule)
        old, new = _of_all(search, new)
        if problem := location_problem(old, new):
            raise UnsayableError(problem)
        table.setdefault(old, new)
        if not search.removeprefix("(?i)").startswith("^"):
            words = "the first match is replaced"
    if len(rules) > 1:
        words = "the first rule that matches counts, and no other one"
    settings: dict[str, Any] = {"map": table}
    if name != "location":
        settings["fields"] = [name]
    return {"rewrite_location": settings}, words


def _of_all(search: str, new: str) -> tuple[str, str]:
    """The same where the match is all of a value: what is before and behind it are groups."""
    groups = compile_pattern(search).groups
    last = groups + 2
    shifted = re.sub(r"\\g<(\d+)>", lambda match: rf"\g<{int(match[1]) + 1}>", new)
    return f"~^(.*?)(?:{search})(.*)$", rf"\g<1>{shifted}\g<{last}>"


def _cookies(rules: Rules) -> tuple[dict[str, Any], str]:
    settings: dict[str, Any] = {"domain": {}, "path": {}}
    flags: list[str] = []
    for rule in rules:
        search, written = _search(rule), rule.get("replace", "")
        if search == "$" or search in _ALL:
            start, *attributes = (part.strip() for part in written.split(";"))
            if start != ("" if search == "$" else "$1") or not any(attributes):
                raise UnsayableError("changing the value of cookies")
            flags += [_flag(attribute) for attribute in attributes if attribute]
            continue
        key, old, new = _attribute(search, written)
        if problem := cookie_problem(key, old, new):
            raise UnsayableError(problem)
        settings[key].setdefault(old, new)
    if flags:
        if problem := cookie_flags_problem("*", [CookieFlag(flag) for flag in flags]):
            raise UnsayableError(problem)
        settings["flags"] = {"*": flags}
    words = "flags that cookies have already are not added again" if flags else ""
    return {"rewrite_cookies": settings}, words


def _attribute(search: str, written: str) -> tuple[str, str, str]:
    """`Domain=a` that becomes `Domain=b`: the attribute, and the rule for its value."""
    before, after = _ATTRIBUTE.fullmatch(search), _ATTRIBUTE.fullmatch(written)
    if before is None or after is None or before[2].lower() != after[2].lower():
        raise UnsayableError("changing cookies in a way that is not their domain, path or flags")
    if before[4] != after[4] or _GROUP.search(written):
        raise UnsayableError("groups in attributes of cookies")
    # With a semicolon behind it, it is all of the value.
    end = "$" if before[4] else "(.*)$"
    pattern = f"~(?i)^(?:{before[3]}){end}" if before[1] else f"~^(?:{before[3]}){end}"
    groups = compile_pattern(before[3]).groups
    new = template(after[3])
    return before[2].lower(), pattern, new if before[4] else rf"{new}\g<{groups + 1}>"


def _flag(text: str) -> str:
    try:
        return CookieFlag(text.lower().replace(" ", "")).value
    except ValueError:
        raise UnsayableError(f"a cookie has no flag {text}") from None


def _search(rule: Mapping[str, str]) -> str:
    """The regular expression of a rule; raises UnsayableError."""
    found = rule.get("search_regexp") or re.escape(rule.get("search", ""))
    if "{http." in found:
        raise UnsayableError("a search that depends on the request")
    try:
        compile_pattern(found)
    except ValueError as error:
        raise UnsayableError(f"the regular expression {error}") from None
    return found


def _replace(rule: Mapping[str, str]) -> str:
    """The replacement of a rule, with groups as ours refer to them; raises UnsayableError."""
    text = rule.get("replace", "")
    if "\\" in text or "$$" in text:
        raise UnsayableError(f"an escape in {text}")
    return "".join(_parts(text))


def _parts(text: str) -> Iterator[str]:
    at = 0
    for match in _GROUP.finditer(text):
        yield template(text[at : match.start()])
        yield rf"\g<{match[1] or match[2]}>"
        at = match.end()
    yield template(text[at:])
