"""Conversion of TOML values to schema types; every problem is reported under its key."""

from __future__ import annotations

import math
import re
import types
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from quicedge.config.problems import Problem, nearest
from quicedge.config.schema import RENAMED_KEYS

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(B|KB|MB|GB|KiB|MiB|GiB)", re.IGNORECASE)
_BYTES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip
_MAX_SHOWN = 60
"""Characters of an invalid value quoted in a message."""

_HIGH = 1_000_000
"""Upper bounds from here on are mentioned only when exceeded."""

DURATION = "a duration such as 30s or 500ms"
SIZE = "a size such as 64KB or 1MiB"

Problems = list[Problem]


def convert(value: Any, hint: Any, path: str, problems: Problems) -> Any:
    """Convert `value` to the type `hint`; add mismatches to `problems`."""
    bare = _unwrapped(hint)[0]
    if bare is Any:
        return value
    if get_origin(bare) in (Union, types.UnionType):
        return _union(value, bare, path, problems)
    if (options := _options(bare)) is not None:
        return _choice(value, options, path, problems)
    if _is_table(bare):
        if isinstance(value, dict):
            return _table(value, bare, path, problems)
    elif get_origin(bare) is list:
        if isinstance(value, list):
            return _list(value, get_args(bare)[0], path, problems)
    elif get_origin(bare) is dict:
        if isinstance(value, dict):
            return _tables(value, get_args(bare)[1], path, problems)
    else:
        return _scalar(value, hint, path, problems)
    problems.append(
        Problem(path, f"{shown(value)} is not {_expected(hint)}{_listed(value, bare, path)}")
    )
    return value


def shown(value: Any) -> str:
    """A value as written in the file, shortened to fit one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def quantity(value: str, unit: str) -> float | None:
    """Seconds or bytes in `30s` or `64KB`; None when it does not parse."""
    pattern, factors = (_DURATION, _SECONDS) if unit == "seconds" else (_SIZE, _BYTES)
    match = pattern.fullmatch(value.strip())
    return None if match is None else float(match[1]) * factors[match[2].lower()]


def parse_size(text: str) -> int:
    """Bytes in `64KB`, `1MiB` or a plain number; ValueError when it does not parse."""
    size = int(text) if text.isascii() and text.isdigit() else quantity(text, "bytes")
    if size is None or not math.isfinite(size):
        raise ValueError(f"{text!r} is not {SIZE}")
    return int(size)


def join(path: str, key: str) -> str:
    """The path of a key in the table at `path`."""
    return f"{path}.{key}" if path else key


def _unwrapped(hint: Any) -> tuple[Any, dict[str, Any], str | None]:
    """A hint without annotations, the annotated bounds, and the unit."""
    bounds: dict[str, Any] = {}
    unit = None
    while get_origin(hint) is Annotated:
        for meta in get_args(hint)[1:]:
            unit = (meta.extra or {}).get("unit", unit)
            for name in ("gt", "ge", "le"):
                if getattr(meta, name) is not None:
                    bounds[name] = getattr(meta, name)
        hint = get_args(hint)[0]
    return hint, bounds, unit


def _is_table(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _options(hint: Any) -> tuple[Any, ...] | None:
    """The values that a choice is between; None for other types."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return tuple(option.value for option in hint)
    return None


def _one_of(options: tuple[Any, ...]) -> str:
    one_of = ", ".join(map(repr, options))
    return f"one of {one_of}" if len(options) > 1 else one_of


def _expected(hint: Any) -> str:
    """The expected value, in words."""
    bare, bounds, unit = _unwrapped(hint)
    if get_origin(bare) in (Union, types.UnionType):
        options = [one for one in get_args(bare) if one is not types.NoneType]
        return " or ".join(_expected(one) for one in options)
    if (choices := _options(bare)) is not None:
        return _one_of(choices)
    if get_origin(bare) is list:
        item = get_args(bare)[0]
        return "a list of tables" if _is_table(item) else "a list"
    if get_origin(bare) is dict or _is_table(bare):
        return "a table"
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    kind = {"seconds": DURATION, "bytes": SIZE}.get(unit or "") or kinds[bare]
    return kind + _range(bounds)


def _range(bounds: dict[str, Any]) -> str:
    """Bounds in words; upper bounds above `_HIGH` are left out."""
    low, high = bounds.get("ge"), bounds.get("le", math.inf)
    if "gt" in bounds:
        return f" above {bounds['gt']:g}"
    if low is None:
        return ""
    return f" from {low:g} to {high:g}" if high < _HIGH else f" of at least {low:g}"


def _listed(value: Any, bare: Any, path: str) -> str:
    """What to write when a single value stands in place of a list, if that is one of its items."""
    if get_origin(bare) is not list:
        return ""
    wrong: Problems = []
    convert(value, get_args(bare)[0], path, wrong)
    if wrong and not isinstance(value, dict):
        return ""
    return f"; write [[{path}]]" if isinstance(value, dict) else f"; write [{shown(value)}]"


