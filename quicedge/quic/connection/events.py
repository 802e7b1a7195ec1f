"""Queue of events for the application."""

from __future__ import annotations

from collections import deque

from quicedge.quic.events import QuicEvent, StreamDataReceived


class EventQueue:
    """Events in order. Consecutive data of one stream is coalesced into one event."""

    __slots__ = ("_chunks", "_events", "_stream_id")

    def __init__(self) -> None:
        self._events: deque[QuicEvent] = deque()
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
        if self._events:
            return self._events.popleft()
        if self._chunks:
            self._flush()
            return self._events.popleft()
        return None

    def __bool__(self) -> bool:
        return bool(self._events or self._chunks)
