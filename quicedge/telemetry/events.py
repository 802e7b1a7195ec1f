"""Events of a connection, as typed structures with the names and members of qlog.

draft-ietf-quic-qlog-quic-events-13 and -h3-events-13. A structure is written as the `data` of an
event; `name` and `importance` (core, base, extra) belong to its type. Times are in milliseconds, as
in qlog; absent members keep their defaults and are not written.
"""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct, field

CORE, BASE, EXTRA = 0, 1, 2
LEVELS = {"core": CORE, "base": BASE, "extra": EXTRA}

Frame = dict[str, Any]
"""A QUIC or HTTP/3 frame as defined by the drafts, discriminated by `frame_type`."""


class Event(Struct, omit_defaults=True, gc=False, kw_only=True):
    """Base class of events."""

    name: ClassVar[str]
    importance: ClassVar[int] = BASE


class RawInfo(Struct, omit_defaults=True, gc=False):
    """Sizes of a packet or frame, in bytes."""

    length: int | None = None
    payload_length: int | None = None


class PacketHeader(Struct, omit_defaults=True, gc=False):
    packet_type: str
    packet_number: int | None = None
    scid: str | None = None
    dcid: str | None = None


class PacketSent(Event):
    name = "quic:packet_sent"
    importance = CORE
    header: PacketHeader
    frames: list[Frame] = field(default_factory=list)
    raw: RawInfo | None = None
    is_mtu_probe_packet: bool = False


class PacketReceived(Event):
    name = "quic:packet_received"
    importance = CORE
    header: PacketHeader
    frames: list[Frame] = field(default_factory=list)
    raw: RawInfo | None = None


class PacketDropped(Event):
    name = "quic:packet_dropped"
    raw: RawInfo | None = None
    trigger: str = ""


class PacketBuffered(Event):
    """Buffered until its keys are available."""

    name = "quic:packet_buffered"
    raw: RawInfo | None = None
    trigger: str = ""


class PacketLost(Event):
    name = "quic:packet_lost"
    importance = CORE
    header: PacketHeader
    trigger: str = ""


class RecoveryMetricsUpdated(Event):
    """Only the members that changed since the previous event."""

    name = "quic:recovery_metrics_updated"
    importance = CORE
    min_rtt: float | None = None
    smoothed_rtt: float | None = None
    latest_rtt: float | None = None
    rtt_variance: float | None = None
    pto_count: int | None = None
    congestion_window: int | None = None
    bytes_in_flight: int | None = None
    ssthresh: int | None = None
    pacing_rate: int | None = None
    """Bits per second."""


class RecoveryParametersSet(Event):
    name = "quic:recovery_parameters_set"
    reordering_threshold: int
    time_threshold: float
    timer_granularity: int
    initial_rtt: float
    max_datagram_size: int
    initial_congestion_window: int


class CongestionStateUpdated(Event):
    name = "quic:congestion_state_updated"
    old: str | None = None
    new: str = ""


class VersionInformation(Event):
    name = "quic:version_information"
    importance = CORE
    server_versions: list[str] | None = None
    client_versions: list[str] | None = None
    chosen_version: str | None = None


class AlpnInformation(Event):
    name = "quic:alpn_information"
    importance = CORE
    server_alpns: list[dict[str, str]] | None = None
    client_alpns: list[dict[str, str]] | None = None
    chosen_alpn: dict[str, str] | None = None


class ParametersSet(Event):
    """Transport parameters of one endpoint, named as in RFC 9000 section 18.2."""

    name = "quic:parameters_set"
    importance = CORE
    initiator: str
    """`local` or `remote`."""
    tls_cipher: str | None = None
    original_destination_connection_id: str | None = None
    initial_source_connection_id: str | None = None
    retry_source_connection_id: str | None = None
    disable_active_migration: bool | None = None
    max_idle_timeout: int | None = None
    max_udp_payload_size: int | None = None
    ack_delay_exponent: int | None = None
    max_ack_delay: int | None = None
    active_connection_id_limit: int | None = None
    initial_max_data: int | None = None
    initial_max_stream_data_bidi_local: int | None = None
    initial_max_stream_data_bidi_remote: int | None = None
    initial_max_stream_data_uni: int | None = None
    initial_max_streams_bidi: int | None = None
    initial_max_streams_uni: int | None = None
    max_datagram_frame_size: int | None = None
    grease_quic_bit: bool | None = None
    """RFC 9287."""
    unknown_parameters: list[dict[str, Any]] | None = None
    """`id` and `value` (hexadecimal) of unknown parameters."""


class ConnectionStarted(Event):
    name = "quic:connection_started"
    local: dict[str, Any]
    remote: dict[str, Any]


class ConnectionStateUpdated(Event):
    name = "quic:connection_state_updated"
    old: str | None = None
    new: str = ""


class ConnectionClosed(Event):
    name = "quic:connection_closed"
    initiator: str | None = None
    application_error: str | None = None
    connection_error: str | None = None
    error_code: int | None = None
    reason: str = ""
    trigger: str = ""


class KeyUpdated(Event):
    name = "quic:key_updated"
    key_type: str
    key_phase: int


class TupleAssigned(Event):
    name = "quic:tuple_assigned"
    tuple_id: str
    tuple_remote: dict[str, Any] | None = None
    tuple_local: dict[str, Any] | None = None


class MtuUpdated(Event):
    name = "quic:mtu_updated"
    importance = EXTRA
    old: int | None = None
    new: int = 0


class EcnStateUpdated(Event):
    name = "quic:ecn_state_updated"
    importance = EXTRA
    old: str | None = None
    new: str = ""


class DataBlockedUpdated(Event):
    name = "quic:connection_data_blocked_updated"
    importance = EXTRA
    old: str | None = None
    new: str = ""
    """`blocked` or `unblocked`."""
    reason: str | None = None


class Http3ParametersSet(Event):
    name = "http3:parameters_set"
    initiator: str
    max_field_section_size: int | None = None
    max_table_capacity: int | None = None
    blocked_streams_count: int | None = None


class Http3FrameCreated(Event):
    name = "http3:frame_created"
    importance = CORE
    stream_id: int
    frame: Frame


class Http3FrameParsed(Event):
    name = "http3:frame_parsed"
    importance = CORE
    stream_id: int
    frame: Frame


class Http3PriorityUpdated(Event):
    name = "http3:priority_updated"
    stream_id: int
    new: str
    trigger: str = "client_signal_received"


class LogWarning(Event):
    name = "loglevel:warning"
    message: str
