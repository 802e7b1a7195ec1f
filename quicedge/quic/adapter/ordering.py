"""Which stream's data goes first (RFC 9218), and which may go at all."""

from __future__ import annotations

from typing import Any

from aioquic.quic.connection import stream_is_client_initiated
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from quicedge.quic.adapter.marking import MarkingConnection
from quicedge.quic.adapter.streamtable import StreamTable

DEFAULT_PRIORITY = 3, True
_CONTROL_RANK = -1, False, 0


class OrderingConnection(MarkingConnection):
    """See the module."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._streams: StreamTable = StreamTable()
        self._priorities: dict[int, tuple[int, bool]] = {}

    def prioritize(self, stream_id: int, urgency: int, incremental: bool) -> None:
        """Order a stream of the peer among those with data to send (RFC 9218).

        Urgency is 0 (first) to 7. A stream that is not open yet is remembered within the limit of
        streams; RFC 9218 section 7 leaves what is beyond to be discarded.
        """
        known = stream_id in self._streams
        awaited = (
            stream_id >> 2 >= self._local_max_streams_bidi.used
            and stream_id >> 2 < self._local_max_streams_bidi.value
        )
        if known or awaited:
            self._priorities[stream_id] = urgency, incremental

    def is_prioritized(self, stream_id: int) -> bool:
        """Whether `prioritize` was told of a stream."""
        return stream_id in self._priorities

    def _ready_streams(self) -> list[QuicStream]:
        """Streams with data that flow control lets go, in the order they are served.

        Finished streams are let go of on the way. Idle ones are not looked at.
        """
        ready = []
        idle = []
        finished = []
        streams = self._streams
        for stream_id in streams.active:
            stream = streams.get(stream_id)
            if stream is None:
                idle.append(stream_id)
                continue
            sender = stream.sender
            if stream.is_finished:
                finished.append(stream)
                idle.append(stream_id)
            elif sender._reset_error_code is not None or not (
                len(sender._pending) or sender._pending_eof
            ):
                sender.buffer_is_empty = True
                if not sender.reset_pending and not stream.receiver.stop_pending:
                    idle.append(stream_id)
            elif not stream.is_blocked and self._sendable_until(stream) is not None:
                ready.append(stream)
        for stream_id in idle:
            del streams.active[stream_id]
        if finished:
            self._discard(finished)
        if self._priorities:
            ready.sort(key=self._rank)
        return ready

    def _rank(self, stream: QuicStream) -> tuple[int, bool, int]:
        """Where a stream stands in line (RFC 9218 section 10); equals take turns.

        By urgency; then those that are useless in parts, one after the other as they were opened;
        then the others. Requests that say nothing take turns too: a small response should not
        wait behind a large one that nobody put first.
        """
        stream_id = stream.stream_id or 0
        if stream_id & 2:
            return _CONTROL_RANK
        urgency, incremental = self._priorities.get(stream_id, DEFAULT_PRIORITY)
        return urgency, incremental, 0 if incremental else stream_id

    def _take_turn(self, ready: list[QuicStream]) -> None:
        """Put the first of the ready streams, which has more to send, behind its equals."""
        stream = ready.pop(0)
        rank = self._rank(stream) if self._priorities else None
        at = 0
        while at < len(ready) and (rank is None or self._rank(ready[at]) <= rank):
            at += 1
        ready.insert(at, stream)
        # For the next time too: what may be sent at once is often less than a round.
        stream_id = stream.stream_id
        assert stream_id is not None
        del self._streams.active[stream_id]
        self._streams.active[stream_id] = None

    def _discard(self, finished: list[QuicStream]) -> None:
        """Let go of streams on which nothing more is sent or received."""
        for stream in finished:
            stream_id = stream.stream_id
            assert stream_id is not None
            del self._streams[stream_id]
            self._streams_queue.remove(stream)
            self._priorities.pop(stream_id, None)
            if stream_is_client_initiated(stream_id) != self._is_client:
                # RFC 9000 section 4.6: the peer may open another one for it.
                self._stream_limit(stream_id).value += 1

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        if stream.stream_id in self._credited:
            self._streams.touched[stream.stream_id] = None
        super()._write_stream_limits(builder, space, stream)

    def _sendable_until(self, stream: QuicStream) -> int | None:
        """The offset up to which the first pending range may go; None when nothing may."""
        sender = stream.sender
        if not len(sender._pending):
            return sender._buffer_stop if sender._pending_eof else None
        pending = sender._pending[0]
        credit = sender.highest_offset + self._remote_max_data - self._remote_max_data_used
        until = min(pending.stop, stream.max_stream_data_remote, credit)
        return until if until > pending.start else None
