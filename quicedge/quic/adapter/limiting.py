"""What the clock of limits must know of a connection after each turn."""

from __future__ import annotations

from math import inf

from aioquic.quic.stream import QuicStream

from quicedge.qlog.limited import Limit, Receiving, Sending
from quicedge.quic.adapter.returning import ReturningConnection
from quicedge.quic.limited import LimitClock


def note_limits(connection: ReturningConnection, clock: LimitClock, now: float) -> None:
    """Take the facts that hold after a turn, from now on."""
    if not connection.is_alive:
        clock.stop(now)
        return
    sending, receiving = clock.sending, clock.receiving
    sending.handshake = not connection.handshake_complete
    uploads = _note_sending(connection, sending)
    clock.turn(now)
    granted = connection._local_max_data.sent != receiving.connection.limit
    if uploads or granted or receiving.due or receiving.handshake:
        clock.receives(now)
        receiving.handshake = sending.handshake
        _note_receiving(connection, receiving, uploads, now)


def _note_sending(connection: ReturningConnection, facts: Sending) -> list[QuicStream]:
    """Returns the bidirectional streams on which more may come: one walk over all is enough."""
    loss = connection._loss
    facts.pto_count = loss.pto_count
    facts.in_flight = loss.bytes_in_flight
    facts.window = loss.congestion_window
    facts.datagram_size = connection._max_datagram_size
    facts.paced_until = inf if connection._pacing_at is not None else 0.0
    waiting = due = False
    blocked: Limit | None = None
    unfinished = []
    for stream in connection._streams_queue:
        if not stream.receiver.is_finished and not (stream.stream_id or 0) & 2:
            unfinished.append(stream)  # HTTP/3's unidirectional streams never end
        if not due:
            due = _may_send(stream) and _answers(connection, stream)
        sender = stream.sender
        if waiting or sender.buffer_is_empty or stream.is_blocked or not len(sender._pending):
            continue
        if connection._sendable_until(stream) is not None:
            waiting = True
        elif sender._pending[0].start >= stream.max_stream_data_remote:
            blocked = Limit.STREAM
        elif blocked is None:
            blocked = Limit.CONNECTION
    facts.waiting, facts.due, facts.blocked = waiting, due, blocked
    return unfinished


def _note_receiving(
    connection: ReturningConnection, facts: Receiving, unfinished: list[QuicStream], now: float
) -> None:
    facts.round_trip = connection._loss.rtt.smoothed
    limit = connection._local_max_data
    facts.connection.used = limit.used
    facts.granted(now, None, limit.sent)
    due: dict[int, QuicStream] = {}
    for stream in unfinished:
        stream_id = stream.stream_id or 0
        end = stream.receiver.highest_offset
        if end or not _is_local(connection, stream_id) or not _may_send(stream):
            due[stream_id] = stream
        if end:
            facts.data(now, stream_id, end, stream.max_stream_data_local_sent)
            facts.granted(now, stream_id, stream.max_stream_data_local_sent)
    facts.due = len(due)
    if facts.streams > len(due):
        facts.keep(due)


def _is_local(connection: ReturningConnection, stream_id: int) -> bool:
    return bool(stream_id & 1) is not connection._is_client


def _may_send(stream: QuicStream) -> bool:
    """Whether the application may give the stream more to send."""
    sender = stream.sender
    return sender._buffer_fin is None and sender._reset_error_code is None


def _answers(connection: ReturningConnection, stream: QuicStream) -> bool:
    """Whether a message of ours is due on a bidirectional stream: a request of our own, or the
    response to one that is complete or being answered."""
    stream_id = stream.stream_id or 0
    return not stream_id & 2 and (
        _is_local(connection, stream_id)
        or stream.receiver.is_finished
        or stream.sender.highest_offset > 0
    )
