"""What the clock of limits must know of a connection after each turn."""

from __future__ import annotations

from math import inf

from aioquic.quic.stream import QuicStream

from quicedge.qlog.limited import Limit, Sending
from quicedge.quic.adapter.returning import ReturningConnection
from quicedge.quic.limited import LimitClock


def note_limits(connection: ReturningConnection, clock: LimitClock, now: float) -> None:
    """Take the facts that hold after a turn, from now on."""
    if not connection.is_alive:
        clock.stop(now)
        return
    if _nothing_changed(connection, clock):
        return
    sending, receiving = clock.sending, clock.receiving
    sending.handshake = not connection.handshake_complete
    changed = _note_streams(connection, clock)
    _note_sending(connection, sending)
    sending.due = bool(clock.answering)
    clock.turn(now)
    granted = connection._local_max_data.sent != receiving.connection.limit
    if changed or granted or receiving.handshake:
        clock.receives(now)
        receiving.handshake = sending.handshake
        _note_receiving(connection, clock, changed, now)


def _nothing_changed(connection: ReturningConnection, clock: LimitClock) -> bool:
    """Whether no stream has anything to tell and all else is as most turns leave it."""
    sending, receiving = clock.sending, clock.receiving
    streams = connection._streams
    return not (
        streams.active
        or streams.touched
        or sending.waiting
        or sending.blocked is not None
        or sending.pto_count
        or connection._loss.pto_count
        or sending.handshake
        or receiving.handshake
        or connection._local_max_data.sent != receiving.connection.limit
    )


def _note_streams(connection: ReturningConnection, clock: LimitClock) -> list[int]:
    """Look at the streams that something happened to since the last turn, and at no others.

    Returns those of which the facts of receiving have changed.
    """
    streams = connection._streams
    # What is active may have sent its first bytes.
    for stream_id in (*streams.touched, *streams.active):
        stream = streams.get(stream_id)
        if stream is not None and _may_send(stream) and _answers(connection, stream):
            clock.answering[stream_id] = None
        else:
            clock.answering.pop(stream_id, None)
    changed = [
        stream_id
        for stream_id in streams.touched
        if not stream_id & 2  # HTTP/3's unidirectional streams never end
        and (stream_id in clock.incoming or not _is_received(streams.get(stream_id)))
    ]
    streams.touched.clear()
    return changed


def _note_receiving(
    connection: ReturningConnection, clock: LimitClock, changed: list[int], now: float
) -> None:
    facts = clock.receiving
    facts.round_trip = connection._loss.rtt.smoothed
    limit = connection._local_max_data
    facts.connection.used = limit.used
    facts.granted(now, None, limit.sent)
    for stream_id in changed:
        stream = connection._streams.get(stream_id)
        if stream is None or _is_received(stream):
            clock.incoming.pop(stream_id, None)
            facts.closed(stream_id)
            continue
        end = stream.receiver.highest_offset
        if end or not _is_local(connection, stream_id) or not _may_send(stream):
            clock.incoming[stream_id] = None
        if end:
            facts.data(now, stream_id, end, stream.max_stream_data_local_sent)
            facts.granted(now, stream_id, stream.max_stream_data_local_sent)
    facts.due = len(clock.incoming)


def _note_sending(connection: ReturningConnection, facts: Sending) -> None:
    loss = connection._loss
    facts.pto_count = loss.pto_count
    facts.in_flight = loss.bytes_in_flight
    facts.window = loss.congestion_window
    facts.datagram_size = connection._max_datagram_size
    facts.paced_until = inf if connection._pacing_at is not None else 0.0
    facts.waiting, facts.blocked = False, None
    streams = connection._streams
    for stream_id in streams.active:
        stream = streams.get(stream_id)
        if stream is None or stream.is_blocked or stream.sender.buffer_is_empty:
            continue
        sender = stream.sender
        if not len(sender._pending):
            continue
        if connection._sendable_until(stream) is not None:
            facts.waiting = True
            return
        if sender._pending[0].start >= stream.max_stream_data_remote:
            facts.blocked = Limit.STREAM
        elif facts.blocked is None:
            facts.blocked = Limit.CONNECTION


def _is_received(stream: QuicStream | None) -> bool:
    """Whether nothing more can come on the stream."""
    return stream is None or stream.receiver.is_finished


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
