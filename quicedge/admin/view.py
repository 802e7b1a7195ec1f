"""Resources of the admin API, and `EdgeView`, the interface by which it queries the supervisor."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Protocol

from msgspec import Meta, Struct, field

from quicedge.acme.status import AcmeStatus
from quicedge.config.schema import Config
from quicedge.native import Core
from quicedge.proxy.alt_svc import Advertising
from quicedge.telemetry.comparison import Comparison
from quicedge.telemetry.spans import SpanCounts
from quicedge.telemetry.stats import (
    ConnectionQuery,
    ConnectionStats,
    FollowAnswer,
    KeyUpdateVerdict,
    TraceAction,
    TraceAnswer,
    WorkerStats,
)
from quicedge.telemetry.totals import Totals

QlogLevel = Literal["core", "base", "extra"]


class EdgeState(StrEnum):
    """The life of the edge, in this order."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"


class WorkerState(StrEnum):
    """The life of a worker process, in this order."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"


class ListenerStatus(Struct, frozen=True, kw_only=True):
    """One address that the edge listens on."""

    address: str
    """The bound address, `host:port` or `[v6]:port`."""
    protocols: list[str] = field(default_factory=list)
    """Offered protocols by ALPN name, as configured at start."""
    sockets: int
    """UDP sockets: one per worker, or none without HTTP/3."""
    tcp_sockets: int = 0
    receive_buffer: int
    """Bytes that the kernel granted each socket."""
    receive_buffer_wanted: int
    send_buffer: int
    send_buffer_wanted: int
    steering: bool
    """The kernel steers datagrams to their worker by connection ID."""


class WorkerStatus(Struct, frozen=True, kw_only=True):
    """One slot and the worker process in it."""

    slot: int
    state: WorkerState
    pid: int | None
    restarts: int
    """Workers of this slot that died and were replaced."""
    uptime_seconds: float | None
    stats: WorkerStats | None
    """None when the worker did not answer."""


class CertificateStatus(Struct, frozen=True, kw_only=True):
    """A certificate that is served."""

    file: str
    names: list[str]
    """DNS names and addresses that it covers."""
    not_before: float
    """Seconds since the epoch, as is `not_after`."""
    not_after: float
    """When it or an intermediate certificate of its chain expires."""


class PeerStatus(Struct, frozen=True, kw_only=True):
    """An address of the fleet."""

    address: str
    server_id: str | None
    """Hexadecimal; None: it never answered."""
    up: bool
    this_host: bool
    answered_seconds: float | None
    """Since its last answer."""
    round_trip_seconds: float | None


class FleetStatus(Struct, frozen=True, kw_only=True):
    """The hosts that forward datagrams to each other."""

    server_id: str
    peers: list[PeerStatus]


class AltSvcReason(StrEnum):
    """Why clients that HTTP/3 was advertised to probably do not arrive."""

    NO_DATAGRAMS = "no UDP datagram arrives"
    """A firewall or a port that is not forwarded."""
    NO_HANDSHAKES = "UDP datagrams arrive, but no handshake begins"
    """See `datagrams_dropped` for what became of them."""
    HANDSHAKES_FAIL = "handshakes fail"
    """Our answers may not reach clients, or large datagrams are lost."""


class AltSvcStatus(Struct, frozen=True, kw_only=True):
    """Whether a TCP listener advertises HTTP/3, and whether clients arrive."""

    listener: str
    state: Advertising
    withdrawn_seconds: float | None
    """Since HTTP/3 was withdrawn; None: it is advertised."""
    reason: AltSvcReason | None
    """Why it is withdrawn, probably."""
    advertised: int
    """Client addresses that got an advertisement since the start; `arrived` over QUIC, `missed` the
    time, or are still `waiting`."""
    arrived: int
    missed: int
    waiting: int
    networks_missing: int
    """Networks of clients that did not arrive since any client did; from `networks_needed` on,
    HTTP/3 is withdrawn."""
    networks_needed: int
    withdrawals: int
    """Since the start."""


class Status(Struct, frozen=True, kw_only=True):
    """The edge as a whole."""

    version: str
    core: Core
    """What packets pass through: the compiled core, or Python."""
    state: EdgeState
    pid: int
    uptime_seconds: float
    config_path: str | None
    reloads: int
    """Successful reloads of the configuration."""
    last_reload_error: str | None
    """Why the last reload failed; None when it succeeded."""
    connections: int
    listeners: list[ListenerStatus]
    workers: list[WorkerStatus]
    ended: Totals = Totals()
    """What workers had counted that have ended, or do not answer: to be added to what the others
    count."""
    certificates: list[CertificateStatus] = []
    acme: AcmeStatus | None = None
    """None: certificates are not ordered by ACME."""
    alt_svc: list[AltSvcStatus] = []
    """By TCP listener, where HTTP/3 is served too."""
    spans: SpanCounts | None = None
    """None when spans are not exported."""
    fleet: FleetStatus | None = None
    """None: hosts do not forward to each other."""
    trace_directory: str | None = None
    """Where traces are written; None when tracing is not configured."""


class Connections(Struct, frozen=True, kw_only=True):
    """A page of the connections of all workers."""

    total: int
    """Connections that match, on all pages."""
    limit: int
    offset: int
    unanswered: list[int]
    """Slots whose workers did not answer; their connections are missing."""
    connections: list[ConnectionStats]


class CloseRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """How to close a connection: HTTP/3 error code and reason phrase."""

    code: Annotated[int, Meta(ge=0, lt=1 << 62)] = 0x100
    """H3_NO_ERROR by default (RFC 9114 section 8.1)."""
    reason: Annotated[str, Meta(max_length=200)] = "closed by operator"


class LogLevelRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The log level until the next reload."""

    level: Literal["debug", "info", "warning", "error"]


class EdgeView(Protocol):
    """The edge as seen by the admin API."""

    @property
    def state(self) -> EdgeState: ...

    @property
    def ready(self) -> bool:
        """Whether the edge is running and every worker is ready."""

    async def status(self) -> Status: ...

    @property
    def config(self) -> Config:
        """The configuration in use, with all its passwords."""

    async def configure(self, document: bytes, *, is_json: bool, dry_run: bool) -> list[str]:
        """Change to the configuration in a TOML or JSON document until the next reload.

        Returns what has changed, or with `dry_run` would change. Raises RefusedError; then nothing
        has.
        """

    async def connections(self, query: ConnectionQuery) -> Connections:
        """The page that a validated query selects."""

    async def comparison(self) -> Comparison:
        """Recent connections by protocol, side by side."""

    async def connection(self, connection_id: str) -> ConnectionStats | None:
        """One connection in detail; None when no worker has it."""

    async def close_connection(self, connection_id: str, code: int, reason: str) -> bool:
        """Close a connection; False when no worker has it."""

    async def update_keys(self, connection_id: str) -> KeyUpdateVerdict:
        """Have a connection update its keys as soon as its peer permits."""

    async def set_log_level(self, level: str) -> None:
        """Set the log level of this process and all workers."""

    @property
    def trace_directory(self) -> str | None:
        """Where traces are written; None when tracing is not configured."""

    async def trace_connection(self, connection_id: str, action: TraceAction) -> TraceAnswer:
        """Start or stop the trace of a connection."""

    async def follow_connection(
        self, worker: int, connection_id: str, follower: str, level: QlogLevel
    ) -> FollowAnswer:
        """Events of a connection since the follower's last call."""
