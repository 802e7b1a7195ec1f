"""Parsing of rates: `100/second`, `1000 per 10 minutes`."""

from __future__ import annotations

import re

_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
_RATE = re.compile(
    r"\s*([1-9][0-9]{0,8})\s*(?:/|per)\s*([1-9][0-9]{0,5})?\s*(second|minute|hour|day)s?\s*"
)


def parse_rate(text: str) -> tuple[int, float]:
    """Parse a rate into a count and a period in seconds; raises ValueError."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a rate such as 100/second or 1000 per 10 minutes")
    return int(match[1]), int(match[2] or 1) * _UNITS[match[3]]
