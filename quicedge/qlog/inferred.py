"""Inference of limits that a trace does not state, from packets, frames and metrics."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any, Final

from quicedge.qlog.blocked_time import Limit, Period, Receiving, Sending
from quicedge.qlog.event import Event, integer, text

_REASONS: Final = {
    "connection_flow_control": Limit.CONNECTION,
    "stream_flow_control": Limit.STREAM,
    "stream_id": Limit.STREAM,
    "congestion_control": Limit.CONGESTION,
    "pacing": Limit.PACING,
    "amplification_protection": Limit.HANDSHAKE,
    "application": Limit.APPLICATION,
}
"""The `BlockedReason` values of the drafts and the limits they stand for."""
_QUIET: Final = 50.0
"""Milliseconds without data after which a peer is silent; at least twice the smoothed RTT."""
_PACING_SLACK: Final = 1.5
"""Timers are coarse, and a pacer may send several packets at once."""
_MAX_ACK_DELAY: Final = 25.0
"""The default in milliseconds (RFC 9000 section 18.2)."""
_MAX_BLOCKED: Final = 1024
"""Maximum number of blocked streams kept."""


class Sender:
    """Infers what limits the data that this endpoint sends."""

    def __init__(self) -> None:
        self.facts = Sending()
        self.max_data: int | None = None
        self.data_sent = 0
        """Sum of the streams' highest offsets."""
        self.blocked_streams: set[int] = set()
        self.smoothed_rtt: float | None = None
        self.logs_pto = False
        """Whether the trace logs probe timeouts; otherwise they are inferred from silence."""
        self._unanswered: float | None = None
        """When the newest unacknowledged packet was sent."""
        self._answered = False
        """The trace contains acknowledgements, which it does not without frames."""
        self._told: dict[str, Limit] = {}
        self._tells = False
        """Whether the trace itself states when the window or the pacer blocks data."""
        self._burst_time = 0.0
        self._burst = 0
        self._more = False

    def reason_logged(self, event: Event) -> None:
        """Process a `*_data_blocked_updated` event, which states the reason."""
        key = f"{event.name}{event.data.get('stream_id', '')}"
        if text(event.data, "new") == "blocked":
            reason = _REASONS.get(text(event.data, "reason"))
            if reason is not None and (key in self._told or len(self._told) < _MAX_BLOCKED):
                self._told[key] = reason
                self._tells = self._tells or reason in (Limit.CONGESTION, Limit.PACING)
        else:
            self._told.pop(key, None)

    def stream_blocked(self, stream: int) -> None:
        if len(self.blocked_streams) < _MAX_BLOCKED:
            self.blocked_streams.add(stream)

    def data(self, time: float, size: int, fin: bool) -> None:
        """Stream data was sent; without `fin` the stream continues."""
        if time > self._burst_time:
            self._burst_time = time
            self._burst = 0
        self._burst += size
        self._more = not fin

    def sent(self, time: float) -> None:
        """An ack-eliciting packet was sent."""
        if not self.facts.pto_count:
            self._unanswered = time

    def acknowledged(self, time: float, outstanding: int) -> None:
        """Packets were acknowledged; `outstanding` bytes are still unacknowledged."""
        self._unanswered = time if outstanding > 0 else None
        self._answered = True
        if not self.logs_pto:
            self.facts.pto_count = 0

    def periods(self, since: float, until: float) -> Iterator[Period]:
        """What limited sending during an interval without events."""
        expires = self._probe_timeout
        if expires is not None and expires < until:
            if since < expires:
                yield from self._facts_hold(since, expires)
                since = expires
            self.facts.pto_count = 1
        yield from self._facts_hold(since, until)

    @property
    def _probe_timeout(self) -> float | None:
        """When an unlogged probe timeout would expire (RFC 9002 section 6.2.1, with the variance of
        a first sample)."""
        if self.logs_pto or not self._answered or self.facts.in_flight <= 0:
            return None
        if self._unanswered is None or not self.smoothed_rtt:
            return None
        return self._unanswered + 3 * self.smoothed_rtt + _MAX_ACK_DELAY

    def _facts_hold(self, since: float, until: float) -> Iterator[Period]:
        facts = self.facts
        reasons = set(self._told.values())
        held = bool(reasons & {Limit.CONGESTION, Limit.PACING})
        facts.waiting = held if self._tells else None
        facts.paced_until = inf if Limit.PACING in reasons else 0.0
        facts.blocked = self._blocked(reasons)
        if not reasons and not self._tells and facts.blocked is None:
            facts.paced_until = self._paced_until
        return facts.periods(since, until)

    def _blocked(self, reasons: set[Limit]) -> Limit | None:
        for reason in (Limit.STREAM, Limit.CONNECTION, Limit.HANDSHAKE, Limit.APPLICATION):
            if reason in reasons:
                return reason
        if self.max_data is not None and 0 < self.max_data <= self.data_sent:
            return Limit.CONNECTION
        return Limit.STREAM if self.blocked_streams else None

    @property
    def _paced_until(self) -> float:
        """Until when a pacer may delay data after the last burst: the duration of the burst at one
        window per round trip (RFC 9002 section 7.7)."""
        if not (self._more and self.facts.in_flight and self.facts.window and self.smoothed_rtt):
            return 0.0
        took = self._burst * self.smoothed_rtt / self.facts.window
        return self._burst_time + took * _PACING_SLACK


class Receiver:
    """Infers what limits the data that this endpoint receives."""

    def __init__(self) -> None:
        self.facts = Receiving(_QUIET)
        self._complaints: set[Any] = set()
        """Limits reported by DATA_BLOCKED (None) and STREAM_DATA_BLOCKED frames of the peer."""

    def complained(self, frame: dict[str, Any]) -> None:
        if len(self._complaints) < _MAX_BLOCKED:
            self._complaints.add(integer(frame, "stream_id"))

    def granted(self, now: float, stream: int | None, limit: int) -> None:
        """We sent MAX_DATA (None) or MAX_STREAM_DATA."""
        self._complaints.discard(stream)
        self.facts.granted(now, stream, limit)

    def closed(self, stream: int) -> None:
        """No more data can arrive on a stream."""
        self._complaints.discard(stream)
        self.facts.closed(stream)

    def periods(self, since: float, until: float) -> Iterator[Period]:
        """What limited receiving during an interval without events."""
        for state, start, end in self.facts.periods(since, until):
            complained = self._complaints and state in (Limit.RECEIVING, Limit.PEER)
            yield Limit.RECEIVE_WINDOW if complained else state, start, end
