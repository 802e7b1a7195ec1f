"""Immutable snapshots of connections and workers, and queries over them.

Names follow qlog (draft-ietf-quic-qlog-quic-events, `recovery_metrics_updated`); connections on TCP
have the kernel's facts (TCP_INFO) under the same names, with segments as packets. Times are in
seconds, sizes in bytes, rates in bits per second. `None` means unknown, not measured, or that the
protocol has no such thing; zero is a measured zero.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct, field, structs

from quicedge.config.host_port import HostPort
from quicedge.config.limits import ADMIN_DEFAULT_ROWS, ADMIN_MAX_ROWS
from quicedge.telemetry.discovery import DiscoveryStats
from quicedge.telemetry.metrics import Metrics
from quicedge.telemetry.protocols import HttpProtocol, TransportKind
from quicedge.telemetry.upstreams import UpstreamState


class ConnectionState(StrEnum):
    """State of a connection, in order."""

    FIRST_FLIGHT = "firstflight"
    """No authentic packet of the client was processed."""
    HANDSHAKE = "handshake"
    CONNECTED = "connected"
    CLOSING = "closing"
    """Closed by us (RFC 9000 section 10.2.1)."""
    DRAINING = "draining"
    """Closed by the client (section 10.2.2)."""
    TERMINATED = "terminated"


class Direction(StrEnum):
    """The direction in which a connection transfers most."""

    SENDING = "sending"
    RECEIVING = "receiving"


class TcpLimit(StrEnum):
    """What limited sending on TCP, as the kernel reports it; the first is also QUIC's name."""

    RECEIVE_WINDOW = "connection_flow_control"
    """The client's receive window was full."""
    SEND_BUFFER = "send_buffer"
    """The kernel's send buffer was full, and the client's window was not."""
    PATH = "path"
    """Data was on its way and not acknowledged: the path set the pace."""
    IDLE = "idle"
    """Everything sent was acknowledged."""


class PathStats(Struct, frozen=True, kw_only=True):
    """One network path of a connection (RFC 9000 section 9)."""

    local_address: str
    """`host:port` or `[v6]:port`."""
    remote_address: str
    validated: bool
    """The peer has answered a PATH_CHALLENGE or completed the handshake on it."""
    active: bool
    """Packets are sent on it."""
    bytes_received: int | None = None
    bytes_sent: int | None = None


class StreamStats(Struct, frozen=True, kw_only=True):
    """One open stream of a connection."""

    stream_id: int
    direction: str
    """`bidirectional` or `unidirectional`."""
    bytes_received: int = 0
    bytes_sent: int = 0
    send_buffered: int = 0
    """Bytes written to the stream and not yet sent."""
    method: str | None = None
    authority: str | None = None
    path: str | None = None
    status: int | None = None
    age_seconds: float | None = None


