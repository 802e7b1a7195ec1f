"""How fast a server has answered lately."""

from __future__ import annotations

import math

from quicedge.config.limits import LATENCY_HALF_LIFE


class Latency:
    """The mean time to the response head, in seconds; a sample loses half of its weight per
    LATENCY_HALF_LIFE.

    A slower sample counts at once (Finagle's "peak" variant): a server in trouble gets fewer
    requests from the first sign on, and proves itself slowly.
    """

    __slots__ = ("_at", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self._at = 0.0

    def note(self, seconds: float, now: float) -> None:
        """A response head has come after `seconds`."""
        if seconds >= self.seconds:
            self.seconds = seconds
        else:
            kept = math.exp2(-(now - self._at) / LATENCY_HALF_LIFE)
            self.seconds = kept * self.seconds + (1 - kept) * seconds
        self._at = now