# --- kinds of values --------------------------------------------------------------------------


def _scalar(value: Any, hint: Any, path: str, problems: Problems) -> Any:
    bare, bounds, unit = _unwrapped(hint)
    number = value
    if unit is not None and unit != "lines" and isinstance(value, str):
        number = quantity(value, unit)
    if bare is int and unit == "bytes" and isinstance(number, float) and math.isfinite(number):
        number = int(number)
    kinds: tuple[type, ...] = (int, float) if bare is float else (bare,)
    is_kind = isinstance(number, kinds) and (bare is bool or not isinstance(number, bool))
    if is_kind and isinstance(number, str):
        _text(number.replace("\n", " ") if unit == "lines" else number, path, problems)
    elif is_kind and number is not None and number > bounds.get("le", math.inf):
        problems.append(
            Problem(path, f"{shown(value)} is too large: the maximum is {_most(bounds, unit)}")
        )
    elif not is_kind or number is None or not _is_above(number, bounds):
        problems.append(Problem(path, f"{shown(value)} is not {_expected(hint)}"))
    return number


def _is_above(number: float, bounds: dict[str, Any]) -> bool:
    return (
        math.isfinite(number)
        and number > bounds.get("gt", -math.inf)
        and number >= bounds.get("ge", -math.inf)
    )


def _most(bounds: dict[str, Any], unit: str | None) -> str:
    most = bounds["le"]
    return f"{most / 86400:g} days" if unit == "seconds" else f"{most}"


def _text(value: str, path: str, problems: Problems) -> None:
    """Reject empty and unprintable strings: an empty path would mean the file's directory."""
    if not value.strip():
        problems.append(Problem(path, f"{value!r} is empty; omit the key instead"))
    elif not value.isprintable():
        problems.append(Problem(path, f"{shown(value)} has unprintable characters"))


def _choice(value: Any, options: tuple[Any, ...], path: str, problems: Problems) -> Any:
    if value not in options or isinstance(value, bool):
        near = nearest(value, options) if isinstance(value, str) else ""
        problems.append(Problem(path, f"{shown(value)} is not {_one_of(options)}{near}"))
    return value


def _union(value: Any, hint: Any, path: str, problems: Problems) -> Any:
    options = [one for one in get_args(hint) if one is not types.NoneType]
    if len(options) == 1:
        return convert(value, options[0], path, problems)
    if isinstance(value, dict) and (tables := [one for one in options if _is_table(one)]):
        return convert(value, tables[0], path, problems)
    for option in options:
        found: Problems = []
        converted = convert(value, option, path, found)
        if not found:
            return converted
        bare = _unwrapped(option)[0]
        if isinstance(value, str | list) and type(value) in (bare, get_origin(bare)):
            problems += found  # of the right kind
            return value
    meant = next(filter(None, (_listed(value, _unwrapped(one)[0], path) for one in options)), "")
    problems.append(Problem(path, f"{shown(value)} is not {_expected(hint)}{meant}"))
    return value


def _list(value: list[Any], item: Any, path: str, problems: Problems) -> list[Any]:
    converted = []
    seen: set[Any] = set()
    for index, one in enumerate(value):
        where = f"{path}[{index}]"
        if not isinstance(one, dict | list):
            if one in seen:
                problems.append(Problem(where, f"{shown(one)} is listed twice"))
            seen.add(one)
        converted.append(convert(one, item, where, problems))
    return converted


def _tables(value: dict[str, Any], item: Any, path: str, problems: Problems) -> dict[str, Any]:
    for name in value:
        _text(name, path, problems)
    return {name: convert(one, item, join(path, name), problems) for name, one in value.items()}


@cache
def _hints(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The types of a table's keys: evaluating them for each of many routes takes seconds."""
    return get_type_hints(struct, include_extras=True)


@cache
def _required(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(struct) if field.required)


def _table(
    value: dict[str, Any], struct: type[msgspec.Struct], path: str, problems: Problems
) -> dict[str, Any]:
    hints = _hints(struct)
    out = {}
    for key, item in value.items():
        if key in hints:
            out[key] = convert(item, hints[key], join(path, key), problems)
            continue
        problems.append(Problem(join(path, key), _unknown(join(path, key), key, hints)))
    for name in _required(struct):
        if name not in value:
            problems.append(Problem(path, f"{name} is required"))
    return out


def _unknown(path: str, key: str, known: dict[str, Any]) -> str:
    """Describe an unknown key: its new name, or the nearest known one."""
    if path in RENAMED_KEYS:
        return f"renamed to {RENAMED_KEYS[path]}"
    hint = nearest(key, known) or f"; known here: {', '.join(sorted(known))}"
    return f"unknown key{hint}"
