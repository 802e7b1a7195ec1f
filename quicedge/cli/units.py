"""Formatting of statistics with units, which follow from their names."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

_BARS = "▁▂▃▄▅▆▇█"


def formatted(name: str, value: Any) -> str:
    """Format a statistic with the unit that its name implies."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if name == "created_at":
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(value))
    if name.endswith("_seconds") or "rtt" in name:
        return milliseconds(value) if value < 1 else f"{value:.1f} s"
    if name.endswith("_rate"):
        return bits(value)
    if name.endswith("_packets"):
        return str(value)
    if any(part in name for part in ("bytes", "window", "buffered", "ssthresh")):
        return octets(value)
    return str(value)


def milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"


def octets(value: float | None) -> str:
    return "-" if value is None else _scaled(value, ("B", "KB", "MB", "GB", "TB"))


def bits(value: float | None) -> str:
    return "-" if value is None else _scaled(value, ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"))


def _scaled(value: float, units: tuple[str, ...]) -> str:
    unit = 0
    # `.3g` formats 999.5 as 1e+03.
    while value >= 999.5 and unit < len(units) - 1:
        value /= 1000
        unit += 1
    return f"{value:.3g} {units[unit]}"


def sparkline(values: Iterable[float]) -> str:
    """Values as a row of bars, scaled between minimum and maximum."""
    values = list(values)
    if not values:
        return ""
    least, most = min(values), max(values)
    span = (most - least) or 1.0
    return "".join(_BARS[int((value - least) / span * (len(_BARS) - 1))] for value in values)
