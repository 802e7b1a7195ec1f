"""The sans-IO `h2` codec, configured for origins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import hpack.huffman_table  # noqa: F401  deferred by lean_imports; not by the first response
from h2.config import H2Configuration
from h2.connection import H2Connection as _H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, Event
from h2.exceptions import (
    DenialOfServiceError,
    FlowControlError,
    FrameTooLargeError,
    ProtocolError,
    StreamClosedError,
)
from h2.settings import SettingCodes, Settings
from h2.stream import StreamState
from hpack import HPACKError
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
)

from quicedge.config import limits
from quicedge.shares import Standing, WorkBudget

_FRAMES_FOR_WORK = 8
"""Frames without content allowed per frame with content: WINDOW_UPDATE for stream and connection,
PING to measure the path, SETTINGS."""

_SMALL = 1024
"""Content of smaller frames is joined; that of larger ones costs more to copy than to deliver."""

_SETTINGS = SettingsFrame.type
_OF_THE_CONNECTION = (DenialOfServiceError, FlowControlError, StreamClosedError)
"""Errors that h2 raises for HEADERS and DATA and that concern the connection, not a stream."""


@dataclass(kw_only=True)
class Malformed(Event):
    """A malformed response; its stream has been reset."""

    stream_id: int
    detail: str


class Fed(NamedTuple):
    """The result of `Codec.feed`."""

    events: list[Event]
    taken: int
    """Bytes received; the rest belongs to a later event loop iteration."""
    error: Exception | None
    """The error that ended the connection: usually a ProtocolError, but any exception of h2."""


class FloodError(ProtocolError):
    """The origin sent too many frames without content."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM


