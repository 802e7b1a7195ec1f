"""Round-trip time (RFC 9002 section 5). Seconds throughout."""

from __future__ import annotations

import math

GRANULARITY = 0.001
"""kGranularity (RFC 9002 section 6.1.2)."""


class RttEstimator:
    """Smoothed, latest and smallest round-trip time of the path in use."""

    __slots__ = (
        "_probe_timeout", "first_sample_time", "initial", "initialized", "latest", "min",
        "smoothed", "variance",
    )  # fmt: skip

    def __init__(self, initial: float) -> None:
        self.initial = initial
        self.initialized = False
        self.first_sample_time = 0.0
        self.latest = 0.0
        self.min = math.inf
        self.smoothed = 0.0
        self.variance = 0.0
        self._probe_timeout = 0.0
        """Without the peer's delay: asked several times for each sample."""

    def update(self, sample: float, ack_delay: float, now: float) -> None:
        """Take a sample; `ack_delay` is what the peer says it waited."""
        # Comparisons in place of `min`, `max` and `abs`: this runs for every ACK.
        self.latest = latest = sample if sample > 1e-6 else 1e-6
        # RFC 9002 section 5.2: min_rtt MUST NOT be adjusted for acknowledgment delay.
        if latest < self.min:
            self.min = latest
        # Section 5.3: the adjusted sample MUST NOT be smaller than min_rtt.
        adjusted = latest - ack_delay if latest >= self.min + ack_delay else latest
        if not self.initialized:
            self.initialized = True
            self.first_sample_time = now
            self.smoothed = latest
            self.variance = latest / 2
        else:
            change = adjusted - self.smoothed
            self.variance += ((change if change > 0.0 else -change) - self.variance) / 4
            self.smoothed += change / 8
        spread = 4 * self.variance
        self._probe_timeout = self.smoothed + (spread if spread > GRANULARITY else GRANULARITY)

    def probe_timeout(self, max_ack_delay: float) -> float:
        """The PTO period (RFC 9002 section 6.2.1); twice the initial RTT before any sample."""
        if not self.initialized:
            return 2 * self.initial
        return self._probe_timeout + max_ack_delay
