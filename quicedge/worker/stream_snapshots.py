"""What snapshots of connections of all protocols share: their requests and their samples."""

from __future__ import annotations

from quicedge.downstream.progress import Progress
from quicedge.downstream.session import Stream
from quicedge.telemetry.comparison import Sample
from quicedge.telemetry.stats import StreamStats
from quicedge.telemetry.text import text


def stream_stats(stream: Stream, progress: Progress, now: float) -> StreamStats:
    """A snapshot of a request."""
    exchange = stream.exchange
    if exchange is None:
        return StreamStats(stream_id=stream.stream_id, direction="bidirectional")
    request = exchange.request
    return StreamStats(
        stream_id=stream.stream_id,
        direction="bidirectional",
        bytes_received=exchange.bytes_received,
        bytes_sent=exchange.bytes_sent,
        send_buffered=progress.unsent_bytes(stream.stream_id),
        method=text(request.method),
        authority=text(request.authority),
        path=text(request.path),
        status=exchange.status or None,
        age_seconds=now - exchange.started_at,
    )


def observed_of(sample: Sample, age: float) -> dict[str, float]:
    """The known figures of a sample by their names in histograms."""
    found = {
        "age_seconds": age,
        "smoothed_rtt_seconds": sample.smoothed_rtt,
        "handshake_seconds": sample.handshake_seconds,
        "first_byte_seconds": sample.first_byte_seconds,
        "loss_ratio": sample.packets_lost / sample.packets_sent if sample.packets_sent else None,
    }
    return {name: value for name, value in found.items() if value is not None}
