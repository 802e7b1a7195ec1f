"""Data that comes in pieces with gaps between them: so many, and no more."""

from __future__ import annotations

from typing import Any

from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.stream import QuicStream

from quicedge.config.limits import MAX_STREAM_GAPS


def check_gaps(stream: QuicStream, frame_type: int) -> None:
    """Raises QuicConnectionError when too many pieces of a stream wait for what is before them.

    Each piece costs a record and every later one a search, however few bytes it has.
    """
    ranges: Any = stream.receiver._ranges
    if len(ranges) > MAX_STREAM_GAPS:
        raise QuicConnectionError(
            error_code=QuicErrorCode.PROTOCOL_VIOLATION,
            frame_type=frame_type,
            reason_phrase="Too many gaps in the data of a stream",
        )
