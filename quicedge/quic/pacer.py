"""Pacing in bursts (RFC 9002 section 7.7): a token bucket that one GSO call may drain."""

from __future__ import annotations

from quicedge.config.limits import PACE_STEPS, PACING_BURST, PACING_QUANTUM, PACING_QUANTUM_BURST


class Pacer:
    """Bytes that may be sent now, at `rate` bytes per second.

    The bucket holds a quarter of the window, at most one burst, or what the rate makes of one
    quantum when that is more. An empty bucket is worth waiting for until it holds a quantum, so
    that a timer serves many packets.
    """

    __slots__ = ("_capacity", "_level", "_updated", "_window", "datagram_size", "rate", "worth")

    def __init__(self, max_datagram_size: int) -> None:
        self.rate: float | None = None
        """Bytes per second; None, and no pacing, until there is an RTT sample."""
        self.datagram_size = max_datagram_size
        """Size of a full datagram: with fewer bytes in the bucket, nothing is sent."""
        self.worth = 0
        """Bytes of room that data waits for while enough is in flight: fewer are not worth a
        wake-up of their own."""
        self._capacity = float(PACING_BURST)
        self._level = float(PACING_BURST)
        self._updated = 0.0
        self._window = 0

    def set_rate(self, congestion_window: int, smoothed_rtt: float, *, slow_start: bool) -> None:
        """Spread the window over a round trip, slightly faster so that pacing does not limit."""
        # RFC 9002 section 7.7: N = 1.25; slow start doubles the window, so it needs twice that.
        gain = 2.0 if slow_start else 1.25
        rate = gain * congestion_window / (smoothed_rtt if smoothed_rtt > 1e-6 else 1e-6)
        # Each ACK changes both a little; following every change would cost more than it gains.
        old, window = self.rate, self._window
        if (
            old is None
            or not -old <= (rate - old) * PACE_STEPS <= old
            or not -window <= (congestion_window - window) * PACE_STEPS <= window
        ):
            self.pace(rate, congestion_window)

    def pace(self, rate: float, congestion_window: int) -> None:
        """Send at `rate` bytes per second."""
        self.rate = rate
        self._window = congestion_window
        quantum = rate * PACING_QUANTUM
        self._capacity = max(
            2 * self.datagram_size,
            min(PACING_BURST, congestion_window / 4),
            min(PACING_QUANTUM_BURST, quantum),
        )
        self.worth = int(min(PACING_BURST, congestion_window / 2, quantum))

    def budget(self, now: float) -> float:
        """Bytes that may be sent now; if less than a datagram, wait until `next_send_time`."""
        if self.rate is None:
            return float(PACING_BURST)
        if now > self._updated:
            level = self._level + (now - self._updated) * self.rate
            self._level = level if level < self._capacity else self._capacity
            self._updated = now
        return self._level

    def on_sent(self, nbytes: int) -> None:
        """Consume `nbytes`; the last packet may overdraw the bucket."""
        if self.rate is not None:
            self._level -= nbytes

    def next_send_time(self, now: float) -> float | None:
        """When to send next; None: now."""
        if self.rate is None or self.budget(now) >= self.datagram_size:
            return None
        # Then the bucket holds enough to be worth a wake-up.
        worth = max(2 * self.datagram_size, self.rate * PACING_QUANTUM)
        return now + (min(self._capacity, worth) - self._level) / self.rate
