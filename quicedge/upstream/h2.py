"""HTTP/2 to an origin (RFC 9113), many requests on one connection, over the sans-IO `h2`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection as H2Codec
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from quicedge.config import limits
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.checks import MessageError, check_response, check_response_fields
from quicedge.http.message import Field, Request, Response
from quicedge.upstream.base import UpstreamError
from quicedge.upstream.connection import Receiver
from quicedge.upstream.deadline import Deadline


class H2Stream:
    """One request on an HTTP/2 connection (`upstream.connection.Attempt`)."""

    def __init__(self, connection: H2Connection, stream_id: int, receiver: Receiver) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.receiver: Receiver | None = receiver
        self.deadline = Deadline(connection.loop, self._timed_out)
        self.responded = False
        self.request_done = False
        self.ending = False
        self.trailers: Sequence[Field] = ()
        self.pending: deque[bytes] = deque()
        self.pending_bytes = 0
        self.holding_back = False
        self.paused = False
        self.uncredited = 0

    def write(self, data: bytes) -> None:
        if self.receiver is None or not data:
            return
        self.pending.append(data)
        self.pending_bytes += len(data)
        self.connection.send_body(self)
        if self.pending_bytes > limits.UPSTREAM_WRITE_HIGH and not self.holding_back:
            self.holding_back = True
            self.receiver.pause_request()

    def end(self, trailers: Sequence[Field]) -> None:
        if self.receiver is not None and not self.ending:
            self.ending = True
            self.trailers = trailers
            self.connection.send_body(self)

    def abort(self) -> None:
        self.receiver = None
        self.connection.reset(self, ErrorCodes.CANCEL)

    def pause(self) -> None:
        self.paused = True
        self.deadline.clear()

    def resume(self) -> None:
        self.paused = False
        self.connection.credit(self)
        if not self.connection.is_closed:
            self.deadline.set(self.connection.config.idle_timeout)

    def fail(self, error: UpstreamError, retryable: bool = False) -> None:
        self.deadline.cancel()
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.attempt_failed(error, retryable)

    def _timed_out(self) -> None:
        self.connection.reset(self, ErrorCodes.CANCEL)
        self.fail(UpstreamError("idle_timeout" if self.responded else "first_byte_timeout"))


class H2Connection(asyncio.Protocol):
    """See the module. What a turn of the loop produces goes out in one write."""

    def __init__(
        self,
        config: UpstreamConfig,
        loop: asyncio.AbstractEventLoop,
        on_capacity: Callable[[], None],
        on_closed: Callable[[H2Connection], None],
    ) -> None:
        self.config = config
        self.loop = loop
        self.is_closed = False
        self._on_capacity = on_capacity
        self._on_closed = on_closed
        self._codec = H2Codec(
            H2Configuration(client_side=True, header_encoding=None, validate_inbound_headers=True)
        )
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, H2Stream] = {}
        self._idle = Deadline(loop, self.close)
        self._flush_scheduled = False
        self._going_away = False
        self._uncredited = 0
        self._writable = True

    @property
    def is_usable(self) -> bool:
        return (
            not self.is_closed
            and not self._going_away
            and self._transport is not None
            and len(self._streams) < self._codec.remote_settings.max_concurrent_streams
            and self._codec.highest_outbound_stream_id < 2**31 - 3
        )

    # --- sending ------------------------------------------------------------------------------

    def start(self, request: Request, receiver: Receiver) -> H2Stream:
        """Send a request head on a new stream."""
        stream_id = self._codec.get_next_available_stream_id()
        stream = self._streams[stream_id] = H2Stream(self, stream_id, receiver)
        head = [
            (b":method", request.method),
            (b":scheme", b"https" if self._is_tls else b"http"),
            (b":authority", request.authority),
            (b":path", request.path),
            *request.fields,
        ]
        if request.content_length is not None:
            head.append((b"content-length", b"%d" % request.content_length))
        stream.request_done = stream.ending = request.ended
        self._codec.send_headers(stream_id, head, end_stream=request.ended)
        self._idle.clear()
        if request.ended:
            stream.deadline.set(self.config.first_byte_timeout)
        self._flush_soon()
        return stream

    @property
    def _is_tls(self) -> bool:
        return (
            self._transport is not None and self._transport.get_extra_info("sslcontext") is not None
        )

    def send_body(self, stream: H2Stream) -> None:
        """Send what flow control and the socket let go of a stream's body."""
        if stream.request_done or stream.stream_id not in self._streams:
            return
        codec, stream_id = self._codec, stream.stream_id
        while stream.pending and self._writable:
            room = min(codec.local_flow_control_window(stream_id), codec.max_outbound_frame_size)
            if room <= 0:
                break
            data = stream.pending.popleft()
            if len(data) > room:
                stream.pending.appendleft(data[room:])
                data = data[:room]
            stream.pending_bytes -= len(data)
            codec.send_data(stream_id, data)
        if stream.holding_back and stream.pending_bytes < limits.UPSTREAM_WRITE_LOW:
            stream.holding_back = False
            if stream.receiver is not None:
                stream.receiver.resume_request()
        if stream.ending and not stream.pending:
            stream.request_done = True
            if stream.trailers:
                codec.send_headers(stream_id, list(stream.trailers), end_stream=True)
            else:
                codec.end_stream(stream_id)
            if not stream.responded:
                stream.deadline.set(self.config.first_byte_timeout)
        self._flush_soon()

    def reset(self, stream: H2Stream, code: ErrorCodes) -> None:
        """Give a stream up."""
        stream.deadline.cancel()
        if self._streams.pop(stream.stream_id, None) is None or self.is_closed:
            return
        try:
            self._codec.reset_stream(stream.stream_id, code)
        except ProtocolError:
            pass  # it ended on its own
        self._release()
        self._flush_soon()

    def credit(self, stream: H2Stream) -> None:
        """Let the origin send as much more of a stream as the client has taken."""
        if stream.uncredited and stream.stream_id in self._streams and not self.is_closed:
            try:
                self._codec.increment_flow_control_window(stream.uncredited, stream.stream_id)
            except ProtocolError:
                pass  # the stream ended meanwhile
            stream.uncredited = 0
            self._flush_soon()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _flush_soon(self) -> None:
        if not self._flush_scheduled and not self.is_closed:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._transport is not None:
            data = self._codec.data_to_send()
            if data:
                self._transport.write(data)

    # --- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(
            high=limits.UPSTREAM_WRITE_HIGH, low=limits.UPSTREAM_WRITE_LOW
        )
        self._codec.local_settings.update(
            {
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: limits.UPSTREAM_H2_STREAM_WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.UPSTREAM_MAX_HEAD,
            }
        )
        self._codec.initiate_connection()
        self._codec.increment_flow_control_window(limits.UPSTREAM_H2_CONNECTION_WINDOW)
        self._flush()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        for stream in list(self._streams.values()):
            if stream.pending:
                self.send_body(stream)

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._codec.receive_data(data):
                self._handle(event)
        except (ProtocolError, MessageError) as error:
            self._flush()
            self._lost(UpstreamError("protocol", str(error)))
            self.close()
            return
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost(UpstreamError("reset", str(exc or "closed by the origin")))
        self._idle.cancel()
        self._on_closed(self)

    def _lost(self, error: UpstreamError) -> None:
        self.is_closed = True
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(error)

    # --- events -----------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self._data(event)
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            for stream in list(self._streams.values()):
                if stream.pending:
                    self.send_body(stream)
            self._on_capacity()
        elif isinstance(event, ConnectionTerminated):
            self._goaway(event)
        else:
            stream_id = getattr(event, "stream_id", None)
            found = self._streams.get(stream_id) if stream_id is not None else None
            if found is not None:
                self._stream_event(found, event)

    def _data(self, event: DataReceived) -> None:
        size = event.flow_controlled_length or 0
        # The connection's window is opened at once: one slow client must not stop the others.
        self._uncredited += size
        if self._uncredited > limits.UPSTREAM_H2_CONNECTION_WINDOW // 4:
            self._codec.increment_flow_control_window(self._uncredited)
            self._uncredited = 0
        stream = self._streams.get(event.stream_id)
        if stream is None or stream.receiver is None:
            return
        stream.uncredited += size
        if event.data:
            stream.receiver.data(event.data)
        if stream.paused:
            return
        stream.deadline.set(self.config.idle_timeout)
        if stream.uncredited > limits.UPSTREAM_H2_STREAM_WINDOW // 4:
            self.credit(stream)

    def _stream_event(self, stream: H2Stream, event: Event) -> None:
        receiver = stream.receiver
        if receiver is None:
            return
        if isinstance(event, ResponseReceived):
            response = self._checked(stream, event.headers)
            if response is not None:
                stream.responded = True
                stream.deadline.set(self.config.idle_timeout)
                receiver.response(response)
        elif isinstance(event, InformationalResponseReceived):
            response = self._checked(stream, event.headers)
            if response is not None and response.status != 100:
                receiver.informational(response)
        elif isinstance(event, TrailersReceived):
            trailers = [(bytes(name), bytes(value)) for name, value in event.headers or ()]
            check_response_fields(trailers)
            stream.trailers = trailers
            self._complete(stream, trailers)
        elif isinstance(event, StreamEnded):
            self._complete(stream, ())
        elif isinstance(event, StreamReset):
            self._reset_by_origin(stream, event)

    def _checked(self, stream: H2Stream, headers: Sequence[Field] | None) -> Response | None:
        try:
            return check_response([(bytes(n), bytes(v)) for n, v in headers or ()])
        except MessageError as error:
            self.reset(stream, ErrorCodes.PROTOCOL_ERROR)
            stream.fail(UpstreamError("protocol", str(error)))
            return None

    def _complete(self, stream: H2Stream, trailers: Sequence[Field]) -> None:
        receiver, stream.receiver = stream.receiver, None
        stream.deadline.cancel()
        if stream.request_done:
            self._streams.pop(stream.stream_id, None)
            self._release()
        else:
            # RFC 9113 section 8.1: the origin answered before it read all; the rest is dropped.
            self.reset(stream, ErrorCodes.NO_ERROR)
        if receiver is not None:
            receiver.end_of_response(trailers)

    def _reset_by_origin(self, stream: H2Stream, event: StreamReset) -> None:
        self._streams.pop(stream.stream_id, None)
        self._release()
        if event.error_code == ErrorCodes.NO_ERROR and stream.responded:
            # The response came whole before; only the request was cut off.
            return
        # RFC 9113 section 8.7: REFUSED_STREAM says that nothing was processed.
        retryable = event.error_code == ErrorCodes.REFUSED_STREAM
        stream.fail(UpstreamError("reset", f"stream error {event.error_code}"), retryable)

    def _goaway(self, event: ConnectionTerminated) -> None:
        self._going_away = True
        last = event.last_stream_id if event.last_stream_id is not None else 2**31 - 1
        for stream_id, stream in list(self._streams.items()):
            # RFC 9113 section 6.8: streams above the last one were not processed.
            if stream_id > last:
                del self._streams[stream_id]
                stream.fail(UpstreamError("reset", "the origin is going away"), True)
        if not self._streams:
            self.close()

    def _release(self) -> None:
        """A stream is gone: another may start, or the connection falls idle."""
        if not self._streams:
            if self._going_away:
                self.close()
                return
            self._idle.set(self.config.keepalive_timeout)
        self._on_capacity()
