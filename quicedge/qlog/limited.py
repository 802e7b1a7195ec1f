"""What held a transfer back, moment by moment.

`Sender` and `Receiver` keep the few facts that decide it. The facts that hold after the last event
of one instant hold until the next instant.
"""

from __future__ import annotations

from typing import Any, Final

from quicedge.qlog.event import Event, integer, text
from quicedge.qlog.series import Sums

HANDSHAKE: Final = "handshake"
CONGESTION: Final = "congestion window"
PACING: Final = "pacing"
FLOW_CONTROL: Final = "flow control"
LOSS_TIMEOUT: Final = "loss timeout"
APPLICATION: Final = "application"
IDLE: Final = "idle"
RECEIVING: Final = "receiving"
PEER_SILENT: Final = "waiting for peer"

MEANINGS: Final = {
    HANDSHAKE: "the handshake is not complete",
    CONGESTION: "data in flight fills the congestion window: the network sets the pace",
    PACING: "packets are spread over the round trip at the rate of the congestion window",
    FLOW_CONTROL: "the receiver grants no more credit: its window or its reader is too slow",
    LOSS_TIMEOUT: "waiting for a probe timeout after silence: tail loss or a dead path",
    APPLICATION: "credit and window left, but nothing more was given to send",
    IDLE: "nothing in flight",
    RECEIVING: "data arrives: the peer and the network set the pace",
    PEER_SILENT: "a stream is open, but nothing arrives",
}

_REASONS: Final = {
    "connection_flow_control": FLOW_CONTROL,
    "stream_flow_control": FLOW_CONTROL,
    "stream_id": FLOW_CONTROL,
    "congestion_control": CONGESTION,
    "pacing": PACING,
    "amplification_protection": HANDSHAKE,
    "application": APPLICATION,
}
"""`BlockedReason` of the drafts: our name."""

_QUIET: Final = 50.0
"""Milliseconds without data, at least twice the smoothed RTT, after which a peer is silent."""
_PACING_SLACK: Final = 1.5
"""Timers are coarse, and a pacer may send several packets at once."""
_MAX_BLOCKED: Final = 1024
"""Blocked streams remembered."""


class Sender:
    """What limits the data that this endpoint sends."""

    def __init__(self) -> None:
        self.handshake = True
        self.in_flight = 0.0
        self.congestion_window: float | None = None
        self.packet_size = 1200
        self.pto_count = 0
        self.max_data: int | None = None
        self.data_sent = 0
        """Sum of the streams' highest offsets."""
        self.blocked_streams: set[int] = set()
        self.smoothed_rtt: float | None = None
        self._told: dict[str, str] = {}
        self._burst_time = 0.0
        self._burst = 0
        self._more = False

    def told(self, event: Event) -> None:
        """A `*_data_blocked_updated` event names the reason itself."""
        key = f"{event.name}{event.data.get('stream_id', '')}"
        if text(event.data, "new") == "blocked":
            reason = _REASONS.get(text(event.data, "reason"))
            if reason is not None and len(self._told) < _MAX_BLOCKED:
                self._told[key] = reason
        else:
            self._told.pop(key, None)

    def stream_blocked(self, stream: int) -> None:
        if len(self.blocked_streams) < _MAX_BLOCKED:
            self.blocked_streams.add(stream)

    def data(self, time: float, size: int, fin: bool) -> None:
        """Stream data left; without `fin` there is more to come on that stream."""
        if time > self._burst_time:
            self._burst_time = time
            self._burst = 0
        self._burst += size
        self._more = not fin

    @property
    def paced_until(self) -> float:
        """Until when a pacer may hold back what follows the last burst: the time that the burst
        takes at a window a round trip (RFC 9002 section 7.7)."""
        if not (self._more and self.congestion_window and self.smoothed_rtt):
            return 0.0
        took = self._burst * self.smoothed_rtt / self.congestion_window
        return self._burst_time + took * _PACING_SLACK

    def spend(self, spent: Sums, since: float, until: float) -> None:
        """Account for the time between two instants with events."""
        state = self.state
        if state == APPLICATION:
            paced = max(since, min(until, self.paced_until))
            spent.spread(since, paced, PACING)
            since = paced
        spent.spread(since, until, state)

    @property
    def state(self) -> str:
        """What holds the sender back, as far as the facts of this instant tell."""
        if self.handshake:
            return HANDSHAKE
        if self.pto_count > 0 and self.in_flight > 0:
            return LOSS_TIMEOUT
        window = self.congestion_window
        if window is not None and self.in_flight + self.packet_size > window:
            return CONGESTION
        if self._told:
            reasons = set(self._told.values())
            for reason in (FLOW_CONTROL, CONGESTION, PACING, HANDSHAKE, APPLICATION):
                if reason in reasons:
                    return reason
        if self.max_data is not None and 0 < self.max_data <= self.data_sent:
            return FLOW_CONTROL
        if self.blocked_streams:
            return FLOW_CONTROL
        return APPLICATION if self.in_flight > 0 else IDLE


class Receiver:
    """What limits the data that this endpoint receives, as far as it can see."""

    def __init__(self) -> None:
        self.handshake = True
        self.open_streams = 0
        self.last_data: float | None = None
        self.smoothed_rtt = 0.0
        self.max_data: int | None = None
        self.data_received = 0
        self.peer_blocked: set[Any] = set()
        """What the peer's DATA_BLOCKED and STREAM_DATA_BLOCKED frames complained of."""

    def complained(self, frame: dict[str, Any]) -> None:
        if len(self.peer_blocked) < _MAX_BLOCKED:
            self.peer_blocked.add(integer(frame, "stream_id"))

    def credited(self, stream: int | None) -> None:
        """We sent MAX_DATA (None) or MAX_STREAM_DATA."""
        self.peer_blocked.discard(stream)

    @property
    def quiet_after(self) -> float:
        """Milliseconds without data after which the peer counts as silent."""
        return max(_QUIET, 2 * self.smoothed_rtt)

    def spend(self, spent: Sums, since: float, until: float) -> None:
        """Account for the time between two instants with events."""
        waiting = PEER_SILENT if self.open_streams > 0 else IDLE
        if self.handshake:
            spent.spread(since, until, HANDSHAKE)
        elif self.peer_blocked or (
            self.max_data is not None and 0 < self.max_data <= self.data_received
        ):
            spent.spread(since, until, FLOW_CONTROL)
        elif self.last_data is None or self.open_streams <= 0:
            spent.spread(since, until, waiting)
        else:
            quiet = max(since, min(until, self.last_data + self.quiet_after))
            spent.spread(since, quiet, RECEIVING)
            spent.spread(quiet, until, waiting)
