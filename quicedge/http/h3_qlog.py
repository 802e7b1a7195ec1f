"""Logs the frames of an HTTP/3 codec to a trace (draft-ietf-quic-qlog-h3-events-13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quicedge.http.frames import Setting
from quicedge.http.h3 import H3Connection
from quicedge.http.message import Field
from quicedge.telemetry import events
from quicedge.telemetry.trace import Trace

_SECRETS = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"})
"""Fields whose values are omitted: anyone who reads the trace could use them."""


class QlogObserver:
    """A codec's `Observer` that writes to a trace."""

    __slots__ = ("_trace",)

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def _created(self, stream_id: int, frame: events.Frame) -> None:
        self._trace.log(events.Http3FrameCreated(stream_id=stream_id, frame=frame))

    def _parsed(self, stream_id: int, frame: events.Frame) -> None:
        self._trace.log(events.Http3FrameParsed(stream_id=stream_id, frame=frame))

    def headers_sent(self, stream_id: int, fields: Sequence[Field]) -> None:
        self._created(stream_id, _headers_frame(fields))

    def data_sent(self, stream_id: int, length: int) -> None:
        self._created(stream_id, _data_frame(length))

    def goaway_sent(self, control_stream: int, value: int) -> None:
        self._created(control_stream, _goaway_frame(value))

    def headers_received(self, stream_id: int, fields: Sequence[Field]) -> None:
        self._parsed(stream_id, _headers_frame(fields))

    def data_received(self, stream_id: int, length: int) -> None:
        self._parsed(stream_id, _data_frame(length))

    def settings_received(self, settings: dict[int, int]) -> None:
        self.parameters("remote", settings)

    def goaway_received(self, control_stream: int, value: int) -> None:
        self._parsed(control_stream, _goaway_frame(value))

    def priority_updated(self, element_id: int, value: bytes) -> None:
        self._trace.log(
            events.Http3PriorityUpdated(
                stream_id=element_id, new=value.decode("ascii", "backslashreplace")
            )
        )

    def parameters(self, initiator: str, settings: dict[int, int]) -> None:
        """Log the settings of one side, `local` or `remote`."""
        self._trace.log(
            events.Http3ParametersSet(
                initiator=initiator,
                max_field_section_size=settings.get(Setting.MAX_FIELD_SECTION_SIZE),
                max_table_capacity=settings.get(Setting.QPACK_MAX_TABLE_CAPACITY),
                blocked_streams_count=settings.get(Setting.QPACK_BLOCKED_STREAMS),
            )
        )


def trace_codec(codec: H3Connection, trace: Trace) -> None:
    """Log the frames of a codec from now on, beginning with the settings known so far.

    Setting `codec.observer` to None ends it.
    """
    codec.observer = observer = QlogObserver(trace)
    settings = codec.settings
    observer.parameters(
        "local",
        {
            Setting.QPACK_MAX_TABLE_CAPACITY: settings.qpack_max_table_capacity,
            Setting.QPACK_BLOCKED_STREAMS: settings.qpack_blocked_streams,
            Setting.MAX_FIELD_SECTION_SIZE: settings.max_field_section_size,
        },
    )
    if codec.received_settings is not None:
        observer.parameters("remote", codec.received_settings)


def _headers_frame(fields: Sequence[Field]) -> events.Frame:
    return {"frame_type": "headers", "headers": _fields(fields)}


def _goaway_frame(value: int) -> events.Frame:
    return {"frame_type": "goaway", "id": value}


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