class ConnectionStats(Struct, frozen=True, kw_only=True):
    """Snapshot of one connection at `time`."""

    # --- identity ---------------------------------------------------------------------------
    id: str
    """Stable name, hex: the original destination connection ID on QUIC, a random one on TCP."""
    worker: int
    """Slot of the worker that holds it."""
    time: float
    """When the snapshot was taken, seconds since the epoch."""
    transport: TransportKind = TransportKind.QUIC
    protocol: HttpProtocol | None = None
    """What is spoken on it."""
    odcid: str = ""
    """Original destination connection ID, hex."""
    scids: list[str] = field(default_factory=list)
    """Connection IDs that we issued and the peer may use, hex."""
    dcid: str = ""
    """Connection ID of the peer that we send to, hex."""

    # --- addresses --------------------------------------------------------------------------
    remote_address: str = ""
    """Address of the client, `host:port` or `[v6]:port`; validated as soon as there is one."""
    local_address: str = ""
    """The address that the client sends to."""
    path_validated: bool = False
    migrations: int | None = None
    """Changes of the active path since the handshake, including NAT rebindings; QUIC only."""

    # --- negotiation ------------------------------------------------------------------------
    version: str = ""
    """QUIC version: `v1`, `v2`, or its number in hex; empty on TCP."""
    tls_version: str | None = None
    """`TLSv1.3` or `TLSv1.2`."""
    alpn: str | None = None
    cipher: str | None = None
    """TLS cipher suite by its registered name."""
    group: str | None = None
    """Key exchange group by its registered name."""
    signature: str | None = None
    """TLS signature scheme of our certificate's key by its registered name; QUIC only."""
    hello_retry: bool | None = None
    """The client was sent a HelloRetryRequest."""
    sni: str | None = None
    """Server name requested by the client."""
    retry: bool | None = None
    """The client presented a Retry token."""
    resumed: bool | None = None
    """The handshake resumed an earlier session."""
    early_data: bool | None = None
    """0-RTT data was accepted."""
    key_updates: int | None = None

    # --- lifetime ---------------------------------------------------------------------------
    state: ConnectionState = ConnectionState.HANDSHAKE
    """`firstflight`, `handshake`, `connected`, `closing`, `draining` or `terminated`."""
    created_at: float = 0.0
    """First packet, seconds since the epoch."""
    age_seconds: float = 0.0
    idle_seconds: float | None = None
    """Since the last packet was received."""
    handshake_seconds: float | None = None
    """From the first packet to a complete TLS handshake; on TCP including the round trip of SYN and
    SYN-ACK."""
    first_byte_seconds: float | None = None
    """From the first packet to the head of the first response that an origin gave."""

    # --- recovery and congestion ------------------------------------------------------------
    smoothed_rtt: float | None = None
    """Seconds, RFC 9002 section 5.3."""
    latest_rtt: float | None = None
    """Seconds, the latest sample."""
    min_rtt: float | None = None
    """Seconds, the minimum sample (RFC 9002 section 5.2); on TCP of the last five minutes."""
    rtt_variance: float | None = None
    """Seconds, `rttvar` of RFC 9002 section 5.3."""
    congestion_controller: str = ""
    """`cubic`, `reno`, ..."""
    congestion_state: str | None = None
    """`slow_start`, `congestion_avoidance`, `application_limited` or `recovery`."""
    congestion_window: int | None = None
    congestion_window_packets: int | None = None
    """The same in segments of `mtu` bytes; TCP only."""
    bytes_in_flight: int | None = None
    ssthresh: int | None = None
    """Bytes; None before the first congestion event."""
    pto_count: int | None = None
    """Current number of consecutive probe timeouts, or retransmission timeouts on TCP."""
    pto_total: int | None = None
    """Probe timeouts, or retransmission timeouts on TCP, since the start."""
    pacing_rate: float | None = None
    """Bits per second."""
    delivery_rate: float | None = None
    """Recent rate of acknowledged data, bits per second."""
    mtu: int | None = None
    """Maximum UDP payload, or segment on TCP, in bytes."""
    reordering: int | None = None
    """Packets by which the path is taken to reorder; TCP only."""

    # --- packets and bytes ------------------------------------------------------------------
    packets_sent: int | None = None
    packets_received: int | None = None
    bytes_sent: int = 0
    """UDP payload, or TCP payload with retransmissions."""
    bytes_received: int = 0
    bytes_acknowledged: int | None = None
    """Payload that the client has acknowledged, UDP's or TCP's."""
    packets_lost: int | None = None
    """Declared lost; on TCP segments retransmitted."""
    bytes_lost: int | None = None
    packets_spuriously_lost: int | None = None
    """Declared lost and later acknowledged; on TCP segments that arrived twice."""
    packets_reordered: int | None = None
    """Received after a later one."""
    bytes_retransmitted: int | None = None
    """Stream bytes retransmitted."""
    packets_dropped: dict[str, int] = field(default_factory=dict)
    """Received and discarded, by reason (qlog `packet_dropped` triggers)."""
    ecn_state: str | None = None
    """`testing`, `unknown`, `failed` or `capable` (RFC 9000 appendix A.4)."""
    ecn_ect0_received: int | None = None
    """Packets received with ECT(0)."""
    ecn_ect1_received: int | None = None
    ecn_ce_received: int | None = None
    """Packets received with Congestion Experienced."""
    ecn_ce_reported: int | None = None
    """Our packets that the peer reported as CE."""

    # --- streams and flow control -----------------------------------------------------------
    streams_open: int = 0
    """Request streams that are not finished, in either direction."""
    streams_total: int = 0
    """Request streams opened by the client so far."""
    requests: int = 0
    """Requests received."""
    requests_active: int = 0
    routes: list[str] = field(default_factory=list)
    """Routes that its requests matched, `HOST` and `PATH` as configured."""
    resets_sent: int | None = None
    """RESET_STREAM frames, or RST_STREAM in HTTP/2."""
    resets_received: int | None = None
    stop_sending_sent: int | None = None
    """STOP_SENDING frames."""
    stop_sending_received: int | None = None
    receive_window: int | None = None
    """Connection flow-control credit of the client, in bytes; our receive window on TCP."""
    send_window: int | None = None
    """Our connection flow-control credit, in bytes; the client's receive window on TCP."""
    send_buffered: int | None = None
    """Bytes written to all streams and not yet sent."""
    main_direction: Direction = Direction.SENDING
    """`sending` or `receiving`: the direction of most stream data."""
    limited_by: str | None = None
    """What limited that direction for most of the time that it was not idle, a value of
    `quicedge.qlog.blocked_time.Limit`, or of `TcpLimit` on TCP."""
    sending_limited_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of the connection's life by what limited sending, with the same names."""
    receiving_limited_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of the connection's life by what limited receiving."""

    # --- detail, only in queries for one connection -----------------------------------------
    close_reason: str | None = None
    """How the connection ended, with the error code and reason phrase sent."""
    paths: list[PathStats] | None = None
    streams: list[StreamStats] | None = None
    local_parameters: dict[str, Any] | None = None
    """Transport parameters that we sent, named as in RFC 9000 section 18.2."""
    remote_parameters: dict[str, Any] | None = None


