"""Progress of the streams of an HTTP/3 connection."""

from __future__ import annotations

from quicedge.quic.connection import Connection


class Http3Progress:
    """A `downstream.progress.Progress` on top of a QUIC connection."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def delivered(self) -> int:
        return self._connection.recovery.delivered

    def acknowledged_bytes(self, stream_id: int) -> int:
        return self._connection.streams.acknowledged(stream_id)

    def unacknowledged_bytes(self, stream_id: int) -> int:
        return self._connection.streams.unacknowledged(stream_id)

    def unsent_bytes(self, stream_id: int) -> int:
        return self._connection.streams.unsent(stream_id)

    def is_flow_blocked(self, stream_id: int) -> bool:
        return self._connection.streams.is_flow_blocked(stream_id)
