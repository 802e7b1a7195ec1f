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
        latest = max(sample, 1e-6)
        # RFC 9002 section 5.2: min_rtt MUST NOT be adjusted for acknowledgment delay.
        self.min = min(self.min, latest)
        # Section 5.3: the adjusted sample MUST NOT be smaller than min_rtt.
        adjusted = latest - ack_delay if latest >= self.min + ack_delay else latest
        self.latest = latest
        if not self.initialized:
            self.initialized = True
            self.first_sample_time = now
            self.smoothed = latest
            self.variance = latest / 2
        else:
            self.variance += (abs(self.smoothed - adjusted) - self.variance) / 4
            self.smoothed += (adjusted - self.smoothed) / 8
        self._probe_timeout = self.smoothed + max(4 * self.variance, GRANULARITY)

    def probe_timeout(self, max_ack_delay: float) -> float:
        """The PTO period (RFC 9002 section 6.2.1); twice the initial RTT before any sample."""
        if not self.initialized:
            return 2 * self.initial
        return self._probe_timeout + max_ack_delay
