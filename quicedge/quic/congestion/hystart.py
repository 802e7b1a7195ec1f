"""HyStart++ (RFC 9406): leave slow start when the round trip grows, before packets are lost."""

from __future__ import annotations

import math

MIN_RTT_THRESHOLD = 0.004
"""Seconds (RFC 9406 section 4.3)."""
MAX_RTT_THRESHOLD = 0.016
"""Seconds."""
MIN_RTT_DIVISOR = 8
N_RTT_SAMPLE = 8
"""Samples a round needs before it is evaluated."""
CSS_GROWTH_DIVISOR = 4
"""How much slower conservative slow start grows."""
CSS_ROUNDS = 5
"""Rounds of conservative slow start before congestion avoidance."""


class HyStart:
    """Evaluates rounds of slow start by their smallest round-trip time."""

    def __init__(self) -> None:
        self._last_round_min = math.inf
        self._round_min = math.inf
        self._samples = 0
        self._css_baseline = math.inf
        self._css_rounds = 0
        self._in_css = False
        self._stopped = False

    @property
    def growth_divisor(self) -> int:
        return CSS_GROWTH_DIVISOR if self._in_css else 1

    def stop(self) -> None:
        """After the first congestion event slow start is an ordinary one (section 4.3)."""
        self._stopped = True
        self._in_css = False

    def on_rtt(self, rtt: float, *, round_ended: bool) -> bool:
        """Take a sample in seconds; True when slow start should end now."""
        if self._stopped:
            return False
        if round_ended:
            if self._in_css:
                self._css_rounds += 1
                if self._css_rounds >= CSS_ROUNDS:
                    self.stop()
                    return True
            self._last_round_min, self._round_min = self._round_min, math.inf
            self._samples = 0
        self._round_min = min(self._round_min, rtt)
        self._samples += 1
        if self._samples < N_RTT_SAMPLE or not math.isfinite(self._last_round_min):
            return False
        if self._in_css:
            if self._round_min < self._css_baseline:
                # The growth was noise: back to slow start.
                self._in_css = False
                self._css_baseline = math.inf
            return False
        threshold = max(
            MIN_RTT_THRESHOLD, min(self._last_round_min / MIN_RTT_DIVISOR, MAX_RTT_THRESHOLD)
        )
        if self._round_min >= self._last_round_min + threshold:
            self._css_baseline = self._round_min
            self._css_rounds = 0
            self._in_css = True
        return False