class KeyUpdateVerdict(StrEnum):
    """What becomes of a request to update the keys of a connection."""

    REQUESTED = "requested"
    NOT_FOUND = "no such connection"
    NO_HANDSHAKE = "its handshake is not complete"
    ON_TCP = "Python's ssl module has no key update; only connections on QUIC have one"


class TraceAction(StrEnum):
    START = "start"
    STOP = "stop"


class TraceAnswer(Struct, frozen=True, kw_only=True):
    """The result of starting or stopping a trace."""

    found: bool
    """Whether the connection exists."""
    file: str | None = None
    """Name of the trace file; None when there is none."""


class FollowAnswer(Struct, frozen=True, kw_only=True):
    """Events of a connection since the previous call."""

    found: bool
    """Whether there is such a connection, or was when the following began."""
    lines: bytes = b""
    """qlog events as JSON text sequences, the header first."""
    ended: bool = False
    """Nothing more will come."""


class WorkerStats(Struct, frozen=True, kw_only=True):
    """Counters of one worker since its start, and gauges of now."""

    slot: int
    pid: int
    bank: int = 0
    draining: bool = False
    uptime_seconds: float = 0.0
    resident_bytes: int = 0
    connections: int = 0
    """Open connections, including handshakes in progress."""
    connections_by_protocol: dict[HttpProtocol, int] = field(default_factory=dict)
    handshakes_open: int = 0
    """Handshakes in progress."""
    requests_active: int = 0
    connections_total: int = 0
    handshakes_completed: int = 0
    handshakes_failed: int = 0
    requests_total: int = 0
    retries_sent: int = 0
    version_negotiations_sent: int = 0
    stateless_resets_sent: int = 0
    datagrams_received: int = 0
    datagrams_forwarded: int = 0
    fleet_messages: dict[str, int] = field(default_factory=dict)
    """Messages between hosts, by what became of them; empty without peers."""
    """Forwarded to the worker of their connection."""
    datagrams_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    datagrams_dropped: dict[str, int] = field(default_factory=dict)
    """By reason."""
    tcp_refused: dict[str, int] = field(default_factory=dict)
    """TCP connections refused before TLS, those of port 80 included, by reason."""
    tcp_failed: dict[str, int] = field(default_factory=dict)
    """TCP connections that ended before a session began, by reason."""
    redirects: dict[str, int] = field(default_factory=dict)
    """Responses of port 80, by status."""
    requests_refused: dict[str, int] = field(default_factory=dict)
    """Requests refused and streams ended by a limit, by reason."""
    early_data: dict[str, int] = field(default_factory=dict)
    """Connections with requests in 0-RTT data, by the verdict on their tickets."""
    metrics: Metrics = field(default_factory=Metrics)
    """By route, upstream and listener."""
    servers: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """By upstream and server: `up`, connections, requests."""
    discoveries: dict[str, list[DiscoveryStats]] = field(default_factory=dict)
    """Names whose servers are looked up in DNS, by upstream; only those that have any."""
    upstreams: dict[str, UpstreamState] = field(default_factory=dict)
    """What is known of each as a whole."""
    traces_running: int = 0
    """qlog traces being written."""
    trace_writes_dropped: int = 0
    """Writes of qlog events dropped because of a slow or full disk."""
    live_writes_dropped: int = 0
    """Writes of qlog events that followers did not read in time."""
    log_lines_dropped: int = 0
    """Log lines and access records dropped because of a slow disk."""
    spans_dropped: int = 0
    """Spans that the supervisor did not read in time."""


SORT_KEYS = frozenset(
    item.name
    for item in structs.fields(ConnectionStats)
    if item.type
    in (str, int, float, int | None, float | None, str | None, TransportKind, HttpProtocol | None)
)
"""Fields that connections can be sorted by."""


