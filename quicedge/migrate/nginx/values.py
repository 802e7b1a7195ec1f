"""Times and sizes as nginx writes them, and as `quicedge.toml` does."""

from __future__ import annotations

import re

from quicedge.config.limits import MAX_DURATION
from quicedge.migrate.errors import SourceError
from quicedge.migrate.nginx.source import Directive

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2592000,
          "y": 31536000}  # fmt: skip
_TIME = re.compile(r"(\d+)(ms|[smhdwMy])?\s*")
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_NAMES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def seconds(text: str) -> float:
    """A time such as `30`, `500ms` or `1h 30m`; raises ValueError."""
    total, at = 0.0, 0
    for match in _TIME.finditer(text):
        if match.start() != at:
            break
        total += int(match[1]) * _UNITS[match[2] or "s"]
        at = match.end()
    if at != len(text) or not text:
        raise ValueError(f"{text!r} is not a time")
    return total


def time_of(directive: Directive, text: str | None = None) -> float:
    """The time that a directive has as its first argument; raises SourceError."""
    try:
        return seconds(directive.args[0] if text is None else text)
    except ValueError as error:
        raise SourceError(f"{directive.place}: {directive.text} {error}") from None


def size_of(directive: Directive) -> int:
    """The size that a directive has as its first argument; raises SourceError."""
    try:
        return octets(directive.args[0])
    except ValueError as error:
        raise SourceError(f"{directive.place}: {directive.text} {error}") from None


def number_of(directive: Directive, text: str | None = None) -> int:
    """The number that a directive has as its first argument; raises SourceError."""
    text = directive.args[0] if text is None else text
    if not re.fullmatch(r"\d{1,9}", text):
        raise SourceError(f"{directive.place}: {directive.text} {text!r} is not a number")
    return int(text)


def duration(value: float) -> str:
    """Seconds, written as `"30s"`; as much as quicedge takes."""
    value = min(value, MAX_DURATION)
    for unit in ("d", "h", "m"):
        if value >= _UNITS[unit] and value % _UNITS[unit] == 0:
            return f"{value / _UNITS[unit]:g}{unit}"
    return f"{value:g}s" if value >= 1 or value == 0 else f"{value * 1000:g}ms"


def octets(text: str) -> int:
    """A size such as `8k` or `10m` in bytes; raises ValueError."""
    match = re.fullmatch(r"(\d+)([kKmMgG]?)", text)
    if match is None:
        raise ValueError(f"{text!r} is not a size")
    return int(match[1]) * _SIZES[match[2].lower()]


def size(value: int) -> str | int:
    """Bytes, written as `"10MiB"` where that is a round number."""
    for unit, name in _NAMES:
        if value >= unit and value % unit == 0:
            return f"{value // unit}{name}"
    return value
