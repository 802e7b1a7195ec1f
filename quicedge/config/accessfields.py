"""Valid values of `log.access_fields`: the members of `telemetry.access.AccessRecord`."""

from __future__ import annotations

from typing import Final

ACCESS_FIELDS: Final = (
    "time", "method", "authority", "path", "status", "outcome", "reason", "bytes_received",
    "bytes_sent", "total_seconds", "queue_seconds", "connect_seconds", "first_byte_seconds",
    "response_seconds", "upstream", "server", "hedge", "client", "protocol", "quic_version",
    "tls_group", "client_subject", "client_fingerprint",
    "connection_id", "stream_id", "smoothed_rtt", "min_rtt", "congestion_window",
    "bytes_in_flight", "packets_lost", "limited_by", "user_agent", "trace_id", "tunnel",
)  # fmt: skip
