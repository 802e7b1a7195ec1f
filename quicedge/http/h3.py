"""A sans-IO HTTP/3 codec (RFC 9114): stream bytes in, messages out, and vice versa.

The codec calls a handler and writes to a transport. It returns flow-control credit for every byte
that is not DATA payload; the application returns it for DATA payload once it has consumed it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from quicedge.config import limits
from quicedge.http import qpack
from quicedge.http.errors import H3ErrorCode
from quicedge.http.frames import (
    CONTROL_FRAMES,
    HTTP2_FRAMES,
    FrameType,
    Setting,
    StreamType,
    Truncated,
    decode_settings,
    decode_varint,
    encode_frame,
    encode_settings,
    encode_varint,
)
from quicedge.http.h3_types import (
    H3Error,
    H3Settings,
    H3StreamError,
    Handler,
    Observer,
    StreamState,
    Transport,
)
from quicedge.http.known_sections import KnownSection, KnownSections
from quicedge.http.message import Field, Fields, count_lines, section_size
from quicedge.http.priority import parse_priority
from quicedge.shares import Standing, WorkBudget

_TWO_BYTES = 0x40
"""First byte of a variable-length integer from which it has more than one byte."""
_SMALL = 4096
"""Bytes of content below which joining it with its frame header costs less than another write."""
_SKIPPED = -1
"""Pseudo frame type for frames whose payload is discarded."""


_DATA = encode_varint(FrameType.DATA)
_HEADERS = encode_varint(FrameType.HEADERS)
_CONTROL = encode_varint(StreamType.CONTROL)
_QPACK_ENCODER = encode_varint(StreamType.QPACK_ENCODER)
_QPACK_DECODER = encode_varint(StreamType.QPACK_DECODER)


@lru_cache(maxsize=16)
def _settings_frame(settings: H3Settings) -> bytes:
    """Our SETTINGS, the same for all connections of a configuration."""
    announced: dict[int, int] = {
        Setting.QPACK_MAX_TABLE_CAPACITY: settings.qpack_max_table_capacity,
        Setting.QPACK_BLOCKED_STREAMS: settings.qpack_blocked_streams,
        Setting.MAX_FIELD_SECTION_SIZE: settings.max_field_section_size,
    }
    if settings.extended_connect:
        announced[Setting.ENABLE_CONNECT_PROTOCOL] = 1
    return encode_frame(FrameType.SETTINGS, encode_settings(announced))


class H3Connection:
    """One side of an HTTP/3 connection; the constructor opens its control and QPACK streams.

    Input: `stream_data` (in order, per stream), `stream_reset` and `stop_sending`. They raise
    H3Error, after which the connection must be closed and the codec not be called again. Output per
    message: `send_headers` (any number of interim heads, then the final one), `send_data`, and
    optionally `send_trailers`; the call with `end_stream`, or `send_trailers`, is the last. `clock`
    returns seconds and limits the rate of frames without content.
    """

    def __init__(
        self,
        transport: Transport,
        handler: Handler,
        *,
        is_client: bool,
        settings: H3Settings,
        clock: Callable[[], float],
        sections: KnownSections | None = None,
    ) -> None:
        """`sections`: those that the worker remembers."""
        self.settings = settings
        self.received_settings: dict[int, int] | None = None
        self.observer: Observer | None = None
        self._clock = clock
        self._overhead = WorkBudget(limits.H3_OVERHEAD_BURST, limits.H3_OVERHEAD_RATE, clock())
        """Budget for legal frames without content: unknown frames and streams, empty DATA, ..."""
        self._transport = transport
        self._handler = handler
        self._is_client = is_client
        self._streams: dict[int, StreamState] = {}
        self._peer_uni: dict[int, int] = {}
        self._decoder = qpack.FieldDecoder(
            settings.qpack_max_table_capacity,
            settings.qpack_blocked_streams,
            settings.max_fields,
            settings.max_field_section_size,
        )
        self._sections = KnownSections() if sections is None else sections
        self._encoder = qpack.Encoder()
        self._max_push_id = -1
        self._goaway_received: int | None = None
        self._control = self._open(_CONTROL + _settings_frame(settings))
        self._encoder_stream = self._open(_QPACK_ENCODER)
        self._decoder_stream = self._open(_QPACK_DECODER)

    def _open(self, beginning: bytes) -> int:
        """Open a unidirectional stream that begins with its type."""
        stream_id = self._transport.get_next_available_stream_id(is_unidirectional=True)
        self._transport.send_stream_data(stream_id, beginning)
        return stream_id

    def _send(self, stream_id: int, data: bytes) -> None:
        if data:
            self._transport.send_stream_data(stream_id, data)

    # --- sending ------------------------------------------------------------------------------

    def can_send(self, fields: Sequence[Field]) -> bool:
        """Whether the peer accepts a field section of this size and QPACK can encode it.

        RFC 9114 section 4.2.2: an implementation that has received SETTINGS_MAX_FIELD_SECTION_SIZE
        SHOULD NOT send a message header that exceeds it.
        """
        size = section_size(fields)
        allowed = (self.received_settings or {}).get(Setting.MAX_FIELD_SECTION_SIZE, size)
        if size > allowed:
            return False
        return size <= limits.MAX_QPACK_STRING or all(
            max(len(name), len(value)) <= limits.MAX_QPACK_STRING for name, value in fields
        )

    def send_headers(
        self, stream_id: int, fields: Sequence[Field], end_stream: bool = False
    ) -> None:
        """Send a field section; pseudo-header fields first."""
        if self.observer is not None:
            self.observer.headers_sent(stream_id, fields)
        instructions, block = self._encoder.encode(stream_id, list(fields))
        self._send(self._encoder_stream, instructions)
        self._transport.send_stream_data(
            stream_id, encode_frame(FrameType.HEADERS, block), end_stream
        )

    def send_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Send content."""
        if data:
            if self.observer is not None:
                self.observer.data_sent(stream_id, len(data))
            head = b"\0" + encode_varint(len(data))
            if len(data) < _SMALL:
                data = head + data
            else:
                self._transport.send_stream_data(stream_id, head)
        self._transport.send_stream_data(stream_id, data, end_stream)

    def send_message(self, stream_id: int, fields: Sequence[Field], data: bytes) -> None:
        """Send a whole message: a field section, content, and the end."""
        size = len(data)
        if not size or size >= _SMALL:
            self.send_headers(stream_id, fields, end_stream=not size)
            if size:
                self.send_data(stream_id, data, end_stream=True)
            return
        if self.observer is not None:
            self.observer.headers_sent(stream_id, fields)
            self.observer.data_sent(stream_id, size)
        instructions, block = self._encoder.encode(stream_id, list(fields))
        if instructions:
            self._send(self._encoder_stream, instructions)
        frames = b"".join(
            (_HEADERS, encode_varint(len(block)), block, _DATA, encode_varint(size), data)
        )
        self._transport.send_stream_data(stream_id, frames, True)

    def send_trailers(self, stream_id: int, fields: Sequence[Field]) -> None:
        """Send a trailer section, which ends the message."""
        self.send_headers(stream_id, fields, end_stream=True)

    def send_goaway(self, stream_id: int) -> None:
        """Announce that requests from `stream_id` on are not processed (RFC 9114 section 5.2)."""
        if self.observer is not None:
            self.observer.goaway_sent(self._control, stream_id)
        self._send(self._control, encode_frame(FrameType.GOAWAY, encode_varint(stream_id)))

    # --- receiving ----------------------------------------------------------------------------

    def stream_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """Receive the next bytes of a stream."""
        stream = self._streams.get(stream_id)
        block = None
        if stream is None:
            stream = self._streams[stream_id] = StreamState()
            if end_stream:
                block = _whole_head(data)
        if stream_id & 2:
            self._uni_data(stream_id, stream, data, end_stream)
            return
        try:
            if block is not None and len(block) <= self.settings.max_field_section_size:
                self._head_alone(stream_id, stream, data, block)
            else:
                self._request_data(stream_id, stream, data, end_stream)
        except H3StreamError as error:
            self._fail(stream, error)
        finally:
            if end_stream and not stream.blocked:
                self._streams.pop(stream_id, None)

    def stream_reset(self, stream_id: int, error_code: int) -> None:
        """The peer reset its side of a stream."""
        if stream_id & 2:
            self._check_critical(stream_id)
            self._streams.pop(stream_id, None)
            return
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._abandon(stream_id, stream)
        self._handler.on_reset(stream_id, error_code)

    def stop_sending(self, stream_id: int, error_code: int) -> None:
        """The peer asked us to stop sending on a stream."""
        if stream_id in (self._control, self._encoder_stream, self._decoder_stream):
            raise H3Error(H3ErrorCode.CLOSED_CRITICAL_STREAM, "a critical stream was stopped")
        self._handler.on_stop_sending(stream_id, error_code)

    def _check_critical(self, stream_id: int) -> None:
        # RFC 9114 section 6.2.1 and RFC 9204 section 4.2: closure of these streams MUST be
        # treated as a connection error of type H3_CLOSED_CRITICAL_STREAM.
        stream = self._streams.get(stream_id)
        if stream is not None and stream.kind in self._peer_uni:
            raise H3Error(H3ErrorCode.CLOSED_CRITICAL_STREAM, "a critical stream was closed")

    def _charge(self) -> None:
        """Charge the peer for a frame without content."""
        standing = self._overhead.spend(1, self._clock())
        if standing is Standing.HOSTILE:
            raise H3Error(H3ErrorCode.EXCESSIVE_LOAD, "too many frames without content")
        if standing is Standing.EXHAUSTED:
            self._handler.on_exhausted("too many frames without content")

    def unfinished_heads(self) -> list[int]:
        """Request streams whose head is incomplete."""
        return [
            stream_id
            for stream_id, stream in self._streams.items()
            if not (stream_id & 2 or stream.headers_done or stream.dropped)
        ]

    def drop(self, stream_id: int) -> None:
        """Ignore the rest of a stream."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            ended = stream.blocked_fin
            self._abandon(stream_id, stream)
            if ended:
                del self._streams[stream_id]

    def _abandon(self, stream_id: int, stream: StreamState) -> None:
        """Stop reading a request stream and cancel it in QPACK.

        RFC 9204 section 2.2.2.2: the peer's table entries stay referenced until the decoder has
        acknowledged every section or cancelled the stream.
        """
        if stream.dropped:
            return
        if stream.blocked:
            self._transport.consume(stream_id, len(stream.buffer))
        stream.dropped, stream.blocked, stream.buffer = True, False, b""
        self._send(self._decoder_stream, self._decoder.cancel(stream_id))

    def _fail(self, stream: StreamState, error: H3StreamError) -> None:
        self._abandon(error.stream_id, stream)
        self._handler.on_stream_error(error)

    # --- request streams ------------------------------------------------------------------------

    def expect_length(self, stream_id: int, length: int) -> None:
        """Enforce the content-length of a message; call it from `on_headers`."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.content_length = length

    def _head_alone(self, stream_id: int, stream: StreamState, data: bytes, block: bytes) -> None:
        """A message that is a field section and nothing else, as most requests are."""
        self._transport.consume(stream_id, len(data))
        if not self._decode(stream_id, stream, block, True):
            stream.blocked = stream.blocked_fin = True
        elif not stream.dropped:
            self._request_end(stream_id, stream)

    def _request_data(
        self, stream_id: int, stream: StreamState, data: bytes, end_stream: bool
    ) -> None:
        if stream.blocked:
            # Not credited: flow control bounds what is buffered while it is blocked.
            stream.buffer += data
            stream.blocked_fin |= end_stream
            return
        stream.delivered = 0
        try:
            if not stream.dropped:
                self._parse_request(stream_id, stream, data, end_stream)
        finally:
            waiting = len(stream.buffer) if stream.blocked else 0
            done = len(data) - stream.delivered - waiting
            if done > 0:
                self._transport.consume(stream_id, done)
        if end_stream and not stream.dropped:
            if stream.blocked:
                stream.blocked_fin = True
            else:
                self._request_end(stream_id, stream)

    def _parse_request(
        self, stream_id: int, stream: StreamState, data: bytes, end_stream: bool
    ) -> None:
        """Parse frames and dispatch them.

        Content of successive DATA frames is delivered together: tiny frames would otherwise cost a
        walk through proxy and origin each.
        """
        if stream.buffer:
            data = stream.buffer + data
            stream.buffer = b""
        at, end = 0, len(data)
        content: list[bytes] = []
        while at < end:
            if stream.frame is None:
                if data[at] == FrameType.DATA and stream.headers_done and not stream.trailers_done:
                    at = self._short_frames(stream_id, data, at, content)
                    if at == end:
                        break
                try:
                    kind, body = decode_varint(data, at)
                    stream.left, at = decode_varint(data, body)
                except Truncated:
                    stream.buffer = data[at:]
                    break
                stream.frame = self._request_frame(stream_id, stream, kind)
                if stream.dropped:
                    break
                if stream.left == 0 and stream.frame != FrameType.HEADERS:
                    stream.frame = None
                    continue
            take = min(stream.left, end - at)
            if stream.frame == FrameType.HEADERS:
                if take < stream.left:
                    stream.buffer = data[at:]
                    break
                block = data[at : at + take]
                at += take
                stream.frame = None
                self._body(stream_id, stream, content)
                last = end_stream and at == end
                stream.blocked = not self._decode(stream_id, stream, block, last)
                if stream.blocked:
                    stream.buffer = data[at:]
                    break
                if stream.dropped:
                    break
                continue
            if stream.frame == FrameType.DATA:
                content.append(data[at : at + take] if take < end else data)
            at += take
            stream.left -= take
            if stream.left == 0:
                stream.frame = None
        self._body(stream_id, stream, content)

    def _short_frames(self, stream_id: int, data: bytes, at: int, content: list[bytes]) -> int:
        """Take whole DATA frames of 1 to 63 bytes; returns the position behind them.

        A quarter of a million of them fits in a megabyte, so each must cost next to nothing.
        """
        start, last = len(content), len(data) - 1
        while at < last and not data[at]:
            size = data[at + 1]
            stop = at + 2 + size
            if not 0 < size < _TWO_BYTES or stop > last + 1:
                break
            content.append(data[at + 2 : stop])
            at = stop
        if len(content) > start:
            self._overhead.earn(len(content) - start)
            if self.observer is not None:
                for piece in content[start:]:
                    self.observer.data_received(stream_id, len(piece))
        return at

    def _request_frame(self, stream_id: int, stream: StreamState, kind: int) -> int:
        """Validate a frame type against the state of its stream (RFC 9114 sections 4.1 and 7.2)."""
        if kind == FrameType.DATA:
            if self.observer is not None:
                self.observer.data_received(stream_id, stream.left)
            if not stream.headers_done or stream.trailers_done:
                raise H3Error(H3ErrorCode.FRAME_UNEXPECTED, "DATA before HEADERS or after trailers")
            if stream.left:
                self._overhead.earn(1)
            else:
                self._charge()
            return kind
        if kind == FrameType.HEADERS:
            if stream.trailers_done:
                raise H3Error(H3ErrorCode.FRAME_UNEXPECTED, "HEADERS after trailers")
            # An encoded section that exceeds the decoded limit is too large without decoding it.
            if stream.left > self.settings.max_field_section_size:
                self._too_large(stream_id, stream, [])
            return kind
        if kind == FrameType.PUSH_PROMISE and self._is_client:
            # We never send MAX_PUSH_ID, so every push id is beyond it (section 7.2.5).
            raise H3Error(H3ErrorCode.ID_ERROR, "push was not allowed")
        if kind in HTTP2_FRAMES or kind in (
            FrameType.CANCEL_PUSH,
            FrameType.SETTINGS,
            FrameType.PUSH_PROMISE,
            FrameType.GOAWAY,
            FrameType.MAX_PUSH_ID,
            FrameType.PRIORITY_UPDATE,
            FrameType.PRIORITY_UPDATE_PUSH,
        ):
            raise H3Error(H3ErrorCode.FRAME_UNEXPECTED, f"frame 0x{kind:x} on a request stream")
        # RFC 9114 section 9: implementations MUST ignore unknown frame types.
        self._charge()
        return _SKIPPED

    def _decode(self, stream_id: int, stream: StreamState, block: bytes | None, last: bool) -> bool:
        """Handle a field section; None: one that was blocked on the encoder stream. False if it is
        blocked there."""
        try:
            if block is None:
                instructions, fields = self._decoder.resume(stream_id)
            elif (known := self._sections.get(block)) is not None:
                instructions, fields = b"", known
            else:
                instructions, fields = self._decoder.decode(stream_id, block)
                fields = self._sections.note(block, fields)
        except qpack.StreamBlocked:
            return False
        except qpack.SectionTooLarge:
            self._too_large(stream_id, stream, [])
            return True
        except qpack.MalformedSection as error:
            raise H3StreamError(H3ErrorCode.MESSAGE_ERROR, str(error), stream_id) from error
        except qpack.DecompressionFailed as error:
            raise H3Error(
                H3ErrorCode.QPACK_DECOMPRESSION_FAILED, "a field section cannot be decoded"
            ) from error
        if instructions:
            self._send(self._decoder_stream, instructions)
        self._section(stream_id, stream, fields, last)
        return True

    def _section(self, stream_id: int, stream: StreamState, fields: Fields, last: bool) -> None:
        if self.observer is not None:
            self.observer.headers_received(stream_id, fields)
        if self._exceeds_limits(fields):
            self._too_large(stream_id, stream, fields)
        elif stream.headers_done:
            stream.trailers_done = True
            if self._has_its_length(stream_id, stream):
                self._handler.on_trailers(stream_id, fields)
        else:
            # A client receives interim responses until the final head (RFC 9114 section 4.1).
            interim = self._is_client and fields[:1] and fields[0][1][:1] == b"1"
            stream.headers_done = not interim
            self._overhead.earn(limits.H3_OVERHEAD_PER_REQUEST)
            self._handler.on_headers(stream_id, fields, last)

    def _exceeds_limits(self, fields: Fields) -> bool:
        settings = self.settings
        size = fields.size if isinstance(fields, KnownSection) else section_size(fields)
        if size > settings.max_field_section_size:
            return True
        return len(fields) > settings.max_fields and count_lines(fields) > settings.max_fields

    def _too_large(self, stream_id: int, stream: StreamState, fields: Fields) -> None:
        if stream.headers_done:
            raise H3StreamError(H3ErrorCode.EXCESSIVE_LOAD, "trailers too large", stream_id)
        self._abandon(stream_id, stream)
        self._handler.on_field_section_too_large(stream_id, fields)

    def _body(self, stream_id: int, stream: StreamState, content: list[bytes]) -> None:
        """Deliver content, if there is any, and forget it."""
        if not content:
            return
        data = content[0] if len(content) == 1 else b"".join(content)
        content.clear()
        stream.received += len(data)
        if stream.content_length is not None and stream.received > stream.content_length:
            # RFC 9114 section 4.1.2: content that does not match content-length is malformed.
            raise H3StreamError(
                H3ErrorCode.MESSAGE_ERROR, "content beyond content-length", stream_id
            )
        stream.delivered += len(data)
        self._handler.on_data(stream_id, data)

    def _has_its_length(self, stream_id: int, stream: StreamState) -> bool:
        """Whether a message that ends is complete; raises H3StreamError if it is malformed."""
        if stream.content_length is None or stream.received == stream.content_length:
            return True
        if not self._handler.on_cut_short(stream_id):
            raise H3StreamError(
                H3ErrorCode.MESSAGE_ERROR, "content short of content-length", stream_id
            )
        return False

    def _request_end(self, stream_id: int, stream: StreamState) -> None:
        # RFC 9114 section 7.1: a frame cut short by the end of its stream MUST be treated as a
        # connection error of type H3_FRAME_ERROR.
        if stream.frame is not None or stream.buffer:
            raise H3Error(H3ErrorCode.FRAME_ERROR, "a frame is cut short")
        if not stream.headers_done:
            raise H3StreamError(H3ErrorCode.REQUEST_INCOMPLETE, "no complete message", stream_id)
        if not stream.trailers_done and self._has_its_length(stream_id, stream):
            self._handler.on_end(stream_id)

    def _unblock(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None or not stream.blocked:
            return
        stream.blocked = False
        rest, stream.buffer = stream.buffer, b""
        last = stream.blocked_fin and not rest
        try:
            self._decode(stream_id, stream, None, last)
        except H3StreamError as error:
            self._fail(stream, error)
        self.stream_data(stream_id, rest, stream.blocked_fin)

    # --- unidirectional streams -----------------------------------------------------------------

    def _uni_data(self, stream_id: int, stream: StreamState, data: bytes, end_stream: bool) -> None:
        self._transport.consume(stream_id, len(data))
        if stream.dropped:
            if end_stream:
                del self._streams[stream_id]
            return
        data = stream.buffer + data
        stream.buffer = b""
        at = 0
        if stream.kind is None:
            try:
                stream.kind, at = decode_varint(data, 0)
            except Truncated:
                stream.buffer = data
                if end_stream:
                    del self._streams[stream_id]
                return
            self._uni_opened(stream_id, stream)
        if end_stream:
            self._check_critical(stream_id)
            del self._streams[stream_id]
        if stream.kind == StreamType.CONTROL:
            self._control_data(stream, data, at)
        elif stream.kind == StreamType.QPACK_ENCODER:
            self._encoder_data(data[at:])
        elif stream.kind == StreamType.QPACK_DECODER:
            try:
                self._encoder.feed_decoder(data[at:])
            except qpack.DecoderStreamError as error:
                raise H3Error(
                    H3ErrorCode.QPACK_DECODER_STREAM_ERROR, "bad decoder stream"
                ) from error

    def _uni_opened(self, stream_id: int, stream: StreamState) -> None:
        kind = stream.kind
        assert kind is not None
        if kind in (StreamType.CONTROL, StreamType.QPACK_ENCODER, StreamType.QPACK_DECODER):
            # RFC 9114 section 6.2.1: only one; a second MUST be H3_STREAM_CREATION_ERROR.
            if kind in self._peer_uni:
                raise H3Error(H3ErrorCode.STREAM_CREATION_ERROR, "a second critical stream")
            self._peer_uni[kind] = stream_id
        elif kind == StreamType.PUSH:
            # Section 6.2.2: only servers push, and only as far as MAX_PUSH_ID allows.
            code = H3ErrorCode.ID_ERROR if self._is_client else H3ErrorCode.STREAM_CREATION_ERROR
            raise H3Error(code, "a push stream")
        else:
            self._charge()
            stream.dropped = True

    def _encoder_data(self, data: bytes) -> None:
        try:
            unblocked = self._decoder.feed(data)
        except qpack.EncoderStreamError as error:
            raise H3Error(H3ErrorCode.QPACK_ENCODER_STREAM_ERROR, "bad encoder stream") from error
        for stream_id in unblocked:
            self._unblock(stream_id)

    def _control_data(self, stream: StreamState, data: bytes, at: int) -> None:
        while at < len(data):
            if stream.frame == _SKIPPED:
                take = min(stream.left, len(data) - at)
                stream.left -= take
                at += take
                if stream.left == 0:
                    stream.frame = None
                continue
            try:
                kind, body = decode_varint(data, at)
                length, body = decode_varint(data, body)
            except Truncated:
                break
            self._check_control_frame(kind)
            if kind not in CONTROL_FRAMES:
                self._charge()
                if length:
                    stream.frame, stream.left = _SKIPPED, length
                at = body
                continue
            if length > limits.MAX_CONTROL_FRAME:
                raise H3Error(H3ErrorCode.EXCESSIVE_LOAD, "a control frame is too large")
            if body + length > len(data):
                break
            if kind != FrameType.SETTINGS:
                self._charge()
            self._control_frame(kind, data[body : body + length])
            at = body + length
        stream.buffer = data[at:]

    def _check_control_frame(self, kind: int) -> None:
        # RFC 9114 section 6.2.1: the first frame MUST be SETTINGS, or H3_MISSING_SETTINGS.
        if self.received_settings is None and kind != FrameType.SETTINGS:
            raise H3Error(H3ErrorCode.MISSING_SETTINGS, "SETTINGS is not the first frame")
        if self.received_settings is not None and kind == FrameType.SETTINGS:
            raise H3Error(H3ErrorCode.FRAME_UNEXPECTED, "SETTINGS appears twice")
        if (
            kind in (FrameType.DATA, FrameType.HEADERS, FrameType.PUSH_PROMISE)
            or kind in HTTP2_FRAMES
            or (kind == FrameType.MAX_PUSH_ID and self._is_client)
        ):
            raise H3Error(H3ErrorCode.FRAME_UNEXPECTED, f"frame 0x{kind:x} on the control stream")

    def _control_frame(self, kind: int, payload: bytes) -> None:
        try:
            if kind == FrameType.SETTINGS:
                self._settings(payload)
                return
            value, end = decode_varint(payload, 0)
            if kind in (FrameType.PRIORITY_UPDATE, FrameType.PRIORITY_UPDATE_PUSH):
                self._priority_update(kind, value, payload[end:])
                return
            if end != len(payload):
                raise H3Error(H3ErrorCode.FRAME_ERROR, "bytes after a frame's content")
        except Truncated as error:
            raise H3Error(H3ErrorCode.FRAME_ERROR, "a control frame is cut short") from error
        if kind == FrameType.GOAWAY:
            self._goaway(value)
        elif kind == FrameType.MAX_PUSH_ID:
            # Section 7.2.7: the maximum push id MUST NOT be reduced.
            if value < self._max_push_id:
                raise H3Error(H3ErrorCode.ID_ERROR, "MAX_PUSH_ID was reduced")
            self._max_push_id = value
        else:
            # Section 7.2.3: CANCEL_PUSH of a push that was never promised.
            raise H3Error(H3ErrorCode.ID_ERROR, "CANCEL_PUSH of an unknown push")

    def _settings(self, payload: bytes) -> None:
        try:
            self.received_settings = settings = decode_settings(payload)
        except Truncated as error:
            raise H3Error(H3ErrorCode.FRAME_ERROR, "SETTINGS is cut short") from error
        except ValueError as error:
            raise H3Error(H3ErrorCode.SETTINGS_ERROR, str(error)) from error
        instructions = self._encoder.apply_settings(
            max_table_capacity=min(
                settings.get(Setting.QPACK_MAX_TABLE_CAPACITY, 0),
                self.settings.qpack_max_table_capacity,
            ),
            blocked_streams=min(settings.get(Setting.QPACK_BLOCKED_STREAMS, 0), 0xFFFF),
        )
        self._send(self._encoder_stream, instructions)
        if self.observer is not None:
            self.observer.settings_received(settings)

    def _goaway(self, value: int) -> None:
        # Section 5.2: the identifier MUST NOT increase; from a server it names a request stream.
        if self._goaway_received is not None and value > self._goaway_received:
            raise H3Error(H3ErrorCode.ID_ERROR, "GOAWAY went up")
        if self._is_client and value % 4:
            raise H3Error(H3ErrorCode.ID_ERROR, "GOAWAY names no request stream")
        self._goaway_received = value
        self._handler.on_goaway(value)
        if self.observer is not None:
            self.observer.goaway_received(self._peer_uni[StreamType.CONTROL], value)

    def _priority_update(self, kind: int, element_id: int, value: bytes) -> None:
        # RFC 9218 section 7.2: only clients send it, about request streams or promised pushes.
        if self._is_client:
            raise H3Error(H3ErrorCode.FRAME_UNEXPECTED, "PRIORITY_UPDATE from a server")
        if kind == FrameType.PRIORITY_UPDATE_PUSH or element_id % 4:
            raise H3Error(H3ErrorCode.ID_ERROR, "PRIORITY_UPDATE of no request stream")
        self._handler.on_priority_update(element_id, parse_priority(value))
        if self.observer is not None:
            self.observer.priority_updated(element_id, value)


def _whole_head(data: bytes) -> bytes | None:
    """The field section if `data` is a HEADERS frame and nothing else, with a length in the usual
    one or two bytes; else None."""
    if len(data) < 3 or data[0] != FrameType.HEADERS:
        return None
    length, at = data[1], 2
    if length & 0xC0 == _TWO_BYTES:
        length, at = (length & 0x3F) << 8 | data[2], 3
    return data[at:] if length == len(data) - at else None


__all__ = ["H3Connection", "H3Error", "H3Settings", "H3StreamError", "Handler", "Transport"]
