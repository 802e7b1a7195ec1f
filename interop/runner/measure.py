"""Measurements taken from a trial's capture."""

from __future__ import annotations

from interop.runner.evidence import CheckFailed, Evidence
from interop.runner.trace import Direction, Kind


def goodput(evidence: Evidence, size: int) -> float:
    """Kilobits per second: `size` bytes over the time between the server's first and last 1-RTT."""
    times = evidence.left.times(Direction.FROM_SERVER, Kind.SHORT)
    if len(times) < 2 or times[-1] <= times[0]:
        raise CheckFailed("fewer than two 1-RTT packets of the server")
    return size * 8 / (times[-1] - times[0]) / 1000
