"""BBR, version 3, after draft-ietf-ccwg-bbr: a model of the path instead of a reaction to loss.

Left out are the draft's ACK aggregation estimate and its ECN response beyond what a lossy round
does. Unlike the draft's, the short-term bounds do not compound from round to round: a radio link
that loses a few percent at random would be given up bit by bit. Rates are bytes per second.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum

from quicedge.config.limits import PACING_BURST, PACING_QUANTUM
from quicedge.quic.congestion.base import CongestionController

STARTUP_PACING_GAIN = 2.77
DRAIN_PACING_GAIN = 0.5
PACING_MARGIN = 0.99
"""A little below the estimate, so that queues drain."""
CWND_GAIN = 2.0
LOSS_THRESHOLD = 0.02
"""Loss in a round that says the path is full."""
BETA = 0.7
HEADROOM = 0.85
FULL_PIPE_GROWTH = 1.25
FULL_PIPE_ROUNDS = 3
STARTUP_LOST_DATAGRAMS = 6
BANDWIDTH_CYCLES = 2
"""Probing cycles over which the maximum rate is taken."""
PHASE_ROUNDS = 10
"""Maximum rounds of draining or probing."""
MIN_RTT_WINDOW = 10.0
PROBE_RTT_TIME = 0.2
PROBE_RTT_GAIN = 0.5
CRUISE_TIME = 2.5
"""Seconds between probes for bandwidth; the draft draws from 2 to 3."""


class Phase(Enum):
    """Of the state machine; DOWN to UP are the draft's ProbeBW. Values are for operators."""

    STARTUP = "startup"
    DRAIN = "drain"
    DOWN = "down"
    CRUISE = "cruise"
    REFILL = "refill"
    UP = "up"
    PROBE_RTT = "probe_rtt"


PACING_GAINS = {Phase.DOWN: 0.9, Phase.CRUISE: 1.0, Phase.REFILL: 1.0, Phase.UP: 1.25}
_PROBE_BW = frozenset(PACING_GAINS)


