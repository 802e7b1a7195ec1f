"""The sans-IO `h2` codec, set up for origins."""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import H2Connection as _H2Connection
from h2.events import ConnectionTerminated, Event
from h2.exceptions import FrameTooLargeError, ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame, GoAwayFrame, SettingsFrame

from quicedge.config import limits

_SETTINGS = SettingsFrame.type


class Codec(_H2Connection):
    """Sends what our checks have let through as it is; what it receives, our checks judge, so
    that a malformed response costs its stream, not the connection."""

    def __init__(self) -> None:
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
        self._frame_header = bytearray()
        self._frame_left = 0
        self._has_preface = False

    def feed(self, data: bytes) -> list[Event]:
        """Events in what an origin sent; raises h2's ProtocolError."""
        self._check_frames(data)
        return self.receive_data(data)

    def _check_frames(self, data: bytes) -> None:
        """Look at frame headers as they come: h2 looks when a frame is whole, which for an origin
        that answers in HTTP/1.1 is after megabytes, or never."""
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
                return
            length = int.from_bytes(header[:3], "big")
            # RFC 9113 section 3.4: the server's preface is a SETTINGS frame, and it MUST be first.
            if not self._has_preface and header[3] != _SETTINGS:
                raise ProtocolError("the origin does not speak HTTP/2")
            if length > self.max_inbound_frame_size:
                raise FrameTooLargeError(f"a frame of {length} bytes")
            self._has_preface = True
            self._frame_left = length
            header.clear()

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        """h2 takes GOAWAY for the end of the connection and refuses every frame after it; by
        RFC 9113 section 6.8 the streams up to the last one named still run to their end."""
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]
