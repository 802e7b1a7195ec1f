"""Scenarios of the emulated network, written as the interop runner writes them.

`drop-rate --delay=15ms --bandwidth=10Mbps --queue=25 --rate_to_server=30 ...`: a name and options.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, fields

NAMES = ("simple-p2p", "drop-rate", "corrupt-rate", "droplist", "blackhole", "rebind")


@dataclass(frozen=True)
class Scenario:
    """One point-to-point link and what goes wrong on it.

    Times are in seconds, `bandwidth` in bits per second, rates in percent of packets, bursts in
    packets lost in a row at most, drop lists in packets counted from 1 in each direction.
    """

    name: str
    delay: float = 0.015
    bandwidth: int = 10_000_000
    queue: int = 25
    rate_to_server: int = 0
    rate_to_client: int = 0
    burst_to_server: int = 1 << 30
    burst_to_client: int = 1 << 30
    drops_to_server: frozenset[int] = field(default_factory=frozenset)
    drops_to_client: frozenset[int] = field(default_factory=frozenset)
    on: float = 0.0
    off: float = 0.0
    first_rebind: float = 0.0
    rebind_freq: float = 0.0
    rebind_addr: bool = False
    deliver_corrupted: bool = False
    seed: int | None = None


_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|us|s)$")
_BANDWIDTH = re.compile(r"^(\d+(?:\.\d+)?)(Gbps|Mbps|Kbps|bps)$")
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_BITS = {"bps": 1, "Kbps": 1_000, "Mbps": 1_000_000, "Gbps": 1_000_000_000}
_DURATIONS = {"delay", "on", "off", "first_rebind", "rebind_freq"}
_FLAGS = {"rebind_addr", "deliver_corrupted"}
_LISTS = {"drops_to_server", "drops_to_client"}


def parse_scenario(text: str) -> Scenario:
    """Read a scenario; raises ValueError that names the word at fault."""
    name, *options = shlex.split(text) or [""]
    if name not in NAMES:
        raise ValueError(f"scenario {name!r} is none of {', '.join(NAMES)}")
    known = {item.name for item in fields(Scenario)} - {"name"}
    values: dict[str, object] = {}
    for option in options:
        key, _, value = option.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        if not option.startswith("--") or key not in known:
            raise ValueError(f"scenario {name}: unknown option {option!r}")
        values[key] = _value(key, value, option)
    return Scenario(name, **values)  # type: ignore[arg-type]


def _value(key: str, value: str, option: str) -> object:
    try:
        if key in _FLAGS:
            return value in ("", "true")
        if key in _LISTS:
            return frozenset(int(item) for item in value.split(","))
        if key in _DURATIONS:
            return _scaled(_DURATION, _SECONDS, value)
        if key == "bandwidth":
            return int(_scaled(_BANDWIDTH, _BITS, value))
        return int(value)
    except ValueError as error:
        raise ValueError(f"scenario option {option!r}: {error}") from None


def _scaled(pattern: re.Pattern[str], units: dict[str, float] | dict[str, int], text: str) -> float:
    match = pattern.match(text)
    if match is None:
        raise ValueError(f"wants a number with one of the units {', '.join(units)}")
    return float(match[1]) * units[match[2]]
