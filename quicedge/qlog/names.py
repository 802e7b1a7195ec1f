"""Old and current names of events, packet types, frames and members.

Current: draft-ietf-quic-qlog-quic-events-13 and draft-ietf-quic-qlog-h3-events-13. Older names are
those of qlog 0.1 to 0.4 (draft-marx-*, draft-ietf-quic-qlog-*-00 to -10) and of the writers that
use them: aioquic, ngtcp2, picoquic, quic-go, quiche, mvfst.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

CATEGORIES: Final = {
    "connectivity": "quic",
    "transport": "quic",
    "security": "quic",
    "recovery": "quic",
    "quic": "quic",
    "http": "http3",
    "h3": "http3",
    "http3": "http3",
    "generic": "loglevel",
    "info": "loglevel",
    "loglevel": "loglevel",
    "simulation": "simulation",
    "loss": "quic",
    "metric_update": "quic",
}
"""Maps old categories and namespaces to current namespaces."""

EXCEPTIONS: Final = {
    "recovery:metrics_updated": "quic:recovery_metrics_updated",
    "recovery:metric_update": "quic:recovery_metrics_updated",
    "recovery:parameters_set": "quic:recovery_parameters_set",
    "recovery:loss_timer_updated": "quic:timer_updated",
    "recovery:loss_timer_set": "quic:timer_updated",
    "recovery:congestion_metric_update": "quic:recovery_metrics_updated",
    "recovery:spurious_loss_detected": "quic:spurious_loss",
    "metric_update:congestion_metric_update": "quic:recovery_metrics_updated",
    "loss:packets_lost": "quic:packet_lost",
    "loss:loss_alarm": "quic:timer_updated",
    "transport:packet_drop": "quic:packet_dropped",
    "transport:connection_close": "quic:connection_closed",
    "quic:loss_timer_updated": "quic:timer_updated",
    "transport:datagrams_sent": "quic:udp_datagrams_sent",
    "transport:datagrams_received": "quic:udp_datagrams_received",
    "transport:datagram_sent": "quic:udp_datagrams_sent",
    "transport:datagram_received": "quic:udp_datagrams_received",
    "transport:datagram_dropped": "quic:udp_datagram_dropped",
    "quic:datagrams_sent": "quic:udp_datagrams_sent",
    "quic:datagrams_received": "quic:udp_datagrams_received",
    "quic:datagram_dropped": "quic:udp_datagram_dropped",
    "transport:data_moved": "quic:stream_data_moved",
    "quic:data_moved": "quic:stream_data_moved",
    "http:data_moved": "quic:stream_data_moved",
    "connectivity:path_updated": "quic:tuple_assigned",
    "quic:path_assigned": "quic:tuple_assigned",
    "connectivity:connection_id_update": "quic:connection_id_updated",
    "connectivity:new_connection_id": "quic:connection_id_updated",
    "security:key_retired": "quic:key_discarded",
    "transport:transport_state_update": "quic:connection_state_updated",
    "transport:priority_updated": "http3:priority_updated",
    "http:capsule_created": "http:capsule_created",
    "http:capsule_parsed": "http:capsule_parsed",
    "info:message": "loglevel:info",
    "generic:message": "loglevel:info",
    "generic:error": "loglevel:error",
    "generic:warning": "loglevel:warning",
}
"""Old names whose current names do not follow from the category alone."""


@lru_cache(maxsize=4096)
def current_name(name: str) -> str:
    """The current name of an event, such as `quic:packet_sent` for `transport:packet_sent`.

    An unknown name is returned unchanged, in lower case.
    """
    lowered = name.lower()
    found = EXCEPTIONS.get(lowered)
    if found is not None:
        return found
    category, colon, event = lowered.partition(":")
    namespace = CATEGORIES.get(category)
    return f"{namespace}:{event}" if colon and namespace else lowered


COLUMNS: Final = {"event_type": "event", "event_name": "name", "timestamp": "time"}
"""Maps columns of `event_fields` (before draft 02), in lower case, to current names."""

FRAMES: Final = {"crypto_frame": "crypto", "rst_stream": "reset_stream"}
"""Maps frame types of mvfst, in lower case, to current names."""

PACKET_TYPES: Final = {
    "initial": "initial",
    "handshake": "handshake",
    "0rtt": "0RTT",
    "0-rtt": "0RTT",
    "0_rtt": "0RTT",
    "zerortt": "0RTT",
    "zero_rtt": "0RTT",
    "1rtt": "1RTT",
    "1-rtt": "1RTT",
    "1_rtt": "1RTT",
    "1rtt protected": "1RTT",
    "onertt": "1RTT",
    "one_rtt": "1RTT",
    "retry": "retry",
    "version_negotiation": "version_negotiation",
    "version negotiation": "version_negotiation",
    "stateless_reset": "stateless_reset",
}
"""Maps spellings of packet types, in lower case, to current names."""

SPACES: Final = {"initial": "initial", "handshake": "handshake"}
"""Maps packet types to packet number spaces; 0-RTT and 1-RTT share `application_data`."""


def space_of(packet_type: str) -> str:
    """The packet number space of a packet type (RFC 9000 section 12.3)."""
    return SPACES.get(packet_type, "application_data")


PARAMETERS: Final = {
    "owner": "initiator",
    "idle_timeout": "max_idle_timeout",
    "max_packet_size": "max_udp_payload_size",
    "original_connection_id": "original_destination_connection_id",
    "retry_connection_id": "retry_source_connection_id",
    "handshake_connection_id": "initial_source_connection_id",
    "disable_migration": "disable_active_migration",
}
"""Members of `parameters_set`."""

METRICS: Final = {
    "cwnd": "congestion_window",
    "current_cwnd": "congestion_window",
    "rtt_variation": "rtt_variance",
}
"""Members of `recovery_metrics_updated`."""

RTT_METRICS: Final = ("min_rtt", "smoothed_rtt", "latest_rtt", "rtt_variance")
"""Metrics that are durations."""

OLDER_MEMBERS: Final = {
    *PARAMETERS, *METRICS, "error_code_bytes", "id", "length", "packet_size", "packet_type",
    "raw_error_code", "reset_token", "retire_before", "stream_type_id", "type",
}  # fmt: skip
"""Members of older drafts that were renamed or moved."""
