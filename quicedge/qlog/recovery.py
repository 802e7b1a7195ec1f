"""RTT, congestion window and timeouts of a connection over time."""

from __future__ import annotations

from quicedge.qlog.event import Event, integer, number, text
from quicedge.qlog.inferred import Receiver, Sender
from quicedge.qlog.series import Quantiles, Series

_WINDOW_CUT = 0.95
"""A congestion window below this fraction of the previous one counts as a reduction."""
_MAX_STATES = 500
"""Maximum number of congestion state changes kept."""


class Recovery:
    """Recovery data of a trace; what it does not log is inferred from its packets.

    Times are milliseconds, sizes bytes. `sender` and `receiver` are updated with what they need to
    determine what limited the transfer.
    """

    def __init__(self, sender: Sender, receiver: Receiver) -> None:
        self.rtt = Quantiles()
        self.min_rtt: float | None = None
        self.smoothed_rtt: float | None = None
        self.congestion_window: float | None = None
        self.window_cuts = 0
        self.window_min: float | None = None
        self.window_max: float | None = None
        self.max_in_flight = 0.0
        self.max_pto_count = 0
        self.probe_timeouts = 0
        self.congestion_states: list[tuple[float, str]] = []
        self.window_series = Series()
        self.flight_series = Series()
        self.rtt_series = Series()
        self.smoothed_series = Series()
        self.ssthresh_series = Series()
        self.pacing_series = Series()
        self.samples = 0
        """Events with bytes in flight or an RTT."""
        self._sender = sender
        self._receiver = receiver
        self._latest_rtt: float | None = None
        self._pto_count = 0

    def metrics(self, event: Event) -> None:
        """Process a `recovery_metrics_updated` event."""
        data = event.data
        in_flight = number(data, "bytes_in_flight")
        if in_flight is not None:
            self.samples += 1
            self._sender.facts.in_flight = in_flight
            self.in_flight(event.time, in_flight)
        window = number(data, "congestion_window")
        if window is not None:
            self._window(event.time, window)
        latest = number(data, "latest_rtt")
        if latest and latest != self._latest_rtt:
            self._latest_rtt = latest
            self.samples += in_flight is None
            self.round_trip(event.time, latest)
        smoothed = number(data, "smoothed_rtt")
        # Until there is a sample, writers log the initial RTT (RFC 9002 section 6.2.2).
        if smoothed and self.rtt.count:
            self._smoothed(event.time, smoothed)
        least = number(data, "min_rtt")
        if least and self.rtt.count:
            self.min_rtt = least
        ssthresh = number(data, "ssthresh")
        if ssthresh and ssthresh < 2**40:
            self.ssthresh_series.add(event.time, ssthresh)
        pacing = number(data, "pacing_rate")
        if pacing:
            self.pacing_series.add(event.time, pacing)
        count = integer(data, "pto_count")
        if count is not None:
            self.probe_timeouts += max(0, count - self._pto_count)
            self._pto_count = self._sender.facts.pto_count = count
            self._sender.logs_pto = True
            self.max_pto_count = max(self.max_pto_count, count)

    def state(self, event: Event) -> None:
        """Process a `congestion_state_updated` event."""
        if len(self.congestion_states) < _MAX_STATES:
            self.congestion_states.append((event.time, text(event.data, "new")[:64]))

    def in_flight(self, time: float, size: float) -> None:
        """Record the bytes in flight."""
        self.max_in_flight = max(self.max_in_flight, size)
        self.flight_series.add(time, size)

    def round_trip(self, time: float, value: float) -> None:
        """Record an RTT sample."""
        if value <= 0:
            return
        self.rtt.add(value)
        self.rtt_series.add(time, value)
        self.min_rtt = min(self.min_rtt or value, value)
        if not self.samples:
            smoothed = value if self.smoothed_rtt is None else self.smoothed_rtt * 0.875 + value / 8
            self._smoothed(time, smoothed)

    def _smoothed(self, time: float, value: float) -> None:
        self.smoothed_rtt = self._sender.smoothed_rtt = value
        self._receiver.facts.round_trip = value
        self.smoothed_series.add(time, value)

    def _window(self, time: float, window: float) -> None:
        old = self.congestion_window
        if old is not None and window < old * _WINDOW_CUT:
            self.window_cuts += 1
        self.congestion_window = self._sender.facts.window = window
        self.window_min = window if self.window_min is None else min(self.window_min, window)
        self.window_max = window if self.window_max is None else max(self.window_max, window)
        self.window_series.add(time, window)
