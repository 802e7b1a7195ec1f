"""The sans-IO `h2` codec, set up for origins."""

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
"""Frames that carry nothing for each that does: WINDOW_UPDATE for stream and connection, PING to
measure the path, SETTINGS."""

_SETTINGS = SettingsFrame.type
_OF_THE_CONNECTION = (DenialOfServiceError, FlowControlError, StreamClosedError)
"""What h2 raises for HEADERS and DATA that is more than a malformed response."""


@dataclass(kw_only=True)
class Malformed(Event):
    """A response that is none; its stream has been reset."""

    stream_id: int
    detail: str


class FloodError(ProtocolError):
    """More frames that carry nothing than any origin has use for."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM


class Codec(_H2Connection):
    """Sends what our checks have let through as it is; what it receives, our checks judge, so
    that a malformed response costs its stream, not the connection."""

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
                SettingCodes.MAX_CONCURRENT_STREAMS: 0,  # streams the origin opens: none
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
        """Events in what an origin sent, and what then ended the connection: ProtocolError as a
        rule; whatever else a codec may raise must not get further either."""
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
        """A request or a response, or a piece of one, crossed the connection."""
        self._overhead.earn(_FRAMES_FOR_WORK)

    def _check_frames(self, data: bytes) -> tuple[int, ProtocolError | None]:
        """Look at frame headers as they come: h2 looks when a frame is whole, which for an origin
        that answers in HTTP/1.1 is after megabytes, or never. Bytes up to a header that is refused,
        and why it is."""
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
        """Events are kept as they come: what was whole before a fault counts."""
        events = self._receive(frame)
        self._events += events
        if not isinstance(frame, DataFrame) or not frame.data:
            if self._overhead.spend(1, self._now) is not Standing.GOOD:
                raise FloodError("too many frames that carry nothing")
        elif any(isinstance(event, DataReceived) for event in events):
            self.worked()
        return []

    def _receive(self, frame: Frame) -> list[Event]:
        """h2 takes every fault for the connection's. By RFC 9113 section 8.1.1 a malformed
        response is a stream error, and the other streams go on."""
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
            # h2 has closed it as it would the connection; what still comes on it is to be ignored.
            stream.state_machine.state = StreamState.OPEN
            self.reset_stream(frame.stream_id, ErrorCodes.PROTOCOL_ERROR)
            if isinstance(frame, DataFrame) and frame.flow_controlled_length:
                self.increment_flow_control_window(frame.flow_controlled_length)
            return [Malformed(stream_id=frame.stream_id, detail=str(error))]

    def _receive_rst_stream_frame(self, frame: RstStreamFrame) -> tuple[list[Frame], list[Event]]:
        # RFC 9113 section 6.4: RST_STREAM frames MUST NOT be sent for a stream in the "idle"
        # state; it MUST be a connection error of type PROTOCOL_ERROR. h2 takes no notice.
        if frame.stream_id > self.highest_outbound_stream_id or frame.stream_id % 2 == 0:
            raise ProtocolError(f"RST_STREAM of stream {frame.stream_id}, which is idle")
        return super()._receive_rst_stream_frame(frame)

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        """h2 takes GOAWAY for the end of the connection and refuses every frame after it; by
        RFC 9113 section 6.8 the streams up to the last one named still run to their end."""
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]
