"""Detection of stalled requests while others wait for their resources.

A stalled client keeps its resources as long as no other client needs them. The deadlines of
`downstream.stream_timeouts` apply always and are far longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from quicedge.config.limits import STALLED_AFTER, STALLED_BYTES
from quicedge.downstream.progress import Progress
from quicedge.downstream.response_account import ResponseAccount
from quicedge.proxy.exchange import Exchange


class Stream(Protocol):
    @property
    def exchange(self) -> Exchange | None: ...


class Session(Protocol):
    """The session whose streams are checked of any protocol."""

    @property
    def progress(self) -> Progress: ...

    @property
    def streams(self) -> Mapping[int, Stream]: ...


class Stalls:
    """Marks the stalled exchanges of one session (`Exchange.set_stalled`).

    Call `check` about once per second while other clients wait, and `forget` when none waits any
    more. Only the client's own inactivity counts: a response that waits because others of the same
    connection are sent first is not stalled as long as the connection makes progress, nor is a
    request that waits for its origin.
    """

    __slots__ = ("_connection", "_streams")

    def __init__(self) -> None:
        self._connection: _Mark | None = None
        self._streams: dict[int, _Mark] = {}

    def check(self, session: Session, now: float) -> None:
        """Check every stream; a stream that is seen for the first time is not stalled yet."""
        delivered = session.progress.delivered
        if self._connection is None:
            self._connection = _Mark(delivered, STALLED_BYTES, now)
        moves = self._connection.moves(delivered, STALLED_BYTES, now)
        marks, self._streams = self._streams, {}
        for stream_id, stream in session.streams.items():
            exchange = stream.exchange
            if exchange is None:
                continue
            amount = session.progress.acknowledged_bytes(stream_id) + exchange.bytes_received
            owed = _owed(session.progress.unacknowledged_bytes(stream_id), exchange)
            mark = marks.get(stream_id) or _Mark(amount, owed, now)
            self._streams[stream_id] = mark
            got_on = mark.moves(amount, owed, now)
            exchange.set_stalled(
                not got_on and _waits_for_client(session, stream_id, exchange, moves)
            )

    def forget(self) -> None:
        """Discard all recorded progress."""
        self._connection = None
        self._streams.clear()


class Holder(Stream, Protocol):
    @property
    def undelivered(self) -> int:
        """Bytes of its response that the client has not taken."""


AnyHolder = TypeVar("AnyHolder", bound=Holder)


def reset_stalled(
    streams: Mapping[int, AnyHolder],
    memory: ResponseAccount,
    abandon: Callable[[AnyHolder], None],
) -> int:
    """Abandon stalled streams, those that hold most first, until the client holds less than its
    share of the memory, which `abandon` settles; returns their number."""
    stalled = [stream for stream in streams.values() if stream.exchange and stream.exchange.stalled]
    stalled.sort(key=lambda stream: stream.undelivered, reverse=True)
    for count, stream in enumerate(stalled):
        if not memory.is_short:
            return count
        abandon(stream)
    return len(stalled)


def _waits_for_client(
    session: Session, stream_id: int, exchange: Exchange, connection_moves: bool
) -> bool:
    """Whether an exchange makes no progress without its client."""
    progress = session.progress
    if progress.unacknowledged_bytes(stream_id):
        return progress.is_flow_blocked(stream_id) or not connection_moves
    return not (
        exchange.request_over
        or exchange.request_paused
        or exchange.response_started
        # One that asks for a tunnel waits for its origin to open it.
        or exchange.tunnel is not None
    )


def _owed(unacknowledged: int, exchange: Exchange) -> int:
    """Bytes that can be expected of the client: to acknowledge, else to send.

    Of a response in small pieces (server-sent events) that is less than `STALLED_BYTES`.
    """
    if unacknowledged:
        return unacknowledged
    return 0 if exchange.request_over else STALLED_BYTES


class _Mark:
    """The time of the last sufficient progress, and the amount that will be sufficient next."""

    __slots__ = ("_at", "_target")

    def __init__(self, amount: int, owed: int, at: float) -> None:
        self._target = amount + min(owed, STALLED_BYTES)
        self._at = at

    def moves(self, amount: int, owed: int, now: float) -> bool:
        """Whether, in the last `STALLED_AFTER` seconds, there was progress by `STALLED_BYTES`, or
        by all that was owed when it was last sufficient."""
        if amount >= self._target:
            self._target = amount + min(owed, STALLED_BYTES)
            self._at = now
        return now - self._at < STALLED_AFTER
