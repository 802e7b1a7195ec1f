"""All streams of a connection: opening, flow control, scheduling, and removal once finished.

`receive_*` process frames of the peer and raise TransportError on violations. The packer uses
`has_frames` and `write_frames` for control frames, `next_sendable` and then `write_data`,
`take_frame` or `sent` for data. The application calls `write`, `reset`, `stop`, `consume` and
`prioritize`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from quicedge.config.limits import BYTES_PER_GAP
from quicedge.quic.connection.assembler import GapBudget, TooManyGaps
from quicedge.quic.connection.draft import Draft
from quicedge.quic.connection.events import EventQueue
from quicedge.quic.connection.flow_control import ReceiveWindow, StreamCount
from quicedge.quic.connection.stream import FinalSizeError, ReceiveHalf, SendHalf, Stream
from quicedge.quic.ending import Delivery
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.events import StopSendingReceived, StreamReset
from quicedge.quic.frames import (
    STREAM_FIN,
    STREAM_LENGTH,
    STREAM_OFFSET,
    DataBlocked,
    FrameType,
    MaxData,
    MaxStreamData,
    MaxStreamsBidi,
    MaxStreamsUni,
    ResetStream,
    StopSending,
    StreamDataBlocked,
    StreamsBlockedBidi,
    StreamsBlockedUni,
    stream_head,
)
from quicedge.shares.rank import rank_of
from quicedge.shares.scheduler import Scheduler

_STREAM_KINDS = {
    (has_offset, fin): bytes((
        FrameType.STREAM | STREAM_LENGTH | STREAM_OFFSET * has_offset | STREAM_FIN * fin,
    ))
    for has_offset in (False, True)
    for fin in (False, True)
}  # fmt: skip
"""The types of STREAM frames with a length, by whether they have an offset and the end."""

_UNI = 2
"""Bit of a stream ID: unidirectional. Bit 1: initiated by the server (RFC 9000 section 2.1)."""


class Streams:
    """Open streams by ID; any other stream is finished or not open yet.

    Invariants: a stream is in the scheduler or in `_flow_blocked`, never both; open streams of the
    peer are bounded by the announced limits. Nothing can be sent before `apply_limits` with the
    peer's parameters, or with remembered ones for 0-RTT.
    """

    __slots__ = (
        "_awaited", "_blocked", "_blocked_due", "_counts_lost", "_credited", "_data_blocked_at",
        "_data_blocked_due", "_events", "_flow_blocked", "_gaps", "_is_client",
        "_limit_bidi_ours", "_limit_bidi_theirs", "_limit_uni", "_next_bidi", "_next_uni",
        "_open", "_ours", "_signals", "_stalled", "_stream_window", "_window_lost",
        "_written", "bytes_resent", "max_bidi", "max_uni", "peer_bidi", "peer_uni", "scheduler",
        "send_limit", "send_used", "touched", "window",
    )  # fmt: skip

    def __init__(
        self,
        *,
        is_client: bool,
        events: EventQueue,
        stream_window: int,
        connection_window: int,
        max_bidi: int,
        max_uni: int,
    ) -> None:
        self._is_client = is_client
        self._ours = 0 if is_client else 1
        self._events = events
        self._stream_window = stream_window
        self._open: dict[int, Stream] = {}
        self.window = ReceiveWindow(connection_window)
        self._gaps = GapBudget(connection_window // BYTES_PER_GAP)
        self.peer_bidi = StreamCount(max_bidi)
        self.peer_uni = StreamCount(max_uni)
        # limits of the peer
        self.send_limit = 0
        """Bytes on all streams (MAX_DATA)."""
        self.send_used = 0
        self.max_bidi = 0
        self.max_uni = 0
        self._limit_bidi_ours = 0
        self._limit_bidi_theirs = 0
        self._limit_uni = 0
        # local streams
        self._next_bidi = self._ours
        self._next_uni = self._ours | _UNI
        self._blocked: list[Stream] = []
        """Local streams beyond the peer's stream limit."""
        self._blocked_due = [False, False]
        """Whether STREAMS_BLOCKED is due, bidirectional and unidirectional."""
        # pending output
        self.scheduler: Scheduler[Stream] = Scheduler()
        self._flow_blocked: dict[int, Stream] = {}
        """Streams blocked by their flow-control limit."""
        self._stalled: dict[int, Stream] = {}
        """Streams with STREAM_DATA_BLOCKED due."""
        self._data_blocked_at = -1
        """The connection limit that DATA_BLOCKED last reported."""
        self._data_blocked_due = False
        self._credited: dict[int, Stream] = {}
        """Streams with MAX_STREAM_DATA due."""
        self._signals: dict[int, Stream] = {}
        """Streams with RESET_STREAM or STOP_SENDING due."""
        self._window_lost = False
        self._counts_lost = [False, False]
        self._awaited: dict[int, tuple[int, bool]] = {}
        """Priorities of streams that are not open yet."""
        self.touched: dict[int, Stream] = {}
        """Streams that changed since the last `take_touched`."""
        self.bytes_resent = 0
        self._written = 0
        """Bytes written to streams, without those discarded unsent by a reset."""

    # --- limits of the peer ---------------------------------------------------------------------

    def apply_limits(
        self,
        *,
        max_data: int,
        bidi_local: int,
        bidi_remote: int,
        uni: int,
        max_bidi: int,
        max_uni: int,
    ) -> None:
        """Apply the peer's transport parameters; limits only grow (RFC 9000 section 7.4.1)."""
        self.receive_max_data(MaxData(max_data))
        # "Local" refers to the sender of the parameters: streams that the peer opens.
        self._limit_bidi_theirs = max(self._limit_bidi_theirs, bidi_local)
        self._limit_bidi_ours = max(self._limit_bidi_ours, bidi_remote)
        self._limit_uni = max(self._limit_uni, uni)
        for stream in self._open.values():
            if stream.send is not None and self.is_ours(stream.id):
                limit = self._limit_uni if stream.id & _UNI else self._limit_bidi_ours
                if limit > stream.send.limit:
                    stream.send.limit = limit
                    self._flow_blocked.pop(stream.id, None)
                    self._stalled.pop(stream.id, None)
                self._schedule(stream)
        self._allow(max_bidi, uni=False)
        self._allow(max_uni, uni=True)

    def _allow(self, count: int, *, uni: bool) -> None:
        if uni:
            self.max_uni = max(self.max_uni, count)
        else:
            self.max_bidi = max(self.max_bidi, count)
        still = []
        for stream in self._blocked:
            if self._is_within(stream.id):
                stream.blocked = False
                self._schedule(stream)
                self._signal(stream)
            else:
                still.append(stream)
        self._blocked = still

    def _is_within(self, stream_id: int) -> bool:
        return stream_id >> 2 < (self.max_uni if stream_id & _UNI else self.max_bidi)

    def is_ours(self, stream_id: int) -> bool:
        """Whether the stream ID is initiated by this endpoint."""
        return stream_id & 1 == self._ours

    # --- receiving ------------------------------------------------------------------------------

    def receive_stream(
        self, stream_id: int, offset: int, data: bytes, fin: bool, kind: int
    ) -> None:
        """Process a STREAM frame, or several of consecutive bytes; `kind` is the (last) type."""
        stream = self._open.get(stream_id) or self._find(stream_id, kind, receiving=True)
        if stream is None:
            return
        receive = stream.receive
        if receive is None:
            self._refuse(kind, ErrorCode.STREAM_STATE_ERROR, "Stream is send-only")
        self.touched[stream_id] = stream
        end = offset + len(data)
        window = receive.window
        fresh = end - window.used
        if fresh > 0:
            self._check_credit(window, end, kind)
        if fin or receive.final_size is not None:
            try:
                receive.check_end(end, fin)
            except FinalSizeError as error:
                self._refuse(kind, ErrorCode.FINAL_SIZE_ERROR, str(error))
        if fresh > 0:
            self.window.used += fresh
            window.used = end
        if receive.is_finished:
            return
        try:
            ready = receive.assembler.insert(offset, data)
        except TooManyGaps:
            self._refuse(kind, ErrorCode.PROTOCOL_VIOLATION, "Too many gaps in stream data")
        finished = receive.assembler.start == receive.final_size
        if ready or finished:
            self._events.stream_data(stream_id, ready, finished)
        if finished:
            receive.is_finished = True
            self._credited.pop(stream_id, None)
            self._remove_if_finished(stream)

    def _check_credit(self, window: ReceiveWindow, end: int, kind: int) -> None:
        """Check the new highest offset of a stream against both flow-control limits."""
        if end > window.announced:
            self._refuse(kind, ErrorCode.FLOW_CONTROL_ERROR, "Over stream data limit")
        if self.window.used + end - window.used > self.window.announced:
            self._refuse(kind, ErrorCode.FLOW_CONTROL_ERROR, "Over connection data limit")

    def receive_reset(self, frame: ResetStream) -> None:
        kind = FrameType.RESET_STREAM
        stream = self._find(frame.stream_id, kind, receiving=True)
        if stream is None or stream.receive is None:
            return
        self.touched[stream.id] = stream
        receive = stream.receive
        window = receive.window
        if frame.final_size > window.used:
            self._check_credit(window, frame.final_size, kind)
        try:
            receive.check_reset(frame.final_size)
        except FinalSizeError as error:
            self._refuse(kind, ErrorCode.FINAL_SIZE_ERROR, str(error))
        if frame.final_size > window.used:
            self.window.used += frame.final_size - window.used
            window.used = frame.final_size
        if receive.is_finished:
            return
        receive.final_size = frame.final_size
        receive.is_finished = True
        # Undelivered bytes will never be consumed: return their connection credit.
        self.window.granted += window.used - receive.assembler.start
        receive.assembler.clear()
        self._credited.pop(stream.id, None)
        self._events.append(StreamReset(error_code=frame.error_code, stream_id=stream.id))
        self._remove_if_finished(stream)

    def receive_stop_sending(self, frame: StopSending) -> None:
        stream = self._find(frame.stream_id, FrameType.STOP_SENDING, receiving=False)
        if stream is None or stream.send is None:
            return
        # RFC 9000 section 3.5: an endpoint SHOULD copy the error code.
        self._reset(stream, stream.send, frame.error_code)
        self._events.append(
            StopSendingReceived(error_code=frame.error_code, stream_id=frame.stream_id)
        )

    def receive_max_data(self, frame: MaxData) -> None:
        if frame.maximum > self.send_limit:
            self.send_limit = frame.maximum
            self._data_blocked_due = False

    def receive_max_stream_data(self, frame: MaxStreamData) -> None:
        stream = self._find(frame.stream_id, FrameType.MAX_STREAM_DATA, receiving=False)
        if stream is None or stream.send is None or frame.maximum <= stream.send.limit:
            return
        stream.send.limit = frame.maximum
        self._stalled.pop(stream.id, None)
        if self._flow_blocked.pop(stream.id, None) is not None:
            self._schedule(stream)

    def receive_max_streams_bidi(self, frame: MaxStreamsBidi) -> None:
        self._allow(frame.maximum, uni=False)

    def receive_max_streams_uni(self, frame: MaxStreamsUni) -> None:
        self._allow(frame.maximum, uni=True)

    def receive_stream_data_blocked(self, frame: StreamDataBlocked) -> None:
        self._find(frame.stream_id, FrameType.STREAM_DATA_BLOCKED, receiving=True)

    def _find(self, stream_id: int, kind: int, *, receiving: bool) -> Stream | None:
        """The stream of a frame, opened if necessary; None if it is finished."""
        ours = self.is_ours(stream_id)
        if stream_id & _UNI and ours is receiving:
            reason = "Stream is send-only" if receiving else "Stream is receive-only"
            self._refuse(kind, ErrorCode.STREAM_STATE_ERROR, reason)
        stream = self._open.get(stream_id)
        if stream is not None:
            return stream
        if ours:
            if stream_id < (self._next_uni if stream_id & _UNI else self._next_bidi):
                return None
            self._refuse(kind, ErrorCode.STREAM_STATE_ERROR, "Stream is not open")
        count = self.peer_uni if stream_id & _UNI else self.peer_bidi
        index = stream_id >> 2
        if index < count.opened:
            return None
        if index >= count.announced:
            self._refuse(kind, ErrorCode.STREAM_LIMIT_ERROR, "Too many streams open")
        # RFC 9000 section 2.1: it opens all lower-numbered streams of its kind.
        for number in range(count.opened, index + 1):
            stream = self._open_theirs(number << 2 | stream_id & 3)
        count.opened = index + 1
        return stream

    def _open_theirs(self, stream_id: int) -> Stream:
        send = None if stream_id & _UNI else SendHalf(self._limit_bidi_theirs)
        stream = self._open[stream_id] = Stream(
            stream_id, ReceiveHalf(self._stream_window, self._gaps), send
        )
        self.touched[stream_id] = stream
        priority = self._awaited.pop(stream_id, None)
        if priority is not None:
            stream.rank = rank_of(stream_id, *priority)
            stream.prioritized = True
        return stream

    @staticmethod
    def _refuse(kind: int, code: ErrorCode, reason: str) -> NoReturn:
        raise TransportError(code, kind, reason)

    # --- application calls ----------------------------------------------------------------------

    def next_id(self, *, unidirectional: bool) -> int:
        """The ID of the next local stream."""
        return self._next_uni if unidirectional else self._next_bidi

    def write(self, stream_id: int, data: bytes, end: bool) -> None:
        """Write data; raises ValueError if the stream cannot send."""
        stream = self._open.get(stream_id)
        if stream is None or stream.send is None:
            stream = self._for_sending(stream_id)
        send = stream.send
        assert send is not None
        if send.reset_code is not None:
            return
        send.buffer.write(data, end)
        self._written += len(data)
        self.touched[stream_id] = stream
        if not stream.scheduled:
            self._schedule(stream)

    def reset(self, stream_id: int, error_code: int) -> None:
        """Reset the sending half; no effect if it is finished."""
        if self._is_closed(stream_id):
            return
        stream = self._for_sending(stream_id)
        assert stream.send is not None
        self._reset(stream, stream.send, error_code)

    def stop(self, stream_id: int, error_code: int) -> None:
        """Send STOP_SENDING; raises ValueError if there is no receiving half."""
        stream = self._open.get(stream_id)
        if stream is None or stream.receive is None:
            raise ValueError("cannot stop receiving on this stream")
        stream.receive.stop_code = error_code
        stream.receive.stop_pending = True
        self._signal(stream)

    def consume(self, stream_id: int, nbytes: int) -> None:
        """Return flow-control credit for bytes that the application has consumed."""
        self.window.granted += nbytes
        stream = self._open.get(stream_id)
        if stream is None or stream.receive is None or stream.receive.is_finished:
            return
        window = stream.receive.window
        window.granted += nbytes
        if window.is_due:
            self._credited[stream_id] = stream

    def prioritize(self, stream_id: int, urgency: int, incremental: bool) -> None:
        """Set the priority of a peer-initiated stream (RFC 9218).

        A priority for a stream that is not open yet is kept if the stream is within the stream
        limit; RFC 9218 section 7 permits discarding others.
        """
        stream = self._open.get(stream_id)
        if stream is not None:
            stream.prioritized = True
            self.scheduler.rerank(stream, rank_of(stream_id, urgency, incremental))
        elif stream_id & 3 == self._ours ^ 1 and (
            self.peer_bidi.opened <= stream_id >> 2 < self.peer_bidi.granted
        ):
            self._awaited[stream_id] = urgency, incremental

    def is_prioritized(self, stream_id: int) -> bool:
        """Whether `prioritize` was called for the stream."""
        stream = self._open.get(stream_id)
        if stream is None:
            return stream_id in self._awaited
        return stream.prioritized

    def _for_sending(self, stream_id: int) -> Stream:
        stream = self._open.get(stream_id)
        if stream is not None:
            if stream.send is None:
                raise ValueError("stream is receive-only")
            return stream
        if not self.is_ours(stream_id) or self._is_closed(stream_id):
            raise ValueError("stream is not open")
        uni = bool(stream_id & _UNI)
        limit = self._limit_uni if uni else self._limit_bidi_ours
        receive = None if uni else ReceiveHalf(self._stream_window, self._gaps)
        stream = self._open[stream_id] = Stream(stream_id, receive, SendHalf(limit))
        if uni:
            self._next_uni = stream_id + 4
        else:
            self._next_bidi = stream_id + 4
        if not self._is_within(stream_id):
            stream.blocked = True
            self._blocked.append(stream)
            self._blocked_due[uni] = True
        return stream

    def _is_closed(self, stream_id: int) -> bool:
        if stream_id in self._open:
            return False
        if self.is_ours(stream_id):
            return stream_id < (self._next_uni if stream_id & _UNI else self._next_bidi)
        count = self.peer_uni if stream_id & _UNI else self.peer_bidi
        return stream_id >> 2 < count.opened

    def _reset(self, stream: Stream, send: SendHalf, error_code: int) -> None:
        if send.is_finished or send.reset_code is not None:
            return
        self.touched[stream.id] = stream
        self._written -= send.buffer.unsent
        send.reset_code = error_code
        send.reset_pending = True
        send.buffer.discard()
        self.scheduler.remove(stream)
        self._flow_blocked.pop(stream.id, None)
        self._stalled.pop(stream.id, None)
        self._signal(stream)

    def _signal(self, stream: Stream) -> None:
        """Queue pending RESET_STREAM and STOP_SENDING unless the stream limit blocks the stream."""
        if not stream.blocked:
            self._signals[stream.id] = stream

    # --- accessors ------------------------------------------------------------------------------

    def get(self, stream_id: int) -> Stream | None:
        return self._open.get(stream_id)

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._open

    @property
    def send_credit(self) -> int:
        """Our connection flow-control credit, in bytes."""
        return self.send_limit - self.send_used

    @property
    def receive_credit(self) -> int:
        """Connection flow-control credit of the peer, in bytes."""
        return self.window.granted - self.window.used

    @property
    def bytes_total(self) -> int:
        """Stream bytes in both directions, without retransmissions."""
        return self.window.used + self.send_used

    @property
    def mostly_receives(self) -> bool:
        """Whether more stream data was received than sent."""
        return self.window.used > self.send_used

    def can_send(self, stream_id: int) -> bool:
        """Whether data written to the stream would still be sent."""
        stream = self._open.get(stream_id)
        send = stream.send if stream is not None else None
        return (
            send is not None
            and not send.is_finished
            and send.reset_code is None
            and send.buffer.fin_offset is None
        )

    def can_reset(self, stream_id: int) -> bool:
        """Whether a reset would still have an effect."""
        return self.delivery(stream_id) not in (Delivery.DELIVERED, Delivery.RESET)

    def can_receive(self, stream_id: int) -> bool:
        """Whether more data of the stream may arrive."""
        stream = self._open.get(stream_id)
        receive = stream.receive if stream is not None else None
        return receive is not None and not receive.is_finished

    def unsent(self, stream_id: int) -> int:
        """Bytes written to a stream and not yet sent."""
        stream = self._open.get(stream_id)
        if stream is None or stream.send is None or stream.send.reset_code is not None:
            return 0
        return stream.send.buffer.unsent

    @property
    def unsent_total(self) -> int:
        """Bytes written to all streams and not yet sent."""
        return self._written - self.send_used

    @property
    def held(self) -> int:
        """Bytes buffered behind gaps."""
        return sum(
            stream.receive.assembler.held
            for stream in self._open.values()
            if stream.receive is not None
        )

    def without_beginning(self) -> list[int]:
        """Peer-initiated bidirectional streams with data but without their first byte."""
        return [
            stream.id
            for stream in self._open.values()
            if (half := stream.receive) is not None
            and half.window.used
            and not half.assembler.start
            and half.stop_code is None
            and not (stream.id & _UNI or self.is_ours(stream.id))
        ]

    @property
    def peer_bidi_open(self) -> int:
        """Peer-initiated bidirectional streams that are open."""
        theirs = self._ours ^ 1
        return sum(stream_id & 3 == theirs for stream_id in self._open)

    def unacknowledged(self, stream_id: int) -> int:
        """Bytes written to a stream from the first unacknowledged one on, sent or not."""
        stream = self._open.get(stream_id)
        if stream is None or stream.send is None:
            return 0
        return stream.send.buffer.end - stream.send.buffer.base

    def acknowledged(self, stream_id: int) -> int:
        """Length of the acknowledged prefix of a stream, in bytes."""
        stream = self._open.get(stream_id)
        return stream.send.buffer.base if stream is not None and stream.send is not None else 0

    def delivery(self, stream_id: int) -> Delivery:
        """Delivery state of the sending half; closed streams count as delivered."""
        stream = self._open.get(stream_id)
        send = stream.send if stream is not None else None
        if send is None:
            return Delivery.DELIVERED
        if send.reset_code is not None:
            return Delivery.RESET
        if send.is_finished:
            return Delivery.DELIVERED
        if send.buffer.fin_offset is None:
            return Delivery.OPEN
        return Delivery.QUEUED if send.buffer.has_pending else Delivery.IN_FLIGHT

    def delivered(self, stream_ids: Iterable[int]) -> list[int]:
        """The streams whose `delivery` is DELIVERED; cheap enough to call after each ACK."""
        known = self._open
        found = []
        for stream_id in stream_ids:
            stream = known.get(stream_id)
            send = stream.send if stream is not None else None
            if send is None or (send.is_finished and send.reset_code is None):
                found.append(stream_id)
        return found

    def is_flow_blocked(self, stream_id: int) -> bool:
        """Whether the peer's stream or connection flow-control limit blocks the stream."""
        stream = self._open.get(stream_id)
        return (
            stream is not None
            and stream.send is not None
            and (
                stream.send.buffer.highest >= stream.send.limit or self.send_used >= self.send_limit
            )
        )

    def take_touched(self) -> dict[int, Stream]:
        """Streams that changed since the last call."""
        touched, self.touched = self.touched, {}
        return touched

    @property
    def responses_delivered(self) -> bool:
        """Whether everything sent on peer-initiated bidirectional streams is acknowledged.

        A stream on which nothing was received was opened by one with a higher number (RFC 9000
        section 2.1): it owes no response.
        """
        theirs = self._ours ^ 1
        return all(
            stream.send is None
            or stream.send.is_finished
            or (stream.receive is not None and stream.receive.is_untouched)
            for stream_id, stream in self._open.items()
            if stream_id & 3 == theirs
        )

    @property
    def own_streams_delivered(self) -> bool:
        """Whether everything sent on streams that this side has opened is acknowledged."""
        return all(
            stream.send is None or stream.send.buffer.end == stream.send.buffer.base
            for stream_id, stream in self._open.items()
            if stream_id & 1 == self._ours
        )

    @property
    def is_stream_blocked(self) -> bool:
        """Whether the flow-control limit of any stream blocks data."""
        return bool(self._flow_blocked)

    # --- sending --------------------------------------------------------------------------------

    @property
    def has_frames(self) -> bool:
        """Whether control frames are due; for data see `next_sendable`."""
        window, bidi, uni = self.window, self.peer_bidi, self.peer_uni
        # `is_due` of each, written out: this runs several times per wake-up.
        return bool(
            self._credited
            or self._signals
            or self._stalled
            or self._data_blocked_due
            or self._window_lost
            or window.granted - window.announced >= window.worth
            or bidi.granted - bidi.announced > bidi.announced - bidi.opened
            or uni.granted - uni.announced > uni.announced - uni.opened
            or True in self._counts_lost
            or True in self._blocked_due
        )

    @property
    def has_output(self) -> bool:
        """Whether there may be data to send, or control frames are due."""
        return bool(self.scheduler.ready) or self.has_frames

    @property
    def has_blocked_frames(self) -> bool:
        """Whether DATA_BLOCKED or STREAM_DATA_BLOCKED is due, as `next_sendable` may find."""
        return bool(self._data_blocked_due or self._stalled)

    def write_frames(self, draft: Draft) -> bool:
        """Add the control frames that fit; returns whether all did."""
        if (self.window.is_due or self._window_lost) and not self._write_max_data(draft):
            return False
        for uni, count in ((False, self.peer_bidi), (True, self.peer_uni)):
            if count.is_due or self._counts_lost[uni]:
                frame = (MaxStreamsUni if uni else MaxStreamsBidi)(count.granted)
                if not draft.add(frame.encode(), self._on_count_delivery, (uni,)):
                    return False
                count.announce()
                self._counts_lost[uni] = False
            if self._blocked_due[uni]:
                blocked = (
                    StreamsBlockedUni(self.max_uni) if uni else StreamsBlockedBidi(self.max_bidi)
                )
                if not draft.add(blocked.encode()):
                    return False
                self._blocked_due[uni] = False
        while self._credited:
            stream_id, stream = next(iter(self._credited.items()))
            assert stream.receive is not None
            window = stream.receive.window
            credit = MaxStreamData(stream_id, window.granted).encode()
            if not draft.add(credit, self._on_credit_delivery, (stream,)):
                return False
            window.announce()
            self.touched[stream_id] = stream
            del self._credited[stream_id]
        if self._data_blocked_due and not self._write_data_blocked(draft):
            return False
        while self._stalled:
            stream_id, stream = next(iter(self._stalled.items()))
            assert stream.send is not None
            limit = stream.send.limit
            stalled = StreamDataBlocked(stream_id, limit).encode()
            if not draft.add(stalled, self._on_stalled_delivery, (stream, limit)):
                return False
            del self._stalled[stream_id]
        while self._signals:
            stream_id, stream = next(iter(self._signals.items()))
            if not self._write_signals(draft, stream):
                return False
            del self._signals[stream_id]
        return True

    def _write_max_data(self, draft: Draft) -> bool:
        frame = MaxData(self.window.granted).encode()
        if not draft.add(frame, self._on_window_delivery):
            return False
        self.window.announce()
        self._window_lost = False
        return True

    def _write_data_blocked(self, draft: Draft) -> bool:
        limit = self.send_limit
        if not draft.add(DataBlocked(limit).encode(), self._on_data_blocked_delivery, (limit,)):
            return False
        self._data_blocked_due = False
        return True

    def _write_signals(self, draft: Draft, stream: Stream) -> bool:
        send, receive = stream.send, stream.receive
        if send is not None and send.reset_pending and send.reset_code is not None:
            reset = ResetStream(stream.id, send.reset_code, send.buffer.highest).encode()
            if not draft.add(reset, self._on_reset_delivery, (stream,)):
                return False
            send.reset_pending = False
        if receive is not None and receive.stop_pending and receive.stop_code is not None:
            stop = StopSending(stream.id, receive.stop_code).encode()
            if not draft.add(stop, self._on_stop_delivery, (stream,)):
                return False
            receive.stop_pending = False
        return True

    def next_sendable(self) -> tuple[Stream, int] | None:
        """The next stream to send, and the offset up to which its pending data may be sent."""
        ready = self.scheduler.ready
        if not ready:
            return None
        credit = self.send_limit - self.send_used
        first = ready[0]
        send = first.send
        assert send is not None
        until = send.buffer.sendable_until(send.limit, credit)
        if until is not None:
            return first, until
        for stream in list(self.scheduler):
            send = stream.send
            assert send is not None
            until = send.buffer.sendable_until(send.limit, credit)
            if until is not None:
                return stream, until
            if not send.buffer.has_pending:
                self.scheduler.remove(stream)
            elif send.is_flow_blocked:
                self.scheduler.remove(stream)
                self._flow_blocked[stream.id] = stream
                if send.blocked_at < send.limit:
                    send.blocked_at = send.limit
                    self._stalled[stream.id] = stream
            elif self._data_blocked_at < self.send_limit:
                self._data_blocked_at = self.send_limit
                self._data_blocked_due = True
        return None

    def write_data(self, draft: Draft, stream: Stream, until: int) -> bool:
        """Add a STREAM frame with the data that fits; returns whether any did."""
        send = stream.send
        assert send is not None
        buffer = send.buffer
        pending = buffer.pending
        start = pending[0] if pending is not None else buffer.end
        room = draft.room - len(stream_head(stream.id, start)) - 3
        stop = min(until, start + room)
        if room < 0 or (stop <= start and (pending is not None or not buffer.fin_pending)):
            return False
        frame, fin = self.take_frame(stream, start, stop)
        return draft.add(b"".join(frame), self.on_data_delivery, (stream, start, stop, fin))

    def take_frame(
        self, stream: Stream, start: int, stop: int
    ) -> tuple[tuple[bytes, bytes, bytes, bytes], bool]:
        """Move the first pending bytes in flight; returns the parts of a STREAM frame of them, and
        whether it has the end."""
        assert stream.send is not None
        buffer = stream.send.buffer
        data = buffer.read(start, stop)
        highest = buffer.highest
        fresh = stop - highest if stop > highest else 0
        fin = buffer.take(start, stop)
        self.sent(stream, fresh, stop - start - fresh, more=buffer.has_pending)
        kind = _STREAM_KINDS[start > 0, fin]
        length = (stop - start | 0x4000).to_bytes(2, "big")
        return (kind, stream_head(stream.id, start), length, data), fin

    def sent(self, stream: Stream, fresh: int, again: int, *, more: bool) -> None:
        """Record that pending data was taken from a stream: bytes sent for the first time, and
        again, and whether more is pending."""
        if fresh:
            self.send_used += fresh
            assert stream.send is not None
            if stream.send.buffer.highest == fresh:
                self.touched[stream.id] = stream
        self.bytes_resent += again
        if more:
            self.scheduler.rotate(stream)
        else:
            self.scheduler.remove(stream)

    def _schedule(self, stream: Stream) -> None:
        send = stream.send
        if (
            send is not None
            and not stream.scheduled
            and not stream.blocked
            and send.reset_code is None
            and send.buffer.has_pending
        ):
            self.scheduler.add(stream)

    # --- delivery -------------------------------------------------------------------------------

    def on_data_delivery(
        self, delivered: bool, stream: Stream, start: int, stop: int, fin: bool
    ) -> None:
        """Bytes `start` to `stop - 1` were acknowledged or lost."""
        send = stream.send
        assert send is not None
        if send.is_finished:
            return
        if delivered:
            send.buffer.acked(start, stop, fin)
            if send.buffer.is_acknowledged:
                send.is_finished = True
                self._remove_if_finished(stream)
        elif send.reset_code is None:
            send.buffer.lost(start, stop, fin)
            self._flow_blocked.pop(stream.id, None)
            self._schedule(stream)

    def _on_window_delivery(self, delivered: bool) -> None:
        if not delivered:
            self._window_lost = True

    def _on_count_delivery(self, delivered: bool, uni: bool) -> None:
        if not delivered:
            self._counts_lost[uni] = True

    def _on_data_blocked_delivery(self, delivered: bool, limit: int) -> None:
        # RFC 9000 section 13.3: sent again only while still blocked on the same limit.
        if not delivered and limit == self.send_limit <= self.send_used and self.scheduler:
            self._data_blocked_due = True

    def _on_stalled_delivery(self, delivered: bool, stream: Stream, limit: int) -> None:
        send = stream.send
        assert send is not None
        if not delivered and limit == send.limit and stream.id in self._flow_blocked:
            self._stalled[stream.id] = stream

    def _on_credit_delivery(self, delivered: bool, stream: Stream) -> None:
        if not delivered and stream.receive is not None and not stream.receive.is_finished:
            self._credited[stream.id] = stream

    def _on_reset_delivery(self, delivered: bool, stream: Stream) -> None:
        send = stream.send
        assert send is not None
        if delivered:
            send.is_finished = True
            self._remove_if_finished(stream)
        elif not send.is_finished:
            send.reset_pending = True
            self._signals[stream.id] = stream

    def _on_stop_delivery(self, delivered: bool, stream: Stream) -> None:
        receive = stream.receive
        assert receive is not None
        if not delivered and not receive.is_finished:
            receive.stop_pending = True
            self._signals[stream.id] = stream

    def _remove_if_finished(self, stream: Stream) -> None:
        if not stream.is_finished or self._open.pop(stream.id, None) is None:
            return
        self.touched[stream.id] = stream
        self.scheduler.remove(stream)
        self._flow_blocked.pop(stream.id, None)
        self._stalled.pop(stream.id, None)
        self._signals.pop(stream.id, None)
        if not self.is_ours(stream.id):
            # RFC 9000 section 4.6: let the peer open another stream in its place.
            (self.peer_uni if stream.id & _UNI else self.peer_bidi).granted += 1
