"""Queue of events for the application."""

from __future__ import annotations

from quicedge.quic.events import QuicEvent, StreamDataReceived


class EventQueue:
    """Events in order. Consecutive data of one stream is coalesced into one event."""

    __slots__ = ("_chunks", "_events", "_next", "_stream_id")

    def __init__(self) -> None:
        self._events: list[QuicEvent] = []
        self._next = 0
        """Of those above, which is popped next. An empty list is a tenth of an empty deque."""
        self._chunks: list[bytes] = []
        self._stream_id = -1

    def append(self, event: QuicEvent) -> None:
        if self._chunks:
            self._flush()
        self._events.append(event)

    def stream_data(self, stream_id: int, data: bytes, end: bool) -> None:
        """In-order data of a stream."""
        if self._stream_id != stream_id:
            self._flush()
            self._stream_id = stream_id
        if end:
            data = b"".join((*self._chunks, data))
            self._chunks = []
            self._events.append(StreamDataReceived(data=data, end_stream=True, stream_id=stream_id))
            return
        self._chunks.append(data)

    def _flush(self) -> None:
        if self._chunks:
            data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks = []
            self._events.append(
                StreamDataReceived(data=data, end_stream=False, stream_id=self._stream_id)
            )

    def pop(self) -> QuicEvent | None:
        events = self._events
        if not events:
            if not self._chunks:
                return None
            self._flush()
        event = events[self._next]
        self._next += 1
        if self._next == len(events):
            events.clear()
            self._next = 0
        return event

    def __bool__(self) -> bool:
        return bool(self._events or self._chunks)
