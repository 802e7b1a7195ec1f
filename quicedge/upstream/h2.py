"""HTTP/2 to an origin (RFC 9113), many requests on one connection, over the sans-IO `h2`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

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
from h2.exceptions import H2Error, ProtocolError

from quicedge.config import limits
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, Request, Response
from quicedge.http.semantics import response_has_body
from quicedge.http.upgrade import opened, without_key
from quicedge.http.validation import (
    CONNECTION_SPECIFIC,
    FORBIDDEN_TRAILERS,
    MessageError,
    validate_response,
    validate_response_fields,
)
from quicedge.upstream.base import UpstreamError
from quicedge.upstream.connection import Owner, Receiver
from quicedge.upstream.deadline import Deadline
from quicedge.upstream.h2_codec import Codec, Malformed
from quicedge.upstream.h2_stream import H2Stream
from quicedge.upstream.retry import Retry

_LAST_STREAM_ID = 2**31 - 1


class H2Connection(asyncio.Protocol):
    """An HTTP/2 `OriginConnection`. Output of one event loop iteration is written at once.

    Flow control: the window of the connection is reopened immediately, so that one slow client does
    not block the others; that of a stream only as its client consumes the bytes.

    Many small frames are processed in several event loop iterations; reading pauses meanwhile.
    """

    is_shared = True

    def __init__(
        self,
        owner: Owner,
        config: UpstreamConfig,
        loop: asyncio.AbstractEventLoop,
        *,
        connected_at: float = 0.0,
        connect_seconds: float = 0.0,
    ) -> None:
        self.connected_at = connected_at
        self.connect_seconds = connect_seconds
        self._owner = owner
        self._counters = owner.counters
        self._loop = loop
        self._keepalive_timeout = config.keepalive_timeout
        self._idle = Deadline(loop, self.close)
        self._probe = Deadline(loop, self._probe_unanswered)
        self._linger = Deadline(loop, self._linger_over)
        self._transport: asyncio.Transport
        self._codec = Codec(loop.time())
        self._scheme = b"http"
        self._is_open = False
        self._retired = False
        self._broken = False  # the codec has ended the connection
        self._streams: dict[int, H2Stream] = {}
        self._sending: dict[H2Stream, None] = {}  # in round-robin order
        self._max_streams = limits.UPSTREAM_H2_MAX_STREAMS
        self._unopened: dict[H2Stream, Request] = {}
        """Requests for tunnels, which wait for the origin's SETTINGS."""
        self._settings_seen = False
        self._tunnels = 0
        self._answered = False
        self._uncredited = 0
        self._flush_scheduled = False
        self._write_paused = False
        self._unhandled = b""
        """Received bytes that wait for the next event loop iteration."""
        self._reading_paused = False
        self._ended_by: UpstreamError | None = None
        """The transport is closed, but complete responses may be among `_unhandled`."""

    @property
    def capacity(self) -> int:
        if self._retired or not self._is_open or self._transport.is_closing():
            return 0
        return max(self._max_streams - len(self._streams) - len(self._unopened), 0)

    @property
    def active(self) -> int:
        return len(self._streams) + len(self._unopened)

    def is_readable(self) -> bool:
        """Always False: GOAWAY and refused streams already say what was not processed."""
        return False

    # --- the request ----------------------------------------------------------------------------

    def start(self, request: Request, receiver: Receiver) -> H2Stream:
        """Send a request head on a new stream."""
        self._idle.clear()
        if request.protocol is not None:
            return self._start_tunnel(request, receiver)
        codec = self._codec
        codec.worked()
        stream_id = codec.get_next_available_stream_id()
        stream = self._streams[stream_id] = H2Stream(self, stream_id, request, receiver)
        if stream_id + 2 > _LAST_STREAM_ID:
            self._retire()
        head = [
            (b":method", request.method),
            (b":scheme", self._scheme),
            (b":authority", request.authority),
            (b":path", request.path),
            *request.fields,
        ]
        if request.ended:
            head = [field for field in head if field[0] != b"expect"]
        if request.content_length is not None:
            head.append((b"content-length", b"%d" % request.content_length))
        try:
            codec.send_headers(stream_id, head, end_stream=request.ended)
        except H2Error as error:
            del self._streams[stream_id]
            failure = UpstreamError(OriginFailure.RESET, f"stream not opened: {error}")
            self.later(receiver.attempt_failed, failure, Retry.ALWAYS)
        self._flush_soon()
        return stream

    def _start_tunnel(self, request: Request, receiver: Receiver) -> H2Stream:
        """Request a tunnel, once the origin's SETTINGS allow it.

        RFC 8441 section 3: without SETTINGS_ENABLE_CONNECT_PROTOCOL, :protocol MUST NOT be sent.
        """
        stream = H2Stream(self, 0, request, receiver)
        self._unopened[stream] = request
        if self._settings_seen:
            self._open_tunnels()
        return stream

    def _open_tunnels(self) -> None:
        """Send the requests for tunnels that waited for SETTINGS."""
        unopened, self._unopened = self._unopened, {}
        allowed = self._codec.remote_settings.enable_connect_protocol == 1
        for stream, request in unopened.items():
            receiver = stream.receiver
            if receiver is None:
                continue
            if not allowed:
                stream.receiver = None
                self._owner.lacks_tunnels()
                failure = UpstreamError(
                    OriginFailure.NO_TUNNEL, "the origin does not offer extended CONNECT (RFC 8441)"
                )
                self.later(receiver.attempt_failed, failure, Retry.NEVER)
                continue
            stream.stream_id = self._codec.get_next_available_stream_id()
            self._streams[stream.stream_id] = stream
            self._tunnels += 1
            head = [
                (b":method", b"CONNECT"),
                (b":protocol", request.protocol or b""),
                (b":scheme", self._scheme),
                (b":authority", request.authority),
                (b":path", request.path),
                *without_key(request.fields),
            ]
            try:
                self._codec.send_headers(stream.stream_id, head)
            except H2Error as error:
                del self._streams[stream.stream_id]
                stream.receiver = None
                failure = UpstreamError(OriginFailure.RESET, f"stream not opened: {error}")
                self.later(receiver.attempt_failed, failure, Retry.ALWAYS)
        self._flush_soon()
        # Half of them are for requests: further ones get another connection.
        if self._tunnels >= max(self._max_streams // 2, 1) or self._ids_used_up:
            self._retire()
        if not self._streams:
            self._released()

    @property
    def _ids_used_up(self) -> bool:
        return self._codec.highest_outbound_stream_id + 2 > _LAST_STREAM_ID

    def later(self, callback: Callable[..., None], *arguments: Any) -> None:
        self._loop.call_soon(callback, *arguments)

    def wants_to_send(self, stream: H2Stream) -> None:
        """Schedule a stream that has body bytes, or its end, to send."""
        if stream.stream_id in self._streams:
            self._sending[stream] = None
            self._flush_soon()

    def reset(self, stream: H2Stream, code: ErrorCodes) -> None:
        """Abandon a stream."""
        if stream.stream_id not in self._streams:
            if self._unopened.pop(stream, None) is not None:
                self._released()
            return
        self._forget(stream)
        try:
            self._codec.reset_stream(stream.stream_id, code)
        except ProtocolError:
            pass  # h2 has closed it already
        if not stream.responded and self._is_open and not self._broken:
            # No response: probe whether the connection is alive.
            self._codec.ping(b"quicedge")
            self._probe.set(limits.UPSTREAM_PROBE_TIMEOUT)
        self._flush_soon()
        self._released()

    def credit(self, stream: H2Stream) -> None:
        """Reopen the window of a stream by what its client has consumed."""
        if (
            stream.uncredited >= limits.UPSTREAM_H2_STREAM_WINDOW // 4
            and stream.stream_id in self._streams
        ):
            size, stream.uncredited = stream.uncredited, 0
            try:
                self._codec.increment_flow_control_window(size, stream.stream_id)
            except ProtocolError:
                return  # the origin has ended the stream
            self._flush_soon()

    def _send_bodies(self) -> None:
        """Send frames of the streams in turn, as far as flow control and the socket allow."""
        sending = self._sending
        budget = limits.UPSTREAM_WRITE_HIGH
        while sending and budget > 0:
            stream = next(iter(sending))
            del sending[stream]
            try:
                budget -= self._send_frame(stream)
            except H2Error as error:
                self._refuse(stream, UpstreamError(OriginFailure.RESET, str(error)))

    def _send_frame(self, stream: H2Stream) -> int:
        """Send the next frame of a stream, if allowed; returns the number of body bytes."""
        if not stream.wants_to_send:
            return 0
        codec, stream_id = self._codec, stream.stream_id
        if not stream.pending_bytes:
            stream.request_done = True
            if stream.trailers:
                codec.send_headers(stream_id, list(stream.trailers), end_stream=True)
            else:
                codec.end_stream(stream_id)
            if stream.response_done:
                self._close_tunnel(stream)
            return 0
        room = min(codec.local_flow_control_window(stream_id), codec.max_outbound_frame_size)
        if room <= 0:
            return 0  # WINDOW_UPDATE schedules it again
        data = stream.take(room)
        last = stream.ending and not stream.pending_bytes and not stream.trailers
        codec.send_data(stream_id, data, end_stream=last)
        codec.worked()
        stream.request_done = last
        if last and stream.response_done:
            self._close_tunnel(stream)
        if stream.wants_to_send:
            self._sending[stream] = None
        return len(data)

    def _flush_soon(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if not self._is_open or self._transport.is_closing():
            return
        if not self._write_paused:
            self._send_bodies()
        data = self._codec.data_to_send()
        if data:
            self._counters.bytes_sent += len(data)
            self._transport.write(data)
        if self._sending and not self._write_paused:
            self._flush_soon()
        elif self._transport.get_write_buffer_size() > 4 * limits.UPSTREAM_WRITE_HIGH:
            # The origin sends PING or SETTINGS without reading the replies.
            self._lost(UpstreamError(OriginFailure.PROTOCOL, "the origin does not read"))
            self._transport.abort()

    # --- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(
            high=limits.UPSTREAM_WRITE_HIGH, low=limits.UPSTREAM_WRITE_LOW
        )
        # RFC 9113 section 8.3.1: :scheme names the scheme of this connection; strict origins
        # refuse another.
        if transport.get_extra_info("ssl_object") is not None:
            self._scheme = b"https"
        self._is_open = True
        self._codec.initiate_connection()
        self._codec.increment_flow_control_window(limits.UPSTREAM_H2_CONNECTION_WINDOW)
        self._flush_soon()
        self._idle.set(self._keepalive_timeout)
        self._owner.available(self)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._flush_soon()

    def data_received(self, data: bytes) -> None:
        self._counters.bytes_received += len(data)
        if self._reading_paused:
            self._unhandled += data  # TLS had received it already
            return
        self._unhandled = self._receive(data)
        if self._unhandled:
            self._reading_paused = True
            if not self._transport.is_closing():
                self._transport.pause_reading()
            self._loop.call_soon(self._receive_more)

    def _receive_more(self) -> None:
        """Handle the frames of the next turn; a turn of its own reads again."""
        if not self._is_open:
            return
        if not self._unhandled:
            self._reading_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
            return
        self._unhandled = self._receive(self._unhandled)
        self._loop.call_soon(self._receive_more)
        if self._ended_by is not None:
            self._finish_if_handled(self._ended_by)

    def _receive(self, data: bytes) -> bytes:
        """Handle the frames of one event loop iteration; returns the bytes left for the next."""
        self._probe.clear()
        events, taken, error = self._codec.feed(data, self._loop.time())
        if error is not None:
            self._broken = True
            self._retire()
        for event in events:
            self._handle(event)
        if error is None:
            self._flush_soon()
            return data[taken:]
        self._flush()  # sends the GOAWAY with the reason
        detail = str(error) if isinstance(error, H2Error) else repr(error)
        self._lost(UpstreamError(OriginFailure.PROTOCOL, detail))
        self._close_transport()
        return b""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_open:
            return
        self._retire()
        self._ended_by = UpstreamError(
            OriginFailure.RESET, str(exc) if exc else "the origin closed the connection"
        )
        self._finish_if_handled(self._ended_by)

    def _finish_if_handled(self, error: UpstreamError) -> None:
        """Release everything, unless received bytes still wait that some stream needs."""
        if self._unhandled and self._streams:
            return
        self._is_open = False
        self._idle.cancel()
        self._probe.cancel()
        self._linger.cancel()
        self._lost(error)
        self._owner.closed(self)

    def _lost(self, error: UpstreamError) -> None:
        self._retire()
        # As with HTTP/1.1: a connection that worked before may have been closing already.
        stale = self._answered and error.kind is OriginFailure.RESET
        streams, self._streams = self._streams, {}
        unopened, self._unopened = self._unopened, {}
        self._sending.clear()
        for stream in unopened:
            stream.fail(error, Retry.ALWAYS)
        for stream in streams.values():
            idle_when_sent = stale and not stream.responded and not stream.interim_seen
            stream.fail(error, Retry.IDEMPOTENT if idle_when_sent else Retry.NEVER)

    def _probe_unanswered(self) -> None:
        self._lost(UpstreamError(OriginFailure.RESET, "the origin does not answer PING"))
        self._transport.abort()

    # --- events -----------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        handler = _HANDLERS.get(type(event))
        if handler is None:
            return
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        try:
            handler(self, stream, event)
        except MessageError as error:
            self._refuse(stream, UpstreamError(OriginFailure.PROTOCOL, str(error)))
        except UpstreamError as error:
            self._refuse(stream, error)
        except Exception as error:
            context = {"message": "handling a response failed", "exception": error}
            self._loop.call_exception_handler(context)
            self._refuse(stream, UpstreamError(OriginFailure.RESET, "internal error"))

    def _refuse(self, stream: H2Stream | None, error: UpstreamError) -> None:
        if stream is not None:
            self.reset(stream, ErrorCodes.PROTOCOL_ERROR)
            stream.fail(error)

    def _on_malformed(self, stream: H2Stream | None, event: Malformed) -> None:
        raise UpstreamError(OriginFailure.PROTOCOL, event.detail)

    def _on_interim(self, stream: H2Stream | None, event: InformationalResponseReceived) -> None:
        if stream is None or stream.receiver is None:
            return
        stream.interim_seen = True
        if not stream.interim.allow(self._loop.time()):
            raise UpstreamError(OriginFailure.PROTOCOL, "too many interim responses at once")
        stream.receiver.informational(self._checked(event.headers))

    def _on_response(self, stream: H2Stream | None, event: ResponseReceived) -> None:
        self._answered = True
        self._codec.worked()
        if stream is None or stream.receiver is None:
            return
        response = self._checked(event.headers)
        stream.responded = True
        if stream.is_tunnel and 200 <= response.status < 300:
            response.status, response.fields = 200, opened(response.fields)
            self._codec.ignore_length(stream.stream_id)
            stream.receiver.established(response, stream)
            return
        if stream.is_tunnel:
            self._tunnels -= 1
            stream.is_tunnel = False
        lengths = {value for name, value in response.fields if name == b"content-length"}
        if not response_has_body(stream.method, response.status):
            stream.body_left = 0
        elif lengths:
            length = lengths.pop()
            if lengths or not length.isdigit():
                raise UpstreamError(OriginFailure.PROTOCOL, "the origin's content-length is faulty")
            stream.body_left = int(length)
        stream.receiver.response(response)

    def _checked(self, headers: Sequence[Field] | None) -> Response:
        response = validate_response([(bytes(name), bytes(value)) for name, value in headers or ()])
        if len(response.fields) > limits.UPSTREAM_MAX_FIELDS:
            raise UpstreamError(OriginFailure.PROTOCOL, "the origin's field section is too large")
        _check_hop_by_hop(response.fields)
        response.version = b"2"
        if response.status == 101:
            raise UpstreamError(OriginFailure.PROTOCOL, "status 101 in HTTP/2")
        return response

    def _on_data(self, stream: H2Stream | None, event: DataReceived) -> None:
        size = event.flow_controlled_length or 0
        self._uncredited += size
        if self._uncredited >= limits.UPSTREAM_H2_CONNECTION_WINDOW // 4 and not self._broken:
            self._codec.increment_flow_control_window(self._uncredited)
            self._uncredited = 0
        if stream is None or stream.receiver is None:
            return
        data = event.data or b""
        if stream.body_left is not None:
            stream.body_left -= len(data)
            if stream.body_left < 0:
                raise UpstreamError(OriginFailure.PROTOCOL, "more content than the origin declared")
        stream.uncredited += size
        if data:
            stream.receiver.data(data)
        if not stream.paused and event.stream_ended is None:
            self.credit(stream)

    def _on_trailers(self, stream: H2Stream | None, event: TrailersReceived) -> None:
        if stream is None:
            return
        trailers = [(bytes(name), bytes(value)) for name, value in event.headers or ()]
        if len(trailers) > limits.UPSTREAM_MAX_FIELDS:
            raise UpstreamError(OriginFailure.PROTOCOL, "the origin's trailer section is too large")
        validate_response_fields(trailers)
        _check_hop_by_hop(trailers)
        self._end(stream, [field for field in trailers if field[0] not in FORBIDDEN_TRAILERS])

    def _on_end(self, stream: H2Stream | None, event: StreamEnded) -> None:
        if stream is not None:
            self._end(stream, ())

    def _end(self, stream: H2Stream, trailers: Sequence[Field]) -> None:
        if stream.body_left:
            raise UpstreamError(OriginFailure.PROTOCOL, "less content than the origin declared")
        if stream.is_tunnel and not stream.request_done:
            stream.response_done = True
            if stream.receiver is not None:
                stream.receiver.end_of_response(())
            return
        receiver, stream.receiver = stream.receiver, None
        if stream.request_done:
            self._forget(stream)
            self._released()
        else:
            # RFC 9113 section 8.1: it responded without reading all; the rest is not sent.
            self.reset(stream, ErrorCodes.NO_ERROR)
        if receiver is not None:
            receiver.end_of_response(trailers)

    def _forget(self, stream: H2Stream) -> None:
        del self._streams[stream.stream_id]
        self._sending.pop(stream, None)
        self._tunnels -= stream.is_tunnel

    def _close_tunnel(self, stream: H2Stream) -> None:
        """Both halves of a tunnel have ended."""
        self._forget(stream)
        self.later(self._tunnel_closed)

    def _tunnel_closed(self) -> None:
        if self._is_open:
            self._released()

    def _on_reset(self, stream: H2Stream | None, event: StreamReset) -> None:
        if stream is None:
            return
        self._forget(stream)
        code = event.error_code
        # RFC 9113 section 8.7: REFUSED_STREAM means that nothing was processed.
        refused = code == ErrorCodes.REFUSED_STREAM
        name = code.name if isinstance(code, ErrorCodes) else f"code {code}"
        kind = OriginFailure.RESET if event.remote_reset else OriginFailure.PROTOCOL
        stream.fail(
            UpstreamError(kind, f"stream reset: {name}"), Retry.ALWAYS if refused else Retry.NEVER
        )
        self._released()

    def _on_goaway(self, stream: H2Stream | None, event: ConnectionTerminated) -> None:
        self._retire()
        last = event.last_stream_id
        for stream_id, unprocessed in list(self._streams.items()):
            # RFC 9113 section 6.8: streams above the last one were not processed.
            if last is not None and stream_id > last:
                self._forget(unprocessed)
                unprocessed.fail(
                    UpstreamError(OriginFailure.RESET, "the origin goes away"), Retry.ALWAYS
                )
        unopened, self._unopened = self._unopened, {}
        for waiting in unopened:
            waiting.fail(UpstreamError(OriginFailure.RESET, "the origin goes away"), Retry.ALWAYS)
        if not self._streams:
            self.close()

    def _on_window(self, stream: H2Stream | None, event: WindowUpdated) -> None:
        if event.stream_id:
            if stream is not None and stream.wants_to_send:
                self._sending[stream] = None
        else:
            self._all_may_send()

    def _on_settings(self, stream: H2Stream | None, event: RemoteSettingsChanged) -> None:
        codec = self._codec
        theirs = codec.remote_settings.max_concurrent_streams
        self._max_streams = min(theirs, limits.UPSTREAM_H2_MAX_STREAMS)
        self._owner.limited(self._max_streams)
        # Whatever size the origin allows, a larger table is not worth its memory.
        table = min(codec.encoder.header_table_size, limits.UPSTREAM_H2_HEADER_TABLE)
        if table != codec.encoder.header_table_size:
            codec.encoder.header_table_size = table
        self._all_may_send()
        self._settings_seen = True
        if self._unopened:
            self._open_tunnels()
        if self.capacity:
            self._owner.available(self)

    def _all_may_send(self) -> None:
        for stream in self._streams.values():
            if stream.wants_to_send:
                self._sending[stream] = None

    # --- ends -----------------------------------------------------------------------------------

    def _released(self) -> None:
        """A stream has ended: another may start, or the connection becomes idle."""
        if not self.active:
            if self._retired:
                self.close()
                return
            self._idle.set(self._keepalive_timeout)
        if self.capacity:
            self._owner.available(self)

    def _retire(self) -> None:
        if not self._retired:
            self._retired = True
            self._owner.retired(self)

    def close(self) -> None:
        """Close an idle connection gracefully."""
        self._retire()
        if self._is_open and not self._transport.is_closing():
            if not self._broken:
                self._codec.close_connection()
            self._flush()
            self._close_transport()

    def _close_transport(self) -> None:
        """Close when pending output is sent, or after a timeout: the origin may not read."""
        self._transport.close()
        self._linger.set(limits.UPSTREAM_CLOSE_TIMEOUT)

    def _linger_over(self) -> None:
        self._transport.abort()

    def terminate(self) -> None:
        self._lost(UpstreamError(OriginFailure.RESET, "the edge closed the connection"))
        if self._is_open:
            self._transport.abort()


def _check_hop_by_hop(fields: Sequence[Field]) -> None:
    for name, _ in fields:
        # RFC 9113 section 8.2.2: such a message MUST be treated as malformed.
        if name in CONNECTION_SPECIFIC:
            raise UpstreamError(OriginFailure.PROTOCOL, "a connection-specific field in HTTP/2")


_HANDLERS: dict[type[Event], Callable[[H2Connection, H2Stream | None, Any], None]] = {
    Malformed: H2Connection._on_malformed,
    InformationalResponseReceived: H2Connection._on_interim,
    ResponseReceived: H2Connection._on_response,
    DataReceived: H2Connection._on_data,
    TrailersReceived: H2Connection._on_trailers,
    StreamEnded: H2Connection._on_end,
    StreamReset: H2Connection._on_reset,
    ConnectionTerminated: H2Connection._on_goaway,
    WindowUpdated: H2Connection._on_window,
    RemoteSettingsChanged: H2Connection._on_settings,
}