class Codec(_H2Connection):
    """An h2 connection without h2's own header validation.

    Messages are validated by `http.validation` instead, so that a malformed response costs its
    stream and not the connection.
    """

    def __init__(self, now: float) -> None:
        super().__init__(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_CONCURRENT_STREAMS: 0,  # the origin may open none
                SettingCodes.INITIAL_WINDOW_SIZE: limits.UPSTREAM_H2_STREAM_WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.UPSTREAM_MAX_HEAD,
            },
        )
        self.decoder.max_header_list_size = limits.UPSTREAM_MAX_HEAD
        self._events: list[Event] = []
        self._joining: dict[int, tuple[DataReceived, list[bytes]]] = {}
        """By stream: the event that its next small frames extend, and their content."""
        self._frame_header = bytearray()
        self._now = now
        self._overhead = WorkBudget(
            limits.UPSTREAM_H2_FLOOD_BURST, limits.UPSTREAM_H2_FLOOD_RATE, now
        )
        self._frame_left = 0
        self._has_preface = False

    def feed(self, data: bytes, now: float) -> Fed:
        """Receive data, up to UPSTREAM_H2_FRAMES_PER_TURN frames of it."""
        self._now = now
        events: list[Event] = []
        self._events = events
        usable, error = self._check_frames(data)
        fault: Exception | None = error
        try:
            self.receive_data(data[:usable])
        except Exception as raised:
            fault = raised
        else:
            if error is not None:
                self._terminate_connection(error.error_code)
        for event, pieces in self._joining.values():
            event.data = b"".join(pieces)
        self._joining.clear()
        return Fed(events, usable, fault)

    def ignore_length(self, stream_id: int) -> None:
        """Ignore Content-Length in a 2xx response to CONNECT (RFC 9110 section 9.3.6)."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            stream._expected_content_length = None

    def worked(self) -> None:
        """A request or response, or a part of one, was transferred."""
        self._overhead.earn(_FRAMES_FOR_WORK)

    def _check_frames(self, data: bytes) -> tuple[int, ProtocolError | None]:
        """Check frame headers on arrival; returns the number of bytes to receive, and the error.

        h2 checks complete frames only. If an origin answers in HTTP/1.1, what looks like a frame
        takes megabytes to complete, if it ever does.
        """
        position = 0
        frames = limits.UPSTREAM_H2_FRAMES_PER_TURN
        while position < len(data):
            if self._frame_left:
                step = min(self._frame_left, len(data) - position)
                self._frame_left -= step
                position += step
                continue
            if not frames:
                break
            frames -= 1
            header = self._frame_header
            step = 9 - len(header)
            header += data[position : position + step]
            position += step
            if len(header) < 9:
                break
            length = int.from_bytes(header[:3], "big")
            # RFC 9113 section 3.4: the server's preface is a SETTINGS frame, and it MUST be first.
            if not self._has_preface and header[3] != _SETTINGS:
                return 0, ProtocolError("the origin does not speak HTTP/2")
            if length > self.max_inbound_frame_size:
                return max(position - 9, 0), FrameTooLargeError(f"a frame of {length} bytes")
            self._has_preface = True
            self._frame_left = length
            header.clear()
        return position, None

    def _receive_frame(self, frame: Frame) -> list[Event]:
        """Keep events as they occur: what was complete before an error counts."""
        events = self._receive(frame)
        content = next((event for event in events if isinstance(event, DataReceived)), None)
        if content is not None and self._join(content):
            events.remove(content)
        self._events += events
        if not isinstance(frame, DataFrame) or not frame.data:
            if self._overhead.spend(1, self._now) is not Standing.GOOD:
                raise FloodError("too many frames without content")
        elif content is not None:
            self.worked()
        return []

    def _join(self, event: DataReceived) -> bool:
        """Join content of small frames to that of earlier ones of the same stream and turn.

        No other event of a stream depends on its place between two DATA frames.
        """
        stream_id, data = event.stream_id or 0, event.data or b""
        if len(data) >= _SMALL:
            if stream_id in self._joining:
                earlier, pieces = self._joining.pop(stream_id)
                earlier.data = b"".join(pieces)
            return False
        if stream_id not in self._joining:
            self._joining[stream_id] = event, [data]
            return False
        earlier, pieces = self._joining[stream_id]
        pieces.append(data)
        earlier.flow_controlled_length = (earlier.flow_controlled_length or 0) + (
            event.flow_controlled_length or 0
        )
        earlier.stream_ended = event.stream_ended
        return True

    def _receive(self, frame: Frame) -> list[Event]:
        """Turn a malformed response into a stream error (RFC 9113 section 8.1.1).

        h2 treats it as an error of the connection.
        """
        try:
            return super()._receive_frame(frame)
        except _OF_THE_CONNECTION:
            raise
        except ProtocolError as error:
            stream = self.streams.get(frame.stream_id)
            # RFC 9113 section 4.3: a decoding error MUST be a connection error.
            undecoded = isinstance(error.__cause__, HPACKError | IndexError | TypeError)
            if stream is None or undecoded or not isinstance(frame, HeadersFrame | DataFrame):
                raise
            # h2 has closed the stream; frames that still arrive on it must be ignored.
            stream.state_machine.state = StreamState.OPEN
            self.reset_stream(frame.stream_id, ErrorCodes.PROTOCOL_ERROR)
            if isinstance(frame, DataFrame) and frame.flow_controlled_length:
                self.increment_flow_control_window(frame.flow_controlled_length)
            return [Malformed(stream_id=frame.stream_id, detail=str(error))]

    def _receive_headers_frame(self, frame: HeadersFrame) -> tuple[list[Frame], list[Event]]:
        # RFC 9113 section 5.4.2: what the origin sent before it knew of our reset MUST be ignored,
        # but for its effect on HPACK. h2 takes it for a new stream once it has forgotten the old.
        if frame.stream_id in self.streams or not self._stream_is_closed_by_reset(frame.stream_id):
            return super()._receive_headers_frame(frame)
        try:
            self.decoder.decode(frame.data, raw=True)
        except HPACKError as error:
            raise ProtocolError("a field section cannot be decoded") from error
        return [], []

    def _receive_rst_stream_frame(self, frame: RstStreamFrame) -> tuple[list[Frame], list[Event]]:
        # RFC 9113 section 6.4: RST_STREAM frames MUST NOT be sent for a stream in the "idle"
        # state; it MUST be a connection error of type PROTOCOL_ERROR. h2 ignores it.
        if frame.stream_id > self.highest_outbound_stream_id or frame.stream_id % 2 == 0:
            raise ProtocolError(f"RST_STREAM of stream {frame.stream_id}, which is idle")
        return super()._receive_rst_stream_frame(frame)

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        """Let streams up to the last one named by GOAWAY complete (RFC 9113 section 6.8).

        h2 treats GOAWAY as the end of the connection and rejects every frame after it.
        """
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]
