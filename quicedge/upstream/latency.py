"""How fast a server has answered lately."""

from __future__ import annotations

import math

from quicedge.config.limits import LATENCY_HALF_LIFE


class Latency:
    """The mean time to the response head, in seconds; a sample loses half of its weight per
    LATENCY_HALF_LIFE.

    A slower sample counts at once (Finagle's "peak" variant): a server in trouble gets fewer
    requests from the first sign on, and proves itself slowly. One that gets none any more is
    expected to have become faster, so that it is tried again.
    """

    __slots__ = ("_at", "_seconds")

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._at = 0.0

    def expected(self, now: float) -> float | None:
        """The seconds that the next response is expected to take; None: there was none yet."""
        seconds = self._seconds
        return None if seconds is None else seconds * self._kept(now)

    def note(self, seconds: float, now: float) -> None:
        """A response head has come after `seconds`."""
        before = self._seconds
        if before is None or seconds >= before:
            self._seconds = seconds
        else:
            kept = self._kept(now)
            self._seconds = kept * before + (1 - kept) * seconds
        self._at = now

    def _kept(self, now: float) -> float:
        return math.exp2((self._at - now) / LATENCY_HALF_LIFE)
