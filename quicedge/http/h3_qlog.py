"""An HTTP/3 codec that logs its frames to a trace (draft-ietf-quic-qlog-h3-events-13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quicedge.http.frames import FrameType, Setting
from quicedge.http.h3 import H3Connection
from quicedge.http.h3_types import StreamState
from quicedge.http.message import Field, Fields
from quicedge.telemetry import events
from quicedge.telemetry.trace import Trace

_SECRETS = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"})
"""Fields whose values are omitted: anyone who reads the trace could use them."""


class QlogH3Connection(H3Connection):
    """A codec with a trace; `trace_codec` turns a running H3Connection into one."""

    trace: Trace

    def _created(self, stream_id: int, frame: events.Frame) -> None:
        self.trace.log(events.Http3FrameCreated(stream_id=stream_id, frame=frame))

    def _parsed(self, stream_id: int, frame: events.Frame) -> None:
        self.trace.log(events.Http3FrameParsed(stream_id=stream_id, frame=frame))

    # --- sending ------------------------------------------------------------------------------

    def send_headers(
        self, stream_id: int, fields: Sequence[Field], end_stream: bool = False
    ) -> None:
        self._created(stream_id, {"frame_type": "headers", "headers": _fields(fields)})
        super().send_headers(stream_id, fields, end_stream)

    def send_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        if data:
            self._created(stream_id, _data_frame(len(data)))
        super().send_data(stream_id, data, end_stream)

    def send_goaway(self, stream_id: int) -> None:
        self._created(self._control, {"frame_type": "goaway", "id": stream_id})
        super().send_goaway(stream_id)

    # --- receiving ----------------------------------------------------------------------------

    def _request_frame(self, stream_id: int, stream: StreamState, kind: int) -> int:
        if kind == FrameType.DATA:
            self._parsed(stream_id, _data_frame(stream.left))
        return super()._request_frame(stream_id, stream, kind)

    def _short_frames(self, stream_id: int, data: bytes, at: int, content: list[bytes]) -> int:
        start = len(content)
        at = super()._short_frames(stream_id, data, at, content)
        for piece in content[start:]:
            self._parsed(stream_id, _data_frame(len(piece)))
        return at

    def _section(self, stream_id: int, stream: StreamState, fields: Fields, last: bool) -> None:
        self._parsed(stream_id, {"frame_type": "headers", "headers": _fields(fields)})
        super()._section(stream_id, stream, fields, last)

    def _settings(self, payload: bytes) -> None:
        super()._settings(payload)
        self._trace_settings("remote", self.received_settings or {})

    def _goaway(self, value: int) -> None:
        super()._goaway(value)
        self.trace.log(
            events.Http3FrameParsed(
                stream_id=self._peer_control(), frame={"frame_type": "goaway", "id": value}
            )
        )

    def _priority_update(self, kind: int, element_id: int, value: bytes) -> None:
        super()._priority_update(kind, element_id, value)
        self.trace.log(
            events.Http3PriorityUpdated(
                stream_id=element_id, new=value.decode("ascii", "backslashreplace")
            )
        )

    def _peer_control(self) -> int:
        """The peer's control stream: its first unidirectional stream."""
        return next(iter(self._peer_uni.values()), 0)

    def _trace_settings(self, initiator: str, settings: dict[int, int]) -> None:
        self.trace.log(
            events.Http3ParametersSet(
                initiator=initiator,
                max_field_section_size=settings.get(Setting.MAX_FIELD_SECTION_SIZE),
                max_table_capacity=settings.get(Setting.QPACK_MAX_TABLE_CAPACITY),
                blocked_streams_count=settings.get(Setting.QPACK_BLOCKED_STREAMS),
            )
        )


def trace_codec(codec: H3Connection, trace: Trace) -> None:
    """Log the frames of a connection from now on; undone by `untrace_codec`.

    Replaces the class of the codec, so that connections without a trace have no overhead.
    """
    codec.__class__ = QlogH3Connection
    assert isinstance(codec, QlogH3Connection)
    codec.trace = trace
    settings = codec.settings
    codec._trace_settings(
        "local",
        {
            Setting.QPACK_MAX_TABLE_CAPACITY: settings.qpack_max_table_capacity,
            Setting.QPACK_BLOCKED_STREAMS: settings.qpack_blocked_streams,
            Setting.MAX_FIELD_SECTION_SIZE: settings.max_field_section_size,
        },
    )
    if codec.received_settings is not None:
        codec._trace_settings("remote", codec.received_settings)


def untrace_codec(codec: H3Connection) -> None:
    """Undo `trace_codec`."""
    if isinstance(codec, QlogH3Connection):
        codec.__class__ = H3Connection  # type: ignore[assignment]


def _data_frame(length: int) -> events.Frame:
    return {"frame_type": "data", "raw": {"payload_length": length}}


def _fields(fields: Sequence[Field]) -> list[dict[str, Any]]:
    return [
        {
            "name": name.decode("latin-1"),
            "value": "(not written)" if name in _SECRETS else value.decode("latin-1"),
        }
        for name, value in fields
    ]
