"""What limits a transfer: one definition for live connections and for traces.

`Sending` and `Receiving` hold the facts that determine the limit, seen from one endpoint. The state
after the last event of an instant lasts until the next event, except that pacing and silence end as
time passes; hence `periods`. A live connection knows the facts (`quic.blocked_time`); for a trace
they are taken from events or inferred (`inferred.py`). Times are in any one unit, sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from math import inf
from typing import Final

from quicedge.config.tracelimits import LIMITS_MAX_RAISES, LIMITS_MAX_STREAMS


class Limit(StrEnum):
    """What keeps data from moving; named as in qlog's `BlockedReason` if it is defined there."""

    HANDSHAKE = "handshake"
    LOSS_RECOVERY = "loss_recovery"
    CONGESTION = "congestion_control"
    PACING = "pacing"
    CONNECTION = "connection_flow_control"
    STREAM = "stream_flow_control"
    APPLICATION = "application"
    RECEIVING = "receiving"
    RECEIVE_WINDOW = "receive_window"
    PEER = "peer"
    IDLE = "idle"

    @property
    def label(self) -> str:
        """A human-readable name."""
        return self.value.replace("_", " ")


MEANINGS: Final = {
    Limit.HANDSHAKE: "the handshake is not complete",
    Limit.LOSS_RECOVERY: "probe timeouts expire unanswered: tail loss or a dead path",
    Limit.CONGESTION: "data in flight fills the congestion window: the network sets the pace",
    Limit.PACING: "data waits for the pacer, which spreads a window over the round trip",
    Limit.CONNECTION: "the peer grants no more credit for the connection",
    Limit.STREAM: "the peer grants no more credit for the streams that have data",
    Limit.APPLICATION: "a message is due, but nothing more of it was given to send",
    Limit.RECEIVING: "data arrives: the peer and the network set the pace",
    Limit.RECEIVE_WINDOW: "the peer has used all the credit that this side granted",
    Limit.PEER: "data is due from the peer, but nothing arrives",
    Limit.IDLE: "nothing is due",
}

Period = tuple[Limit, float, float]
"""A limit, and the start and end of its period."""


class Sending:
    """What limits the data that this endpoint sends."""

    __slots__ = (
        "blocked", "datagram_size", "due", "handshake", "in_flight", "paced_until", "pto_count",
        "waiting", "window",
    )  # fmt: skip

    def __init__(self) -> None:
        self.handshake = True
        """The handshake is not complete."""
        self.pto_count = 0
        """Consecutive probe timeouts without an acknowledgement."""
        self.in_flight = 0.0
        self.window: float | None = None
        """The congestion window; None: unknown."""
        self.datagram_size = 1200
        self.waiting: bool | None = None
        """Whether there is data that flow control would allow to send; None: unknown."""
        self.paced_until = 0.0
        """When the pacer allows the next datagram."""
        self.blocked: Limit | None = None
        """The flow control limit that blocks all pending data; None: none does."""
        self.due = False
        """The application has a message to start or to finish."""

    def blocked_by(self, now: float) -> Limit | None:
        """What blocks pending data, other than probe timeouts; None: nothing."""
        if self.waiting is not False:
            window = self.window
            if window is not None and self.in_flight + self.datagram_size > window:
                return Limit.CONGESTION
            if now < self.paced_until:
                return Limit.PACING
            if self.waiting:
                # The anti-amplification limit of an unvalidated path is reached (RFC 9000
                # section 8.1).
                return Limit.CONGESTION
        return self.blocked

    def state(self, now: float) -> Limit:
        """What limits sending at `now`."""
        if self.handshake:
            return Limit.HANDSHAKE
        if self.pto_count and self.in_flight > 0:
            return Limit.LOSS_RECOVERY
        blocked_by = self.blocked if self.waiting is False else self.blocked_by(now)
        if blocked_by is not None:
            return blocked_by
        return Limit.APPLICATION if self.due else Limit.IDLE

    def periods(self, since: float, until: float) -> Iterator[Period]:
        """What limited sending during an interval without events."""
        state = self.state(since)
        if state is Limit.PACING and self.paced_until < until:
            yield state, since, self.paced_until
            since = self.paced_until
            state = self.state(since)
        yield state, since, until


