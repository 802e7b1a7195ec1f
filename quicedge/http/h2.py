"""The server side of an HTTP/2 connection (RFC 9113), sans-IO: bytes in, messages out, and back.

Flow control follows consumption: the application returns the credit of content that it has
consumed, the codec that of everything else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Final

from quicedge.config import limits
from quicedge.http.errors import H2ErrorCode
from quicedge.http.h2_frames import (
    DEFAULT_WINDOW,
    FRAME_HEADER,
    LARGEST_MAX_FRAME,
    MAX_STREAM_ID,
    MAX_WINDOW,
    PREFACE,
    SETTINGS_ACK,
    SMALLEST_MAX_FRAME,
    Flag,
    FrameType,
    Setting,
    goaway_frame,
    ping_ack,
    read_header,
    read_setting,
    reset_frame,
    settings_frame,
    window_update,
)
from quicedge.http.h2_sender import Sender
from quicedge.http.h2_types import H2Error, H2Settings, H2Stream, H2StreamError, Handler
from quicedge.http.hpack import FieldDecoder, HpackError, Section, SectionBomb
from quicedge.http.message import Field, section_size
from quicedge.http.priority import Priority, parse_priority
from quicedge.shares import Standing, WorkBudget
from quicedge.shares.rank import DEFAULT_RANK, rank_of

_END_STREAM, _END_HEADERS = int(Flag.END_STREAM), int(Flag.END_HEADERS)
_PADDED, _PRIORITY, _ACK = int(Flag.PADDED), int(Flag.PRIORITY), int(Flag.ACK)
_DATA, _HEADERS = int(FrameType.DATA), int(FrameType.HEADERS)
_SETTINGS, _CONTINUATION = int(FrameType.SETTINGS), int(FrameType.CONTINUATION)
_STREAM_ID = 0x7FFF_FFFF
_SMALL: Final = 1024
"""Content of smaller frames is copied; of larger ones it is referred to until it is joined."""
_ENDED, _RESET_BY_CLIENT = -1, -2
"""How a remembered stream was closed, if not by our reset."""


class H2Connection:
    """The server's side of one connection; call `start` first.

    Input: `receive`, which raises H2Error, after which the connection must be closed and the codec
    receive no more. If `has_waiting`, call `receive` again with nothing in the next turn of the
    loop. Output: per stream `send_headers` (any number of interim heads, then the final one),
    `send_data` and `end`; what is to be written is returned by `poll`. `clock` returns seconds and
    limits the rate of frames without content.
    """

    __slots__ = (
        "_block", "_block_flags", "_block_stream", "_buffer", "_clock", "_closed",
        "_connection_due", "_connection_window", "_credit", "_decoder", "_goaway_limit", "_handler",
        "_highest", "_overhead", "_priorities", "_receive_window", "_rest", "_settings_seen",
        "_skipped", "_stopping", "_stream_due", "_stream_window", "_touched", "has_waiting",
        "sender", "settings", "streams",
    )  # fmt: skip

    def __init__(self, handler: Handler, settings: H2Settings, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.streams: dict[int, H2Stream] = {}
        """Open and half-closed streams: at most `settings.max_streams`."""
        self.has_waiting = False
        """Received frames wait for the next turn of the loop."""
        self._handler = handler
        self._clock = clock
        self._overhead = WorkBudget(limits.H2_OVERHEAD_BURST, limits.H2_OVERHEAD_RATE, clock())
        """Budget for legal frames without content."""
        self.sender = Sender(self._overhead)
        self._decoder = FieldDecoder(settings.max_field_section_size, settings.max_fields)
        self._buffer = b""
        """Received bytes that are no complete frame yet, or wait for the next turn."""
        self._rest: tuple[H2Stream | None, int, bool] | None = None
        """Of the DATA frame being received: stream, bytes still to come, whether it is the last."""
        self._skipped = 0
        self._settings_seen = False
        self._block: bytearray | None = None
        """The header block being received."""
        self._block_stream = self._block_flags = 0
        self._highest = 0
        """The highest stream ID that the client has used."""
        self._goaway_limit = MAX_STREAM_ID + 1
        """The latest ID of our GOAWAY frames."""
        self._closed: dict[int, int] = {}
        """Closed streams, the last ones: how they were closed, or what the client may still send
        before it knows of our reset."""
        self._priorities: dict[int, Priority] = {}
        """PRIORITY_UPDATE frames received before their requests."""
        # A client may use the default windows before it knows ours.
        self._stream_window = max(settings.stream_window, DEFAULT_WINDOW)
        self._connection_window = max(settings.connection_window, DEFAULT_WINDOW)
        self._receive_window = self._connection_window
        self._credit = 0
        self._connection_due = self._connection_window // 2
        self._stream_due = settings.stream_window // 2
        self._stopping: list[H2Stream] = []
        self._touched: list[H2Stream] = []
        """Streams with content to deliver."""

    def start(self) -> None:
        """Output our settings; the client need not have sent anything."""
        self.sender.control(_opening(self.settings))

    # --- sending ------------------------------------------------------------------------------

    def can_send(self, fields: Sequence[Field]) -> bool:
        """Whether the client accepts a field section of this size (RFC 9113 section 6.5.2)."""
        most = self.sender.max_section
        return most is None or section_size(fields) <= most

    def send_headers(self, stream: H2Stream, fields: Sequence[Field], end: bool = False) -> None:
        """Send a field section; pseudo-header fields first."""
        if stream.local_open:
            self.sender.headers(stream, fields, end)

    def send_data(self, stream: H2Stream, data: bytes) -> None:
        """Send content, as soon as flow control and the turns of other streams allow."""
        if stream.local_open and data:
            self.sender.data(stream, data)

    def end(self, stream: H2Stream, trailers: Sequence[Field] = ()) -> None:
        """The response is complete."""
        if stream.local_open and not stream.ending:
            self.sender.end(stream, trailers)

    def reset(self, stream: H2Stream, code: int) -> None:
        """Abandon a stream in both directions."""
        if self.streams.pop(stream.id, None) is not None:
            self._forget(stream, stream.receive_window)
            self.sender.control(reset_frame(stream.id, code))

    def stop_request(self, stream: H2Stream, code: int = H2ErrorCode.NO_ERROR) -> None:
        """Reset the stream once the response is sent.

        RFC 9113 section 8.1: NO_ERROR asks the client to stop sending the rest of its request, and
        clients MUST NOT discard the response. The caller decides when: see `take_stopping`.
        """
        stream.stop_code = code

    def consume(self, stream: H2Stream, nbytes: int) -> None:
        """Return the flow-control credit of content."""
        self._credit_connection(nbytes)
        if stream.remote_open:
            stream.credit += nbytes
            if stream.credit >= self._stream_due and stream.stop_code is None:
                self.sender.control(window_update(stream.id, stream.credit))
                stream.receive_window += stream.credit
                stream.credit = 0

    def _credit_connection(self, nbytes: int) -> None:
        self._credit += nbytes
        if self._credit >= self._connection_due:
            self.sender.control(window_update(0, self._credit))
            self._receive_window += self._credit
            self._credit = 0

    def prioritize(self, stream: H2Stream, priority: Priority) -> None:
        """Set the priority of a stream, unless a PRIORITY_UPDATE has (RFC 9218 section 7)."""
        if stream.rank is DEFAULT_RANK:
            self.sender.rerank(stream, rank_of(stream.id, *priority))

    def send_goaway(self, last_stream_id: int, code: int = 0, reason: str = "") -> None:
        """Announce that streams above `last_stream_id` are not processed.

        The number never grows (RFC 9113 section 6.8), and what was announced is not repeated
        without a reason.
        """
        if last_stream_id >= self._goaway_limit:
            if code == 0:
                return
            last_stream_id = min(last_stream_id, self._goaway_limit)
        self._goaway_limit = last_stream_id
        self.sender.control(goaway_frame(last_stream_id, code, reason))

    def poll(self, room: int) -> list[bytes | memoryview]:
        """What is to be written now, with up to `room` bytes of content."""
        return self.sender.poll(room)

    def take_finished(self) -> list[H2Stream]:
        """The streams whose response was output since the last call."""
        sender = self.sender
        finished, sender.finished = sender.finished, []
        for stream in finished:
            if stream.remote_open:
                if stream.stop_code is not None:
                    self._stopping.append(stream)
            elif self.streams.pop(stream.id, None) is not None:
                self._remember(stream.id, _ENDED)
        return finished

    def take_stopping(self) -> list[H2Stream]:
        """The streams whose response was output, and whose rest is to be stopped by `reset`."""
        stopping, self._stopping = self._stopping, []
        return stopping

    # --- state ----------------------------------------------------------------------------------

    @property
    def highest_stream_id(self) -> int:
        """The highest stream ID that the client has used."""
        return self._highest

    @property
    def unfinished_head(self) -> int | None:
        """The stream whose header block is incomplete."""
        return None if self._block is None else self._block_stream

    @property
    def unread_bytes(self) -> int:
        """Bytes of content received and not consumed."""
        return self._connection_window - self._receive_window - self._credit

    def _forget(self, stream: H2Stream, how: int) -> None:
        stream.remote_open = False
        if stream.content:
            self._credit_connection(sum(map(len, stream.content)))
            stream.content.clear()
        self.sender.discard(stream)
        self._remember(stream.id, how)

    def _remember(self, stream_id: int, how: int) -> None:
        closed = self._closed
        if len(closed) >= limits.H2_RESETS_REMEMBERED:
            del closed[next(iter(closed))]
        closed[stream_id] = how

    # --- receiving ------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Handle received bytes, up to H2_FRAMES_PER_TURN frames."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        at = 0
        if self._skipped < len(PREFACE):
            at = self._preface(data)
            if self._skipped < len(PREFACE):
                return
        try:
            at = self._frames(data, at)
        finally:
            if self._touched:
                self._deliver()
        if at < len(data):
            self._buffer = data[at:]

    def _preface(self, data: bytes) -> int:
        """RFC 9113 section 3.4: the client's connection preface starts with these octets."""
        take = min(len(PREFACE) - self._skipped, len(data))
        if data[:take] != PREFACE[self._skipped : self._skipped + take]:
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "not the preface of HTTP/2")
        self._skipped += take
        return take

    def _frames(self, data: bytes, at: int) -> int:
        """Handle the complete frames, and what there is of a DATA frame; returns the position
        behind them."""
        end = len(data)
        left = limits.H2_FRAMES_PER_TURN
        self.has_waiting = False
        if self._rest is not None:
            at = self._more_data(data, at)
        while end - at >= FRAME_HEADER:
            if not left:
                self.has_waiting = True
                break
            left -= 1
            word, flags, stream_id = read_header(data, at)
            length, kind = word >> 8, word & 0xFF
            stream_id &= _STREAM_ID
            if length > limits.H2_MAX_FRAME_SIZE:
                raise H2Error(H2ErrorCode.FRAME_SIZE_ERROR, "a frame is too large")
            body = at + FRAME_HEADER
            stop = body + length
            if self._block is not None and kind != _CONTINUATION:
                raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
            if kind == _DATA and self._settings_seen:
                if flags & _PADDED:
                    if stop > end:
                        break
                    self._padded_data(flags, stream_id, data, body, stop)
                    at = stop
                else:
                    at = self._data(flags, stream_id, data, body, min(stop, end), length)
                continue
            if stop > end:
                break
            at = stop
            payload = data[body:stop]
            if not self._settings_seen and (kind != _SETTINGS or flags & _ACK):
                raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "SETTINGS is not the first frame")
            if kind == _HEADERS:
                self._headers(flags, stream_id, payload)
                continue
            self._charge()
            receive = _RECEIVERS.get(kind)
            if receive is not None:
                receive(self, flags, stream_id, payload)
            # RFC 9113 section 5.5: frames of unknown types MUST be ignored.
        return at

    def _charge(self) -> None:
        """Charge the client for a frame without content."""
        standing = self._overhead.spend(1, self._clock())
        if standing is not Standing.GOOD:
            reason = "too many frames without content"
            if standing is Standing.HOSTILE:
                raise H2Error(H2ErrorCode.ENHANCE_YOUR_CALM, reason)
            self._handler.on_exhausted(reason)

    def _fail(self, stream: H2Stream, error: H2StreamError) -> None:
        """Reset a stream for what the client did."""
        self.reset(stream, error.code)
        self._handler.on_stream_error(stream, error)

    # --- content --------------------------------------------------------------------------------

    def _data(
        self, flags: int, stream_id: int, data: bytes, start: int, stop: int, length: int
    ) -> int:
        """Take what there is of a DATA frame's content; returns the position behind it."""
        stream = self._open_for_data(stream_id, length)
        got = stop - start
        if stream is not None:
            if got:
                self._content(stream, data, start, stop)
            if got == length:
                if flags & _END_STREAM and stream.remote_open:
                    self._end(stream)
                if length:
                    self._overhead.earn(1)
                else:
                    self._charge()
        elif got:
            self._credit_connection(got)
        if got < length:
            self._rest = stream, length - got, bool(flags & _END_STREAM)
        return stop

    def _more_data(self, data: bytes, at: int) -> int:
        """Take the next part of a DATA frame's content."""
        assert self._rest is not None
        stream, left, is_last = self._rest
        stop = min(at + left, len(data))
        left -= stop - at
        if stream is None or not stream.remote_open:
            self._credit_connection(stop - at)
        elif stop > at:
            self._content(stream, data, at, stop)
        self._rest = (stream, left, is_last) if left else None
        if not left:
            self._overhead.earn(1)
            if is_last and stream is not None and stream.remote_open:
                self._end(stream)
        return stop

    def _padded_data(self, flags: int, stream_id: int, data: bytes, start: int, stop: int) -> None:
        """A complete DATA frame with padding."""
        length = stop - start
        if not length or data[start] >= length:
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "padding beyond its frame")
        padding = data[start] + 1
        stream = self._open_for_data(stream_id, length)
        if stream is None:
            self._credit_connection(length)
            return
        if length > padding:
            self._content(stream, data, start + 1, stop + 1 - padding)
            self._overhead.earn(1)
        else:
            self._charge()
        if stream.remote_open:
            # RFC 9113 section 6.9.1: padding counts in flow control.
            self.consume(stream, padding)
            if flags & _END_STREAM:
                self._end(stream)

    def _open_for_data(self, stream_id: int, length: int) -> H2Stream | None:
        """The stream of a DATA frame of `length` bytes; None if the frame is to be ignored."""
        self._receive_window -= length
        if self._receive_window < 0:
            raise H2Error(H2ErrorCode.FLOW_CONTROL_ERROR, "beyond the connection's window")
        stream = self.streams.get(stream_id)
        if stream is None:
            self._stray(stream_id, length)
            return None
        if not stream.remote_open:
            self._fail(stream, H2StreamError(H2ErrorCode.STREAM_CLOSED, "content after the end"))
            return None
        stream.receive_window -= length
        if stream.receive_window < 0:
            self._fail(
                stream, H2StreamError(H2ErrorCode.FLOW_CONTROL_ERROR, "beyond the stream's window")
            )
            return None
        return stream

    def _stray(self, stream_id: int, length: int) -> None:
        """A frame that belongs to no open stream."""
        if not stream_id & 1 or stream_id > self._highest:
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "a frame on an idle stream")
        how = self._closed.get(stream_id, _RESET_BY_CLIENT)
        if how == _ENDED:
            raise H2Error(H2ErrorCode.STREAM_CLOSED, "a frame after the end of its stream")
        if how == _RESET_BY_CLIENT:
            self.sender.control(reset_frame(stream_id, H2ErrorCode.STREAM_CLOSED))
            self._handler.on_refused()
            return
        # Sent before the client knew of our reset, which its window bounds.
        if length > how:
            raise H2Error(H2ErrorCode.FLOW_CONTROL_ERROR, "beyond the window of a reset stream")
        self._closed[stream_id] = how - length
        if length < _SMALL:
            self._charge()

    def _content(self, stream: H2Stream, data: bytes, start: int, stop: int) -> None:
        """Keep content until the end of this turn: frames that arrive together are delivered
        together, because tiny ones would otherwise cost a walk through proxy and origin each."""
        size = stop - start
        stream.received += size
        declared = stream.content_length
        if declared is not None and stream.received > declared:
            self._credit_connection(size)
            self._fail(
                stream, H2StreamError(H2ErrorCode.PROTOCOL_ERROR, "content beyond content-length")
            )
            return
        if not stream.content:
            self._touched.append(stream)
        stream.content.append(data[start:stop] if size < _SMALL else memoryview(data)[start:stop])

    def _deliver(self) -> None:
        touched, self._touched = self._touched, []
        for stream in touched:
            self._deliver_content(stream)

    def _deliver_content(self, stream: H2Stream) -> None:
        pieces = stream.content
        if pieces:
            data = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
            stream.content = []
            self._handler.on_data(stream, data)

    def _end(self, stream: H2Stream) -> None:
        """The request is complete, without trailers."""
        if self._close_remote(stream):
            self._handler.on_end(stream)

    def _close_remote(self, stream: H2Stream) -> bool:
        """Close the client's half; False if the message is not complete."""
        complete = stream.content_length is None or stream.received == stream.content_length
        if not complete and not self._handler.on_cut_short(stream):
            self._fail(
                stream, H2StreamError(H2ErrorCode.PROTOCOL_ERROR, "content short of content-length")
            )
            return False
        self._deliver_content(stream)
        if not stream.remote_open:
            return False  # its handler has reset it
        stream.remote_open = False
        if not stream.local_open:
            self.streams.pop(stream.id, None)
            self._remember(stream.id, _ENDED)
        return complete

    # --- field sections ---------------------------------------------------------------------------

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream of ours")
        if flags & (_PADDED | _PRIORITY):
            payload, flags = self._unwrap(flags, stream_id, payload)
        if flags & _END_HEADERS:
            self._section(stream_id, flags, payload)
        else:
            self._block = bytearray(payload)
            self._block_stream, self._block_flags = stream_id, flags

    @staticmethod
    def _unwrap(flags: int, stream_id: int, payload: bytes) -> tuple[bytes, int]:
        """Remove padding and the priority of RFC 7540; its flag stays if it is invalid."""
        stop = len(payload)
        start = 0
        if flags & _PADDED:
            start = 1
            stop -= payload[0] if payload else 1
        if flags & _PRIORITY:
            start += 5
        if start > stop:
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "padding beyond its frame")
        if flags & _PRIORITY:
            # RFC 9113 section 5.3.2 deprecates it; RFC 7540 section 5.3.1: a stream cannot depend
            # on itself.
            depends_on = int.from_bytes(payload[start - 5 : start - 1], "big") & _STREAM_ID
            if depends_on != stream_id:
                flags &= ~_PRIORITY
        return payload[start:stop], flags

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None or stream_id != self._block_stream:
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "CONTINUATION without its HEADERS")
        block += payload
        if len(block) > limits.H2_SECTION_FACTOR * self.settings.max_field_section_size:
            raise H2Error(H2ErrorCode.ENHANCE_YOUR_CALM, "a header block is too large")
        if flags & _END_HEADERS:
            self._block = None
            self._section(stream_id, self._block_flags, bytes(block))

    def _section(self, stream_id: int, flags: int, block: bytes) -> None:
        try:
            section = self._decoder.decode(block)
        except HpackError as error:
            raise H2Error(H2ErrorCode.COMPRESSION_ERROR, str(error)) from error
        except SectionBomb as error:
            raise H2Error(H2ErrorCode.ENHANCE_YOUR_CALM, str(error)) from error
        ended = bool(flags & _END_STREAM)
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._trailers(stream, section, ended)
            return
        if stream_id <= self._highest:
            self._late_section(stream_id)
            return
        self._highest = stream_id
        self._overhead.earn(limits.H2_OVERHEAD_PER_REQUEST)
        if len(self.streams) >= self.settings.max_streams:
            self.sender.control(reset_frame(stream_id, H2ErrorCode.REFUSED_STREAM))
            self._remember(stream_id, self._stream_window)
            self._handler.on_refused()
            return
        stream = H2Stream(stream_id, self._stream_window, self.sender.initial_window, DEFAULT_RANK)
        self.streams[stream_id] = stream
        if self._priorities and (priority := self._priorities.pop(stream_id, None)) is not None:
            stream.rank = rank_of(stream_id, *priority)
        if ended:
            stream.remote_open = False
        try:
            if flags & _PRIORITY:
                raise H2StreamError(H2ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
            self._handler.on_request(stream, section, ended)
        except H2StreamError as error:
            self._fail(stream, error)

    def _trailers(self, stream: H2Stream, section: Section, ended: bool) -> None:
        if not stream.remote_open:
            self._fail(stream, H2StreamError(H2ErrorCode.STREAM_CLOSED, "HEADERS after the end"))
            return
        try:
            # RFC 9113 section 8.1: trailers end the stream.
            if not ended:
                raise H2StreamError(H2ErrorCode.PROTOCOL_ERROR, "a second head")
            if section.too_large:
                raise H2StreamError(H2ErrorCode.ENHANCE_YOUR_CALM, "trailers too large")
            if self._close_remote(stream):
                self._handler.on_trailers(stream, section.fields)
        except H2StreamError as error:
            self._fail(stream, error)

    def _late_section(self, stream_id: int) -> None:
        """A field section of a stream that is closed, or was skipped."""
        how = self._closed.get(stream_id)
        if how is None:
            # RFC 9113 section 5.1.1: stream identifiers MUST increase.
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "a stream ID below an earlier one")
        self._stray(stream_id, 0)

    # --- other frames -----------------------------------------------------------------------------

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        # RFC 9113 section 5.3: deprecated, and ignored but for its form.
        if not stream_id:
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "PRIORITY of the connection")
        if len(payload) != 5:
            code, reason = H2ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has a wrong size"
        elif int.from_bytes(payload[:4], "big") & _STREAM_ID == stream_id:
            code, reason = H2ErrorCode.PROTOCOL_ERROR, "a stream depends on itself"
        else:
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            raise H2Error(code, reason)
        self._fail(stream, H2StreamError(code, reason))

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise H2Error(H2ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM has a wrong size")
        if not stream_id & 1 or stream_id > self._highest:
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "RST_STREAM on an idle stream")
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            self._forget(stream, _RESET_BY_CLIENT)
            self._handler.on_reset(stream, int.from_bytes(payload, "big"))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "SETTINGS of a stream")
        if flags & _ACK:
            if payload:
                raise H2Error(H2ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with a payload")
            return
        if len(payload) % 6:
            raise H2Error(H2ErrorCode.FRAME_SIZE_ERROR, "SETTINGS has a wrong size")
        self._settings_seen = True
        for setting, value in read_setting(payload):
            self._setting(setting, value)
        self.sender.control(SETTINGS_ACK)

    def _setting(self, setting: int, value: int) -> None:
        """Apply a setting of the client (RFC 9113 section 6.5.2); unknown ones are ignored."""
        sender = self.sender
        if setting == Setting.INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                raise H2Error(H2ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
            change, sender.initial_window = value - sender.initial_window, value
            for stream in list(self.streams.values()) if change else ():
                if not sender.widen_stream(stream, change):
                    raise H2Error(H2ErrorCode.FLOW_CONTROL_ERROR, "a stream's window overflows")
        elif setting == Setting.MAX_FRAME_SIZE:
            if not SMALLEST_MAX_FRAME <= value <= LARGEST_MAX_FRAME:
                raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "a maximum frame size out of range")
            sender.max_frame = value
        elif setting == Setting.HEADER_TABLE_SIZE:
            sender.use_table(value)
        elif setting == Setting.MAX_HEADER_LIST_SIZE:
            sender.max_section = value
        elif setting in _FLAG_SETTINGS and value > 1:
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, f"setting {setting:#x} is neither 0 nor 1")

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        # RFC 9113 section 8.4: clients cannot push.
        raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise H2Error(H2ErrorCode.FRAME_SIZE_ERROR, "PING has a wrong size")
        if not flags & _ACK:
            self.sender.control(ping_ack(payload))

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        # A client's GOAWAY limits pushes; we never push.
        if stream_id:
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise H2Error(H2ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has a wrong size")

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise H2Error(H2ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE has a wrong size")
        increment = int.from_bytes(payload, "big") & _STREAM_ID
        if not stream_id:
            if not increment:
                raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "a window is widened by nothing")
            if not self.sender.widen(increment):
                raise H2Error(H2ErrorCode.FLOW_CONTROL_ERROR, "the connection's window overflows")
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            if not stream_id & 1 or stream_id > self._highest:
                raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
            return  # sent before the client knew that the stream is over
        if not increment:
            self._fail(
                stream, H2StreamError(H2ErrorCode.PROTOCOL_ERROR, "a window is widened by nothing")
            )
        elif not self.sender.widen_stream(stream, increment):
            self._fail(
                stream, H2StreamError(H2ErrorCode.FLOW_CONTROL_ERROR, "a stream's window overflows")
            )

    def _on_priority_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        """RFC 9218 section 7.1."""
        if stream_id:
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "PRIORITY_UPDATE on a stream")
        if len(payload) < 4:
            raise H2Error(H2ErrorCode.FRAME_SIZE_ERROR, "PRIORITY_UPDATE has a wrong size")
        prioritized = int.from_bytes(payload[:4], "big") & _STREAM_ID
        if not prioritized & 1:
            raise H2Error(H2ErrorCode.PROTOCOL_ERROR, "PRIORITY_UPDATE of no request")
        priority = parse_priority(payload[4:])
        stream = self.streams.get(prioritized)
        if stream is not None:
            self.sender.rerank(stream, rank_of(prioritized, *priority))
        elif prioritized > self._highest:
            priorities = self._priorities
            if len(priorities) >= self.settings.max_streams:
                for skipped in [known for known in priorities if known <= self._highest]:
                    del priorities[skipped]
            if prioritized in priorities or len(priorities) < self.settings.max_streams:
                priorities[prioritized] = priority