class ConnectionQuery(Struct, frozen=True, kw_only=True):
    """Filters, order and page of connections. All filters must match."""

    address: str | None = None
    """Client address: `192.0.2.1`, `192.0.2.0/24`, `2001:db8::/32`, or `192.0.2.1:4433`."""
    sni: str | None = None
    cid: str | None = None
    """Prefix of the connection's id or of any of its connection IDs, hex."""
    state: ConnectionState | None = None
    protocol: HttpProtocol | None = None
    """`h3`, `h2` or `http/1.1`."""
    transport: TransportKind | None = None
    """`quic` or `tcp`."""
    route: str | None = None
    """`HOST` and `PATH` of a route, as configured: `www.example.com/api`."""
    sort: str = "-created_at"
    """A field of `ConnectionStats`, with a leading `-` in descending order. Unknown values last."""
    limit: Annotated[int, Meta(ge=0, le=ADMIN_MAX_ROWS)] = ADMIN_DEFAULT_ROWS
    offset: Annotated[int, Meta(ge=0, le=ADMIN_MAX_ROWS)] = 0


class ConnectionPage(Struct, frozen=True, kw_only=True):
    """One page of the matching connections, and their total number."""

    total: int
    connections: list[ConnectionStats]


class QueryError(ValueError):
    """An invalid query; the message names the parameter."""


def check_query(query: ConnectionQuery) -> None:
    """Raises QueryError for an unknown sort field, a bad address or cid, or too deep a page."""
    if query.sort.removeprefix("-") not in SORT_KEYS:
        raise QueryError(f"sort: unknown field {query.sort.removeprefix('-')!r}")
    if query.offset + query.limit > ADMIN_MAX_ROWS:
        raise QueryError(f"offset + limit: at most {ADMIN_MAX_ROWS}; narrow the filter instead")
    if query.cid is not None and query.cid.strip("0123456789abcdefABCDEF"):
        raise QueryError("cid: not hexadecimal")
    if query.address is not None:
        _address_matcher(query.address)


def select(connections: Iterable[ConnectionStats], query: ConnectionQuery) -> ConnectionPage:
    """The page of `connections` that the query selects."""
    matches = _matcher(query)
    found = [connection for connection in connections if matches(connection)]
    key = query.sort.removeprefix("-")
    descending = query.sort.startswith("-")
    known = [connection for connection in found if getattr(connection, key) is not None]
    unknown = [connection for connection in found if getattr(connection, key) is None]
    # Ties are ordered by id, so that pages do not overlap.
    known.sort(key=lambda connection: connection.id)
    known.sort(key=lambda connection: getattr(connection, key), reverse=descending)
    unknown.sort(key=lambda connection: connection.id)
    page = (known + unknown)[query.offset : query.offset + query.limit]
    return ConnectionPage(total=len(found), connections=page)


def first_rows(query: ConnectionQuery) -> ConnectionQuery:
    """The query for each worker, from whose answers `merge` builds the page."""
    return structs.replace(query, offset=0, limit=query.offset + query.limit)


def merge(pages: Iterable[ConnectionPage], query: ConnectionQuery) -> ConnectionPage:
    """The page that `query` selects, from each worker's answer to `first_rows(query)`."""
    pages = list(pages)
    rows = [connection for page in pages for connection in page.connections]
    return ConnectionPage(
        total=sum(page.total for page in pages), connections=select(rows, query).connections
    )


def _matcher(query: ConnectionQuery) -> Callable[[ConnectionStats], bool]:
    tests: list[Callable[[ConnectionStats], bool]] = []
    if query.address is not None:
        tests.append(_address_matcher(query.address))
    if query.sni is not None:
        sni = query.sni.lower()
        tests.append(lambda connection: (connection.sni or "").lower() == sni)
    if query.state is not None:
        tests.append(lambda connection: connection.state is query.state)
    if query.protocol is not None:
        tests.append(lambda connection: connection.protocol is query.protocol)
    if query.transport is not None:
        tests.append(lambda connection: connection.transport is query.transport)
    if query.route is not None:
        tests.append(lambda connection: query.route in connection.routes)
    if query.cid is not None:
        cid = query.cid.lower()
        tests.append(
            lambda connection: (
                connection.id.startswith(cid)
                or connection.odcid.startswith(cid)
                or any(scid.startswith(cid) for scid in connection.scids)
            )
        )
    return lambda connection: all(test(connection) for test in tests)


def _address_matcher(text: str) -> Callable[[ConnectionStats], bool]:
    try:
        network = ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        try:
            host, port = HostPort.parse(text)
            wanted = str(HostPort(str(ipaddress.ip_address(host)), port))
        except ValueError:
            raise QueryError(f"address: {text!r} is not an address, network or host:port") from None
        return lambda connection: connection.remote_address == wanted

    def within(connection: ConnectionStats) -> bool:
        try:
            address = HostPort.parse(connection.remote_address).ip
        except ValueError:
            return False
        return address is not None and address in network

    return within
