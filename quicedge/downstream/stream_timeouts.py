"""Stream deadlines that only progress extends: slow heads, slow bodies, slow readers.

Packets without content (PING, empty frames) keep a connection alive but extend none of these
(CVE-2022-30591). What counts as progress depends on the content:

- an upload must arrive at `MIN_BODY_RATE`, measured over `body_timeout`;
- in a stream of messages (gRPC, events) any byte counts, and pauses may last `MESSAGE_REST`;
- once the response has begun, the origin's deadlines apply instead;
- a reader must acknowledge `MIN_PROGRESS` bytes per `response_timeout`, or, if that is less, as it
  is with events, all that waited for it when that time began.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from quicedge.config.limits import MESSAGE_REST, MIN_BODY_RATE, MIN_PROGRESS
from quicedge.config.schema import Limits
from quicedge.downstream.progress import Progress
from quicedge.http.errors import H3ErrorCode
from quicedge.proxy.exchange import Exchange
from quicedge.telemetry.outcomes import Outcome


class Stream(Protocol):
    """A request stream."""

    stream_id: int
    exchange: Exchange | None


class Session(Protocol):
    """The session whose streams are timed of any protocol."""

    @property
    def progress(self) -> Progress: ...

    @property
    def streams(self) -> Mapping[int, Stream]: ...

    def unfinished_heads(self) -> list[int]:
        """Streams whose request head is incomplete."""

    def refuse_head(self, stream_id: int, status: int, reason: str) -> None:
        """Answer a request whose head was never completed."""

    def reset(self, stream_id: int, code: int) -> None:
        """Reset our half of a stream."""


class _Mark:
    """The amount and time of the last sufficient progress, and what was left to be taken then."""

    __slots__ = ("amount", "at", "owed")

    def __init__(self, amount: int, at: float) -> None:
        self.amount = amount
        self.at = at
        self.owed = 0
        """Bytes of a response that the client had not taken."""

    def is_late(self, amount: int, now: float, timeout: float, least: int) -> bool:
        if amount >= self.amount + least:
            self.amount = amount
            self.at = now
            return False
        return now - self.at > timeout

    def excuse(self, amount: int, now: float) -> None:
        """Restart the deadline: the client is not to blame for the lack of progress."""
        self.amount = amount
        self.at = now


class StreamTimeouts:
    """The deadlines of one session; call `check` about once per second while it has streams."""

    __slots__ = ("_bodies", "_heads", "_readers")

    def __init__(self) -> None:
        self._heads: dict[int, float] = {}
        self._bodies: dict[int, _Mark] = {}
        self._readers: dict[int, _Mark] = {}

    def check(self, session: Session, limits: Limits, now: float) -> int:
        """End streams that are past a deadline; returns their number."""
        late = self._check_heads(session, limits.header_timeout, now)
        for stream in list(session.streams.values()):
            # An answer to a slow body is not sent yet: its reader cannot be late.
            late += self._check_body(stream, limits.body_timeout, now) or self._check_reader(
                session, stream, limits.response_timeout, now
            )
        for marks in (self._bodies, self._readers):
            for stream_id in marks.keys() - session.streams.keys():
                del marks[stream_id]
        return late

    def _check_heads(self, session: Session, timeout: float, now: float) -> int:
        waiting = session.unfinished_heads()
        self._heads = {stream_id: self._heads.get(stream_id, now) for stream_id in waiting}
        late = [stream_id for stream_id, since in self._heads.items() if now - since > timeout]
        for stream_id in late:
            del self._heads[stream_id]
            session.refuse_head(stream_id, 408, "request head too slow")
        return len(late)

    def _check_body(self, stream: Stream, timeout: float, now: float) -> int:
        exchange = stream.exchange
        if exchange is None or exchange.request_over:
            return 0
        exchange.check_held_head(now)
        got = exchange.bytes_received
        mark = self._bodies.setdefault(stream.stream_id, _Mark(got, now))
        # A tunnel has an idle timeout of its own, and until it is open it waits for its origin.
        if exchange.request_paused or exchange.response_started or exchange.tunnel is not None:
            mark.excuse(got, now)
            return 0
        least = max(int(timeout * MIN_BODY_RATE), 1)
        if exchange.may_pause:
            least, timeout = 1, max(timeout, MESSAGE_REST)
        if mark.is_late(got, now, timeout, least):
            exchange.refuse(408, Outcome.REQUEST_TIMEOUT)
            return 1
        return 0

    def _check_reader(self, session: Session, stream: Stream, timeout: float, now: float) -> int:
        exchange = stream.exchange
        if exchange is None or exchange.is_tunnel:
            return 0
        progress, stream_id = session.progress, stream.stream_id
        taken = progress.acknowledged_bytes(stream_id)
        mark = self._readers.setdefault(stream_id, _Mark(taken, now))
        # While the origin may still write, data in flight is not the client's delay; of a complete
        # response the last byte must be acknowledged.
        waiting = (
            progress.unacknowledged_bytes(stream_id)
            if exchange.response_over
            else progress.unsent_bytes(stream_id)
        )
        if not waiting:
            mark.excuse(taken, now)
        elif mark.is_late(taken, now, timeout, min(mark.owed, MIN_PROGRESS)):
            session.reset(stream_id, H3ErrorCode.REQUEST_CANCELLED)
            exchange.response_timed_out()
            return 1
        if mark.at == now:
            mark.owed = waiting
        return 0