class Bbr(CongestionController):
    """Paces at the bottleneck's estimated rate and keeps two bandwidth-delay products in flight."""

    name = "bbr"

    def __init__(self, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size)
        self.phase = Phase.STARTUP
        self._round = 0
        self._cycle = 0
        self._round_ended = False
        self._round_delivered = 0
        self._round_lost = 0
        self._round_rate = 0.0
        self._congested = False
        self._rates: deque[tuple[int, float]] = deque()  # cycle and rate, falling
        self._rate_low = math.inf
        self._inflight_low = math.inf
        self._inflight_high = math.inf
        self._full_rate = 0.0
        self._full_rounds = 0
        self._phase_since = 0.0
        self._phase_round = 0
        self._min_rtt = math.inf
        self._min_rtt_at = 0.0
        self._rtt_sample: float | None = None
        self._window_before_probe = 0

    # --- the model ------------------------------------------------------------------------------

    @property
    def bandwidth(self) -> float:
        """Estimated bottleneck rate; 0 before there is a sample."""
        return min(self._rates[0][1], self._rate_low) if self._rates else 0.0

    @property
    def _bdp(self) -> float:
        """Bytes that fill the path without a queue."""
        return self.bandwidth * self._min_rtt

    @property
    def pacing_rate(self) -> float | None:
        if not self._rates or self._min_rtt == math.inf:
            return None
        if self.phase is Phase.STARTUP:
            gain = STARTUP_PACING_GAIN
        elif self.phase is Phase.DRAIN:
            gain = DRAIN_PACING_GAIN
        else:
            gain = PACING_GAINS.get(self.phase, 1.0)
        return gain * self.bandwidth * PACING_MARGIN

    @property
    def in_slow_start(self) -> bool:
        return self.phase is Phase.STARTUP

    @property
    def state(self) -> str:
        return "probe_bw" if self.phase in _PROBE_BW else self.phase.value

    # --- signals from recovery ------------------------------------------------------------------

    def on_sample(
        self, rtt: float | None, round_ended: bool, rate: float | None, app_limited: bool
    ) -> None:
        if rate is not None:
            self._take_rate(rate, app_limited)
        if rtt is not None:
            self._rtt_sample = rtt
            self._round_ended |= round_ended

    def _take_rate(self, rate: float, app_limited: bool) -> None:
        self._round_rate = max(self._round_rate, rate)
        if app_limited and self._rates and rate < self._rates[0][1]:
            return
        while self._rates and self._rates[-1][1] <= rate:
            self._rates.pop()
        self._rates.append((self._cycle, rate))

    def on_lost(self, nbytes: int) -> None:
        self._round_lost += nbytes

    def _reduce(self, now: float) -> None:
        self._congested = True

    def on_acked(
        self, nbytes: int, sent_time: float, now: float, smoothed_rtt: float, limited: bool
    ) -> None:
        self._round_delivered += nbytes
        self._take_rtt(now)
        if self._round_ended:
            self._end_round(now, limited)
        self._advance(nbytes, now)
        self._set_window(nbytes)

    def on_persistent_congestion(self) -> None:
        super().on_persistent_congestion()
        self._rate_low = self._inflight_low = math.inf

    # --- rounds and phases ----------------------------------------------------------------------

    def _take_rtt(self, now: float) -> None:
        sample, self._rtt_sample = self._rtt_sample, None
        expired = now - self._min_rtt_at > MIN_RTT_WINDOW
        if sample is not None and (sample <= self._min_rtt or expired):
            if expired and self._min_rtt != math.inf and self.phase is not Phase.PROBE_RTT:
                self._window_before_probe = self.congestion_window
                self._enter(Phase.PROBE_RTT, now)
            self._min_rtt = sample
            self._min_rtt_at = now

    def _end_round(self, now: float, limited: bool) -> None:
        self._round_ended = False
        self._round += 1
        total = self._round_delivered + self._round_lost
        lossy = self._round_lost > LOSS_THRESHOLD * total
        if self.phase is Phase.STARTUP and limited:
            self._check_full_pipe(lossy, now)
        elif self.phase is Phase.UP and lossy:
            self._inflight_high = max(self.in_flight, BETA * CWND_GAIN * self._bdp)
            self._enter(Phase.DOWN, now)
        elif (
            self._congested
            and self._rates
            and self.phase in (Phase.DRAIN, Phase.DOWN, Phase.CRUISE, Phase.PROBE_RTT)
        ):
            self._rate_low = max(self._round_rate, BETA * self._rates[0][1])
            self._inflight_low = max(self._round_delivered, CWND_GAIN * self._bdp)
        self._round_delivered = self._round_lost = 0
        self._round_rate = 0.0
        self._congested = False

    def _check_full_pipe(self, lossy: bool, now: float) -> None:
        rate = self.bandwidth
        if rate >= self._full_rate * FULL_PIPE_GROWTH:
            self._full_rate, self._full_rounds = rate, 0
        else:
            self._full_rounds += 1
        full_of_loss = lossy and self._round_lost >= STARTUP_LOST_DATAGRAMS * self.max_datagram_size
        if self._full_rounds >= FULL_PIPE_ROUNDS or (full_of_loss and self._full_rounds):
            if full_of_loss:
                self._inflight_high = max(self._bdp, self._round_delivered)
            self.ssthresh = self.congestion_window
            self._enter(Phase.DRAIN, now)

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase = phase
        self._phase_since = now
        self._phase_round = self._round
        if phase is Phase.UP:
            self._cycle += 1
            while len(self._rates) > 1 and self._rates[0][0] <= self._cycle - BANDWIDTH_CYCLES:
                self._rates.popleft()
        elif phase is Phase.REFILL:
            self._rate_low = self._inflight_low = math.inf

    def _advance(self, nbytes: int, now: float) -> None:
        elapsed = now - self._phase_since
        rounds = self._round - self._phase_round
        if self.phase is Phase.DRAIN and self.in_flight <= self._bdp:
            self._enter(Phase.DOWN, now)
        elif self.phase is Phase.DOWN:
            if (
                rounds and self.in_flight <= min(self._bdp, HEADROOM * self._inflight_high)
            ) or rounds > PHASE_ROUNDS:
                self._enter(Phase.CRUISE, now)
        elif self.phase is Phase.CRUISE and elapsed > CRUISE_TIME:
            self._enter(Phase.REFILL, now)
        elif self.phase is Phase.REFILL and rounds:
            self._enter(Phase.UP, now)
        elif self.phase is Phase.UP:
            if self.in_flight >= self._inflight_high:
                self._inflight_high += nbytes
            if (rounds > 1 and self.in_flight >= 1.25 * self._bdp) or rounds > PHASE_ROUNDS:
                self._enter(Phase.DOWN, now)
        elif self.phase is Phase.PROBE_RTT and elapsed > PROBE_RTT_TIME and rounds:
            self.congestion_window = max(self.congestion_window, self._window_before_probe)
            self._min_rtt_at = now
            self._enter(Phase.CRUISE, now)

    def _set_window(self, nbytes: int) -> None:
        if self.phase is Phase.STARTUP and not self._rates:
            self.congestion_window += nbytes
            return
        # Room for bursts that wait for one another: ours, and the receiver's delayed ACKs.
        burst = 3 * min(PACING_BURST, self.bandwidth * PACING_QUANTUM)
        target = CWND_GAIN * self._bdp + burst
        window = float(self.congestion_window + nbytes)
        if self.phase is not Phase.STARTUP:
            window = min(window, target)
        if self.phase is Phase.PROBE_RTT:
            window = min(window, PROBE_RTT_GAIN * self._bdp)
        elif self.phase in (Phase.DOWN, Phase.CRUISE, Phase.DRAIN):
            window = min(window, HEADROOM * self._inflight_high, self._inflight_low)
        else:
            window = min(window, self._inflight_high)
        self.congestion_window = max(int(window), 2 * self.minimum_window)
