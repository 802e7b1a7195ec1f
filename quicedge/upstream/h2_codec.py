"""The sans-IO `h2` codec, configured for origins."""

from __future__ import annotations

from dataclasses import dataclass

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

_SETTINGS = SettingsFrame.type
_OF_THE_CONNECTION = (DenialOfServiceError, FlowControlError, StreamClosedError)
"""Errors that h2 raises for HEADERS and DATA and that concern the connection, not a stream."""


@dataclass(kw_only=True)
class Malformed(Event):
    """A malformed response; its stream has been reset."""

    stream_id: int
    detail: str


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
        self._frame_header = bytearray()
        self._now = now
        self._overhead = WorkBudget(
            limits.UPSTREAM_H2_FLOOD_BURST, limits.UPSTREAM_H2_FLOOD_RATE, now
        )
        self._frame_left = 0
        self._has_preface = False

    def feed(self, data: bytes, now: float) -> tuple[list[Event], Exception | None]:
        """Receive data; returns events and the error that ended the connection, if any.

        The error is usually a ProtocolError; any other exception of the codec is returned as well.
        """
        self._now = now
        events: list[Event] = []
        self._events = events
        usable, error = self._check_frames(data)
        try:
            self.receive_data(data[:usable])
        except Exception as fault:
            return events, fault
        if error is not None:
            self._terminate_connection(error.error_code)
        return events, error

    def worked(self) -> None:
        """A request or response, or a part of one, was transferred."""
        self._overhead.earn(_FRAMES_FOR_WORK)

    def _check_frames(self, data: bytes) -> tuple[int, ProtocolError | None]:
        """Check frame headers on arrival; returns the number of acceptable bytes, and the error.

        h2 checks complete frames only. If an origin answers in HTTP/1.1, what looks like a frame
        takes megabytes to complete, if it ever does.
        """
        position = 0
        while position < len(data):
            if self._frame_left:
                step = min(self._frame_left, len(data) - position)
                self._frame_left -= step
                position += step
                continue
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
        return len(data), None

    def _receive_frame(self, frame: Frame) -> list[Event]:
        """Keep events as they occur: what was complete before an error counts."""
        events = self._receive(frame)
        self._events += events
        if not isinstance(frame, DataFrame) or not frame.data:
            if self._overhead.spend(1, self._now) is not Standing.GOOD:
                raise FloodError("too many frames without content")
        elif any(isinstance(event, DataReceived) for event in events):
            self.worked()
        return []

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
