"""The interface of congestion controllers (RFC 9002 section 7)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from quicedge.config.limits import INITIAL_WINDOW_PACKETS, MIN_WINDOW_PACKETS

LOSS_REDUCTION_FACTOR = 0.5
"""kLossReductionFactor of RFC 9002 appendix B."""


class CongestionController(ABC):
    """Window in bytes, times in seconds.

    For each ACK, `recovery` calls `on_sample`, then `on_lost` and `on_congestion` for losses it
    reveals, then `on_acked`. The window is reduced at most once per round trip:
    `on_congestion` ignores packets sent before the current recovery period began (RFC 9002 section
    7.3.2). To add a controller, implement `on_acked` and `_reduce`.
    """

    name: ClassVar[str]

    def __init__(self, max_datagram_size: int) -> None:
        self.max_datagram_size = max_datagram_size
        # RFC 9002 section 7.2: ten packets, but not more than 14720 bytes or two packets.
        self.congestion_window = self.initial_window = min(
            INITIAL_WINDOW_PACKETS * max_datagram_size, max(14720, 2 * max_datagram_size)
        )
        self.ssthresh: int | None = None
        self.recovery_start: float | None = None
        self.in_flight = 0
        """Bytes in flight, set by recovery."""
        self.congestion_events = 0

    @property
    def minimum_window(self) -> int:
        return MIN_WINDOW_PACKETS * self.max_datagram_size

    @property
    def in_slow_start(self) -> bool:
        return self.ssthresh is None or self.congestion_window < self.ssthresh

    def in_recovery(self, sent_time: float) -> bool:
        """Whether `sent_time` is before the start of the current recovery period."""
        return self.recovery_start is not None and sent_time <= self.recovery_start

    @abstractmethod
    def on_acked(
        self, nbytes: int, sent_time: float, now: float, smoothed_rtt: float, limited: bool
    ) -> None:
        """`nbytes` in flight were acknowledged, the newest of them sent at `sent_time`.

        `limited`: whether the window was fully used; otherwise it SHOULD NOT be increased (RFC 9002
        section 7.8).
        """

    def on_congestion(self, *, sent_time: float, now: float) -> None:
        """A packet sent at `sent_time` was lost, or was marked CE."""
        if self.in_recovery(sent_time):
            return
        self.recovery_start = now
        self.congestion_events += 1
        self._reduce(now)

    @abstractmethod
    def _reduce(self, now: float) -> None:
        """Shrink the window for one congestion event."""

    def on_persistent_congestion(self) -> None:
        """RFC 9002 section 7.6.2: the window MUST be reduced to the minimum."""
        self.congestion_window = self.minimum_window
        self.recovery_start = None

    @property
    def pacing_rate(self) -> float | None:
        """Pacing rate in bytes per second; None: derived from window and RTT."""
        return None

    def on_lost(self, nbytes: int) -> None:
        """`nbytes` in flight were declared lost; `on_congestion` follows."""
        return

    def on_sample(
        self, rtt: float | None, round_ended: bool, rate: float | None, app_limited: bool
    ) -> None:
        """What an ACK measures, None where it does not: the round-trip time, and whether it ends a
        round, as packets sent since the last one ended are acknowledged; the delivery rate in bytes
        per second, and whether the application limited it."""
        return

    @property
    def state(self) -> str:
        """qlog's congestion state: slow_start, congestion_avoidance or recovery."""
        if self.in_slow_start:
            return "slow_start"
        return "congestion_avoidance"

    def metrics(self) -> dict[str, float | int | str | None]:
        """Metrics for operators."""
        return {
            "congestion_controller": self.name,
            "congestion_state": self.state,
            "congestion_window": self.congestion_window,
            "ssthresh": self.ssthresh,
            "congestion_events": self.congestion_events,
        }
