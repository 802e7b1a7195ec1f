"""Requests whose client neither takes nor sends anything, looked for while others wait.

A stalled client keeps what it holds for as long as nobody else wants it; deadlines of progress
(`downstream.stream_timeouts`) are for everybody and far longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from quicedge.config.limits import STALLED_AFTER, STALLED_BYTES
from quicedge.proxy.exchange import Exchange


class Recovery(Protocol):
    @property
    def delivered(self) -> int:
        """Bytes that the client has acknowledged on all streams."""


class Connection(Protocol):
    """How far the streams of a connection have come (`quic.connection.Connection`)."""

    @property
    def recovery(self) -> Recovery: ...

    def acknowledged_bytes(self, stream_id: int) -> int: ...

    def unacknowledged_bytes(self, stream_id: int) -> int: ...

    def is_flow_blocked(self, stream_id: int) -> bool: ...


class Stream(Protocol):
    @property
    def exchange(self) -> Exchange | None: ...


class Session(Protocol):
    """Whose streams are looked at (`http3.Http3Session`)."""

    @property
    def connection(self) -> Connection: ...

    @property
    def streams(self) -> Mapping[int, Stream]: ...


class Stalls:
    """Marks the exchanges of one session (`Exchange.set_stalled`); `check` it about once a second.

    What counts is what the client does of its own accord: a response that waits because others of
    the same connection are sent first is not stalled as long as the connection gets on, nor is a
    request whose origin has the word.
    """

    __slots__ = ("_connection", "_streams")

    def __init__(self) -> None:
        self._connection: _Mark | None = None
        self._streams: dict[int, _Mark] = {}

    def check(self, session: Session, now: float) -> None:
        """Look at every stream; what was not looked at for a while is not stalled yet."""
        delivered = session.connection.recovery.delivered
        if self._connection is None:
            self._connection = _Mark(delivered, now)
        moves = self._connection.moves(delivered, now)
        marks, self._streams = self._streams, {}
        for stream_id, stream in session.streams.items():
            exchange = stream.exchange
            if exchange is None:
                continue
            mark = self._streams[stream_id] = marks.get(stream_id) or _Mark(0, now)
            got_on = mark.moves(
                session.connection.acknowledged_bytes(stream_id) + exchange.bytes_received, now
            )
            exchange.set_stalled(
                not got_on and _waits_for_client(session, stream_id, exchange, moves)
            )

    def forget(self) -> None:
        """Nobody waits any more: nothing is known of anybody's progress."""
        self._connection = None
        self._streams.clear()


def _waits_for_client(
    session: Session, stream_id: int, exchange: Exchange, connection_moves: bool
) -> bool:
    """Whether only its client could move an exchange on."""
    connection = session.connection
    if connection.unacknowledged_bytes(stream_id):
        return connection.is_flow_blocked(stream_id) or not connection_moves
    return not (exchange.request_over or exchange.request_paused or exchange.response_started)


class _Mark:
    """How far something had come when it had last come far enough."""

    __slots__ = ("_amount", "_at")

    def __init__(self, amount: int, at: float) -> None:
        self._amount = amount
        self._at = at

    def moves(self, amount: int, now: float) -> bool:
        """Whether `STALLED_BYTES` came within the last `STALLED_AFTER` seconds."""
        if amount >= self._amount + STALLED_BYTES:
            self._amount = amount
            self._at = now
        return now - self._at < STALLED_AFTER