class Credit:
    """The credit known to the peer: a raised limit takes a round trip to take effect."""

    __slots__ = ("_known", "_raises", "limit", "used")

    def __init__(self, limit: int | None = None) -> None:
        self.used = 0
        self.limit = limit
        """The last limit sent; None: unknown."""
        self._known = limit
        self._raises: list[tuple[float, int]] = []

    def raise_to(self, limit: int, shows_at: float) -> None:
        """A higher limit was sent; data it allows can arrive from `shows_at` on."""
        if self.limit is None or limit > self.limit:
            self.limit = limit
            self._raises.append((shows_at, limit))
            del self._raises[:-LIMITS_MAX_RAISES]

    def blocked_until(self, now: float) -> float:
        """Until when the peer is blocked: 0 if it is not, infinity until the next raise."""
        raises = self._raises
        while raises and (raises[0][0] <= now or raises[0][1] <= self.used):
            self._known = raises.pop(0)[1]
        if self._known is None or self.used < self._known:
            return 0.0
        return raises[0][0] if raises else inf


class Receiving:
    """What limits the data that this endpoint receives, as far as it can know."""

    __slots__ = (
        "_streams", "connection", "due", "handshake", "last_data", "quiet_after", "round_trip",
    )  # fmt: skip

    def __init__(self, quiet_after: float) -> None:
        """`quiet_after`: minimum time without data after which the peer counts as silent."""
        self.handshake = True
        self.due = 0
        """Streams on which the peer has more to send."""
        self.last_data: float | None = None
        self.round_trip = 0.0
        self.quiet_after = quiet_after
        self.connection = Credit()
        self._streams: dict[int, Credit] = {}

    def data(self, now: float, stream: int, end: int, limit: int | None) -> None:
        """Stream data up to the offset `end` has arrived; `limit` is the credit of a new stream."""
        credit = self._streams.get(stream)
        if credit is None:
            self.last_data = now
            if len(self._streams) >= LIMITS_MAX_STREAMS:
                return
            credit = self._streams[stream] = Credit(limit)
        if end > credit.used:
            credit.used = end
            self.last_data = now

    def granted(self, now: float, stream: int | None, limit: int) -> None:
        """We sent MAX_DATA (`stream` None) or MAX_STREAM_DATA."""
        credit = self.connection if stream is None else self._streams.get(stream)
        if credit is not None:
            credit.raise_to(limit, now + self.round_trip)

    def closed(self, stream: int) -> None:
        """No more data can arrive on a stream."""
        self._streams.pop(stream, None)

    def blocked_until(self, now: float) -> float:
        """Until when our credit blocks all data of the peer."""
        until = self.connection.blocked_until(now)
        if self._streams and len(self._streams) >= self.due:
            until = max(until, self._all_blocked_until(now))
        return until

    def _all_blocked_until(self, now: float) -> float:
        """Until when stream credit blocks every stream with data."""
        until = inf
        for credit in self._streams.values():
            until = min(until, credit.blocked_until(now))
            if not until:
                break  # one unblocked stream is enough
        return until

    def state(self, now: float) -> Limit:
        """What limits receiving at `now`."""
        return next(self.periods(now, inf))[0]

    def periods(self, since: float, until: float) -> Iterator[Period]:
        """What limited receiving during an interval without events."""
        if self.handshake:
            yield Limit.HANDSHAKE, since, until
            return
        if self.due <= 0:
            yield Limit.IDLE, since, until
            return
        blocked = min(until, self.blocked_until(since))
        if blocked > since:
            yield Limit.RECEIVE_WINDOW, since, blocked
            since = blocked
        if self.last_data is not None:
            quiet = min(until, self.last_data + max(self.quiet_after, 2 * self.round_trip))
            if quiet > since:
                yield Limit.RECEIVING, since, quiet
                since = quiet
        if until > since:
            yield Limit.PEER, since, until
