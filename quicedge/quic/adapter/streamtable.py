"""The open streams of a connection, and which of them need a look.

A connection may hold a hundred streams that wait for their origins. No turn of the event loop walks
over all of them: a stream that has something to send, or that something happened to, says so.
"""

from __future__ import annotations

from aioquic.quic.events import StreamDataReceived, StreamReset
from aioquic.quic.packet import QuicErrorCode, QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender

from quicedge.quic.adapter.pages import use_pages


class StreamTable(dict[int, QuicStream]):
    """Streams by ID.

    `active` has the IDs of streams that may have something to send (data, RESET_STREAM,
    STOP_SENDING) and of finished ones, in the order they are served; whoever serves them removes
    those that turn out idle. `touched` has the IDs of streams that something happened to since it
    was last cleared. Either may name a stream that is gone.
    """

    __slots__ = ("active", "touched")

    def __init__(self) -> None:
        super().__init__()
        self.active: dict[int, None] = {}
        self.touched: dict[int, None] = {}

    def __setitem__(self, stream_id: int, stream: QuicStream) -> None:
        super().__setitem__(stream_id, stream)
        use_pages(stream)
        # Not the table, which refers to the stream: that would be a cycle for each stream.
        sender, receiver = stream.sender, stream.receiver
        sender.__class__ = _Sender
        assert isinstance(sender, _Sender)
        sender.active, sender.touched = self.active, self.touched
        receiver.__class__ = _Receiver
        assert isinstance(receiver, _Receiver)
        receiver.active, receiver.touched = self.active, self.touched
        self.touched[stream_id] = None


class _Sender(QuicStreamSender):
    """Names its stream when it has something to send or has finished."""

    active: dict[int, None]
    touched: dict[int, None]

    def _wake(self) -> None:
        stream_id = self._stream_id
        assert stream_id is not None
        self.active[stream_id] = self.touched[stream_id] = None

    def write(self, data: bytes, end_stream: bool = False) -> None:
        super().write(data, end_stream)
        self._wake()

    def reset(self, error_code: int) -> None:
        super().reset(error_code)
        self._wake()

    def on_data_delivery(
        self, delivery: QuicDeliveryState, start: int, stop: int, fin: bool
    ) -> None:
        super().on_data_delivery(delivery, start, stop, fin)
        if self.is_finished or not self.buffer_is_empty:
            self._wake()

    def on_reset_delivery(self, delivery: QuicDeliveryState) -> None:
        super().on_reset_delivery(delivery)
        self._wake()


class _Receiver(QuicStreamReceiver):
    """Names its stream when STOP_SENDING is due, when data came or when all has come."""

    active: dict[int, None]
    touched: dict[int, None]

    def _wake(self) -> None:
        stream_id = self._stream_id
        assert stream_id is not None
        self.active[stream_id] = self.touched[stream_id] = None

    def handle_frame(self, frame: QuicStreamFrame) -> StreamDataReceived | None:
        event = super().handle_frame(frame)
        self._note_arrival()
        return event

    def handle_reset(
        self, *, final_size: int, error_code: int = QuicErrorCode.NO_ERROR
    ) -> StreamReset | None:
        event = super().handle_reset(final_size=final_size, error_code=error_code)
        self._note_arrival()
        return event

    def _note_arrival(self) -> None:
        stream_id = self._stream_id
        assert stream_id is not None
        self.touched[stream_id] = None
        if self.is_finished:
            self.active[stream_id] = None

    def stop(self, error_code: int = QuicErrorCode.NO_ERROR) -> None:
        super().stop(error_code)
        self._wake()

    def on_stop_sending_delivery(self, delivery: QuicDeliveryState) -> None:
        super().on_stop_sending_delivery(delivery)
        self._wake()
