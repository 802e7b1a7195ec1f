"""NewReno as QUIC defines it (RFC 9002 section 7)."""

from __future__ import annotations

from quicedge.quic.congestion.base import LOSS_REDUCTION_FACTOR, CongestionController


class NewReno(CongestionController):
    """Doubles per round in slow start, adds one packet per round in congestion avoidance."""

    name = "reno"

    def __init__(self, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size)
        self._acked_in_avoidance = 0

    def on_acked(
        self, nbytes: int, sent_time: float, now: float, smoothed_rtt: float, limited: bool
    ) -> None:
        if self.in_recovery(sent_time) or not limited:
            return
        if self.in_slow_start:
            self.congestion_window += nbytes
            return
        self._acked_in_avoidance += nbytes
        while self._acked_in_avoidance >= self.congestion_window:
            self._acked_in_avoidance -= self.congestion_window
            self.congestion_window += self.max_datagram_size

    def _reduce(self, now: float) -> None:
        window = int(self.congestion_window * LOSS_REDUCTION_FACTOR)
        self.congestion_window = self.ssthresh = max(window, self.minimum_window)
        self._acked_in_avoidance = 0