@functools.lru_cache(maxsize=4)
def _opening(settings: H2Settings) -> bytes:
    """The frames that begin a connection."""
    announced: dict[int, int] = {
        Setting.MAX_CONCURRENT_STREAMS: settings.max_streams,
        Setting.INITIAL_WINDOW_SIZE: settings.stream_window,
        Setting.MAX_HEADER_LIST_SIZE: settings.max_field_section_size,
        Setting.NO_RFC7540_PRIORITIES: 1,
    }
    if settings.extended_connect:
        announced[Setting.ENABLE_CONNECT_PROTOCOL] = 1
    frames = settings_frame(announced)
    if settings.connection_window > DEFAULT_WINDOW:
        frames += window_update(0, settings.connection_window - DEFAULT_WINDOW)
    return frames


_FLAG_SETTINGS = frozenset(
    (Setting.ENABLE_PUSH, Setting.ENABLE_CONNECT_PROTOCOL, Setting.NO_RFC7540_PRIORITIES)
)
_RECEIVERS: dict[int, Callable[[H2Connection, int, int, bytes], None]] = {
    FrameType.PRIORITY: H2Connection._on_priority,
    FrameType.RST_STREAM: H2Connection._on_rst_stream,
    FrameType.SETTINGS: H2Connection._on_settings,
    FrameType.PUSH_PROMISE: H2Connection._on_push_promise,
    FrameType.PING: H2Connection._on_ping,
    FrameType.GOAWAY: H2Connection._on_goaway,
    FrameType.WINDOW_UPDATE: H2Connection._on_window_update,
    FrameType.CONTINUATION: H2Connection._on_continuation,
    FrameType.PRIORITY_UPDATE: H2Connection._on_priority_update,
}

__all__ = ["H2Connection", "H2Error", "H2Settings", "H2Stream", "H2StreamError", "Handler"]
