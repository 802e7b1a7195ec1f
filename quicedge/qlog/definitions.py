"""The drafts' definitions of files, events and their members, as data.

`definitions.json` restates the CDDL of draft-ietf-quic-qlog-main-schema-14, -quic-events-13 and
-h3-events-13. Its types are:

- a name: another type, or one of `BUILTIN`;
- `{"object": {NAME: TYPE, "?NAME": TYPE}}`: members, `?` marks optional ones. All objects
  of the drafts are extensible: additional members are noted, and are errors only if they are names
  from older drafts. An object without members is unconstrained. `"extends"` names a base type;
- `{"list": TYPE, "min": N, "max": N}`, `{"enum": [STRING]}`, `{"any": [TYPE]}`;
- `{"pattern": REGEX}`, `{"hex": BYTES}`: strings;
- `{"tag": MEMBER, "variants": {VALUE: TYPE}}`: an object whose type is determined by its
  member `tag`.

`"open": true` marks the drafts' extension points (`$NAME` in CDDL), where unlisted values are not
errors.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

from quicedge.qlog.names import OLDER_MEMBERS

_HEX = re.compile(r"(?:[0-9a-f]{2})*")
"""Lower case and without a prefix, as defined for `hexstring` by main-schema."""


def _unsigned(bits: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 0 <= value < 1 << bits


def _float(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)


BUILTIN: Final[dict[str, Callable[[Any], bool]]] = {
    "uint8": _unsigned(8),
    "uint16": _unsigned(16),
    "uint32": _unsigned(32),
    "uint64": _unsigned(64),
    "float32": _float,
    "float64": _float,
    "bool": lambda value: isinstance(value, bool),
    "text": lambda value: isinstance(value, str),
    "hexstring": lambda value: isinstance(value, str) and _HEX.fullmatch(value) is not None,
}


@cache
def _definitions() -> dict[str, Any]:
    source = resources.files("quicedge.qlog").joinpath("definitions.json")
    definitions: dict[str, Any] = json.loads(source.read_text("utf-8"))
    return definitions


def events() -> dict[str, dict[str, str]]:
    """Maps event names to `importance` (core, base, extra) and the type of `data`."""
    found: dict[str, dict[str, str]] = _definitions()["events"]
    return found


def types() -> dict[str, Any]:
    """Maps type names to types."""
    found: dict[str, Any] = _definitions()["types"]
    return found


class Severity(StrEnum):
    """What a difference from the definitions means."""

    ERROR = "error"
    """It violates a definition."""
    NOTE = "note"
    """It uses an extension point, or could not be checked."""


class Problem(NamedTuple):
    """One difference between a value and its definition."""

    severity: Severity
    place: str
    """A path such as `data.header`."""
    what: str


def check(value: Any, kind: Any, place: str) -> list[Problem]:
    """Check a JSON value against a type; the result is empty if it conforms."""
    problems: list[Problem] = []
    _check(value, kind, place, problems, False)
    return problems


def _error(problems: list[Problem], place: str, what: str, *, note: bool = False) -> None:
    problems.append(Problem(Severity.NOTE if note else Severity.ERROR, place, what))


def _check(value: Any, kind: Any, place: str, problems: list[Problem], is_open: bool) -> None:
    if isinstance(kind, str):
        test = BUILTIN.get(kind)
        if test is None:
            _check(value, types()[kind], place, problems, is_open)
        elif not test(value):
            what = _name(value)
            if kind == "hexstring" and isinstance(value, str):
                what = f"{value[:20]!r}"
                if BUILTIN[kind](value.lower()):
                    what += " in upper case"
            _error(problems, place, f"is {what}, not {kind}")
        return
    is_open = is_open or kind.get("open", False)
    if "object" in kind:
        _check_object(value, kind, place, problems)
    elif "enum" in kind:
        if value not in kind["enum"]:
            if not isinstance(value, str):
                _error(problems, place, f"is {_name(value)}, not text")
            else:
                _error(problems, place, f"has the unlisted value {value[:40]!r}", note=is_open)
    elif "list" in kind:
        _check_list(value, kind, place, problems)
    elif "any" in kind:
        _check_any(value, kind["any"], place, problems, is_open)
    elif "pattern" in kind:
        if not isinstance(value, str) or re.fullmatch(kind["pattern"], value) is None:
            _error(problems, place, f"does not match {kind['pattern']}")
    elif "hex" in kind:
        if not BUILTIN["hexstring"](value) or len(value) != 2 * kind["hex"]:
            _error(problems, place, f"is not {kind['hex']} bytes in hexadecimal")
    else:
        _check_tagged(value, kind, place, problems)


def _check_object(value: Any, kind: dict[str, Any], place: str, problems: list[Problem]) -> None:
    if not isinstance(value, dict):
        _error(problems, place, f"is {_name(value)}, not an object")
        return
    _check_members(value, kind, place, problems)
    known = _member_names(kind)
    for name in value if known else ():
        if name not in known:
            shown = f"has the member {name[:40]!r}"
            if name in OLDER_MEMBERS:
                _error(problems, place, f"{shown}, a name of older drafts")
            else:
                _error(problems, place, f"{shown}, which the drafts do not define", note=True)


def _member_names(kind: dict[str, Any]) -> set[str]:
    """The members that are defined for an object."""
    names = {name.removeprefix("?") for name in kind["object"]}
    return names | _member_names(types()[kind["extends"]]) if "extends" in kind else names


def _check_members(
    value: dict[str, Any], kind: dict[str, Any], place: str, problems: list[Problem]
) -> None:
    if "extends" in kind:
        _check_members(value, types()[kind["extends"]], place, problems)
    for name, inner in kind["object"].items():
        optional = name.startswith("?")
        member = name.removeprefix("?")
        if member in value:
            _check(value[member], inner, f"{place}.{member}" if place else member, problems, False)
        elif not optional:
            _error(problems, place, f"lacks the member {member!r}")


def _check_list(value: Any, kind: dict[str, Any], place: str, problems: list[Problem]) -> None:
    if not isinstance(value, list):
        _error(problems, place, f"is {_name(value)}, not an array")
        return
    least, most = kind["min"], kind.get("max")
    if len(value) < least or (most is not None and len(value) > most):
        wanted = f"{least} or more" if most is None else f"{least} to {most}"
        _error(problems, place, f"has {len(value)} items, not {wanted}")
    for item in value:
        _check(item, kind["list"], f"{place}[]", problems, False)


def _check_any(
    value: Any, kinds: list[Any], place: str, problems: list[Problem], is_open: bool
) -> None:
    best: list[Problem] | None = None
    for kind in kinds:
        found: list[Problem] = []
        _check(value, kind, place, found, is_open)
        if not found:
            return
        if best is None or _errors(found) < _errors(best):
            best = found
    problems.extend(best or [])


def _errors(problems: list[Problem]) -> int:
    return sum(problem.severity is Severity.ERROR for problem in problems)


def _check_tagged(value: Any, kind: dict[str, Any], place: str, problems: list[Problem]) -> None:
    if not isinstance(value, dict):
        _error(problems, place, f"is {_name(value)}, not an object")
        return
    tag = value.get(kind["tag"])
    if not isinstance(tag, str):
        _error(problems, place, f"lacks the member {kind['tag']!r}")
        return
    variant = kind["variants"].get(tag)
    if variant is None:
        _error(problems, place, f"has the unlisted {kind['tag']} {tag[:40]!r}", note=True)
    else:
        _check(value, variant, f"{place}({tag})", problems, False)


def _name(value: Any) -> str:
    """The name of a JSON value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a bool"
    if isinstance(value, int):
        return "a negative number" if value < 0 else f"the number {value}"[:40]
    if isinstance(value, float):
        return "a fraction"
    return "text" if isinstance(value, str) else "an array" if type(value) is list else "an object"
