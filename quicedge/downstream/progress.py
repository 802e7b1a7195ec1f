"""Progress of the streams of a connection, as deadlines and the detection of stalls see it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Bytes that the client has taken, or not yet. "Taken" is what the transport can tell:
    acknowledged over QUIC, written to the kernel over TCP."""

    @property
    def delivered(self) -> int:
        """Bytes that the client has taken, over all streams."""

    def acknowledged_bytes(self, stream_id: int) -> int:
        """Bytes of a stream that the client has taken."""

    def unacknowledged_bytes(self, stream_id: int) -> int:
        """Bytes written to a stream that the client has not taken."""

    def unsent_bytes(self, stream_id: int) -> int:
        """Bytes written to a stream and not yet sent."""

    def is_flow_blocked(self, stream_id: int) -> bool:
        """Whether the client's flow control holds the stream back."""
