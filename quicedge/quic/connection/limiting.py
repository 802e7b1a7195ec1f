"""Collects the facts that determine what limits the connection, after each transmit.

Only streams that changed since the last transmit are examined, and most calls cost one comparison,
so the cost does not depend on the number of open streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from quicedge.qlog.blocked_time import Limit
from quicedge.quic.blocked_time import LimitClock
from quicedge.quic.connection.recovery import Recovery
from quicedge.quic.connection.stream import Stream
from quicedge.quic.connection.streams import Streams

_UNI = 2
"""Stream ID bit: unidirectional. Such streams of HTTP/3 never end."""


def note_limits(
    clock: LimitClock,
    now: float,
    *,
    handshake: bool,
    recovery: Recovery,
    streams: Streams,
    datagram_size: int,
    paced: bool,
    waiting: bool | None,
) -> None:
    """Update `clock` with the facts that hold from `now` on.

    `waiting`: whether there is data that flow control permits to send; None: not yet known.
    """
    sending, receiving = clock.sending, clock.receiving
    granted = streams.window.announced != receiving.connection.limit
    if not (
        streams.touched
        or granted
        or streams.scheduler.ready
        or streams.is_stream_blocked
        or sending.waiting
        or sending.blocked is not None
        or sending.pto_count
        or recovery.pto_count
        or sending.handshake
        or receiving.handshake
    ):
        return
    sending.handshake = handshake
    changed: Sequence[Stream] = _note_touched(clock, streams) if streams.touched else ()
    sending.pto_count = recovery.pto_count
    sending.in_flight = recovery.bytes_in_flight
    sending.window = recovery.controller.congestion_window
    sending.datagram_size = datagram_size
    sending.paced_until = inf if paced else 0.0
    if waiting is None:
        waiting = streams.next_sendable() is not None
    sending.waiting = waiting
    if waiting:
        sending.blocked = None
    elif streams.is_stream_blocked:
        sending.blocked = Limit.STREAM
    else:
        sending.blocked = Limit.CONNECTION if streams.scheduler.ready else None
    clock.turn(now)
    if changed or granted or receiving.handshake:
        clock.receives(now)
        receiving.handshake = handshake
        _note_receiving(clock, changed, recovery, streams, now)


def _note_touched(clock: LimitClock, streams: Streams) -> list[Stream]:
    """Note what is due on the streams that changed; returns those on which the peer's half did."""
    changed: list[Stream] = []
    answering, incoming = clock.answering, clock.incoming
    for stream_id, stream in streams.take_touched().items():
        if stream_id & _UNI:
            continue
        receive = stream.receive
        received = receive is None or receive.is_finished
        if _owes(stream, streams, received=received):
            answering[stream_id] = None
        else:
            answering.pop(stream_id, None)
        if not received or stream_id in incoming:
            changed.append(stream)
    clock.sending.due = bool(answering)
    return changed


def _note_receiving(
    clock: LimitClock, changed: Sequence[Stream], recovery: Recovery, streams: Streams, now: float
) -> None:
    facts = clock.receiving
    facts.round_trip = recovery.rtt.smoothed
    facts.connection.used = streams.window.used
    facts.granted(now, None, streams.window.announced)
    for stream in changed:
        receive = stream.receive
        if receive is None or receive.is_finished or stream.id not in streams:
            clock.incoming.pop(stream.id, None)
            facts.closed(stream.id)
            continue
        window = receive.window
        if window.used or not streams.is_ours(stream.id) or not _may_send(stream):
            clock.incoming[stream.id] = None
        if window.used:
            facts.data(now, stream.id, window.used, window.announced)
            facts.granted(now, stream.id, window.announced)
    facts.due = len(clock.incoming)


def _owes(stream: Stream, streams: Streams, *, received: bool) -> bool:
    """Whether a message of ours is due on a bidirectional stream: a request of our own, or the
    response to one that is complete or being answered. `received`: the stream is fully received."""
    send = stream.send
    if send is None or not send.is_writable or stream.id not in streams:
        return False
    return received or send.buffer.highest > 0 or streams.is_ours(stream.id)


def _may_send(stream: Stream) -> bool:
    """Whether the application may write to the stream."""
    return stream.send is not None and stream.send.is_writable
