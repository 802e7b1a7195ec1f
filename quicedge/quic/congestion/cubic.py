"""CUBIC (RFC 9438) with HyStart++ (RFC 9406)."""

from __future__ import annotations

from quicedge.quic.congestion.base import CongestionController
from quicedge.quic.congestion.hystart import HyStart

CUBIC_C = 0.4
"""Segments a cubed second (RFC 9438 section 5.1)."""

CUBIC_BETA = 0.7
"""Window kept after a congestion event (RFC 9438 section 4.6)."""


class Cubic(CongestionController):
    """Grows by a cubic function of the time since the last congestion event.

    Windows are bytes; RFC 9438 counts segments of the maximum datagram size.
    """

    name = "cubic"

    def __init__(self, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size)
        self._hystart = HyStart()
        self._w_max = 0.0
        self._prior = 0.0
        """The window before the latest congestion event (RFC 9438 calls it cwnd_prior)."""
        self._k = 0.0
        self._epoch_start: float | None = None
        self._w_est = 0.0
        self._carry = 0.0

    def on_sample(
        self, rtt: float | None, round_ended: bool, rate: float | None, app_limited: bool
    ) -> None:
        if rtt is not None and self.in_slow_start and (
            self._hystart.on_rtt(rtt, round_ended=round_ended)
        ):  # fmt: skip
            self.ssthresh = self.congestion_window

    def on_acked(
        self, nbytes: int, sent_time: float, now: float, smoothed_rtt: float, limited: bool
    ) -> None:
        if not limited or self.in_recovery(sent_time):
            if not limited and self._epoch_start is not None:
                # RFC 9438 section 5.8: the time an application has nothing to send does not
                # count as time to grow in.
                self._epoch_start = None
            return
        if self.in_slow_start:
            self.congestion_window += int(nbytes / self._hystart.growth_divisor)
            return
        self._avoid(nbytes, now, smoothed_rtt)

    def _avoid(self, nbytes: int, now: float, smoothed_rtt: float) -> None:
        mss = self.max_datagram_size
        window = self.congestion_window
        if self._epoch_start is None:
            self._epoch_start = now
            self._w_max = max(self._w_max, float(window))
            self._k = ((self._w_max - window) / mss / CUBIC_C) ** (1 / 3)
            self._w_est = float(window)
        # RFC 9438 section 4.3: what standard TCP would have reached.
        alpha = 3 * (1 - CUBIC_BETA) / (1 + CUBIC_BETA) if self._w_est < self._prior else 1.0
        self._w_est += alpha * mss * nbytes / window
        elapsed = now - self._epoch_start
        if self._w_cubic(elapsed) < self._w_est:
            # The Reno-friendly region: the window is the estimate; approaching it by steps, as
            # below, would lag a round trip behind it after every congestion event.
            estimate = int(self._w_est)
            if estimate > window:
                self.congestion_window = estimate
            self._carry = 0.0
            return
        # Sections 4.4 and 4.5: where the curve is a round trip later, but half again at most.
        target = self._w_cubic(elapsed + smoothed_rtt)
        if target > 1.5 * window:
            target = 1.5 * window
        if target > window:
            self._carry += (target - window) * nbytes / window
        whole = int(self._carry)
        self._carry -= whole
        self.congestion_window += whole

    def _w_cubic(self, elapsed: float) -> float:
        """The curve: the window `elapsed` seconds after the congestion avoidance stage began."""
        return self._w_max + CUBIC_C * (elapsed - self._k) ** 3 * self.max_datagram_size

    def _reduce(self, now: float) -> None:
        window = self._prior = float(self.congestion_window)
        # RFC 9438 section 4.7, fast convergence: leave room for newcomers.
        self._w_max = window * (1 + CUBIC_BETA) / 2 if window < self._w_max else window
        self.congestion_window = self.ssthresh = max(int(window * CUBIC_BETA), self.minimum_window)
        self._epoch_start = None
        self._carry = 0.0
        self._hystart.stop()

    def on_persistent_congestion(self) -> None:
        super().on_persistent_congestion()
        self._epoch_start = None
        self._w_max = 0.0
