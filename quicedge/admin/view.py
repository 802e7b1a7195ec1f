"""What the admin API shows, and whom it asks: the supervisor, behind `EdgeView`."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from msgspec import Meta, Struct

from quicedge.telemetry.spans import SpanCounts
from quicedge.telemetry.stats import (
    ConnectionQuery,
    ConnectionStats,
    FollowAnswer,
    TraceAnswer,
    WorkerStats,
)

QlogLevel = Literal["core", "base", "extra"]

State = Literal["starting", "running", "draining"]


class ListenerStatus(Struct, frozen=True, kw_only=True):
    """One UDP address that the edge listens on."""

    address: str
    """Where it is bound, `host:port` or `[v6]:port`."""
    sockets: int
    """One a worker."""
    receive_buffer: int
    """Bytes that the kernel granted each socket."""
    receive_buffer_wanted: int
    send_buffer: int
    send_buffer_wanted: int
    steering: bool
    """Datagrams find their worker by connection ID, whatever their source address."""


class WorkerStatus(Struct, frozen=True, kw_only=True):
    """One slot and the worker process in it."""

    slot: int
    state: Literal["starting", "ready", "draining", "dead"]
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
    """What it covers: DNS names and addresses."""
    not_before: float
    """Seconds since 1970, as is the other."""
    not_after: float
    """When it, or an intermediate certificate of its chain, expires."""


class Status(Struct, frozen=True, kw_only=True):
    """The edge as a whole."""

    version: str
    state: State
    pid: int
    uptime_seconds: float
    config_path: str | None
    reloads: int
    """Reloads of the configuration that took effect."""
    last_reload_error: str | None
    """Why the last reload did not take effect; None when it did."""
    connections: int
    listeners: list[ListenerStatus]
    workers: list[WorkerStatus]
    certificates: list[CertificateStatus] = []
    spans: SpanCounts | None = None
    """None: spans are not exported."""
    trace_directory: str | None = None
    """Where traces are written; None: nowhere, none can be started."""


class Connections(Struct, frozen=True, kw_only=True):
    """A page of the connections of all workers."""

    total: int
    """Connections that match, on all pages."""
    limit: int
    offset: int
    unanswered: list[int]
    """Slots whose workers did not answer: their connections are missing here."""
    connections: list[ConnectionStats]


class CloseRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """How a connection is to be closed: an HTTP/3 error code and words for the peer."""

    code: Annotated[int, Meta(ge=0, lt=1 << 62)] = 0x100
    """H3_NO_ERROR unless said otherwise (RFC 9114 section 8.1)."""
    reason: Annotated[str, Meta(max_length=200)] = "closed by an operator"


class LogLevelRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """How much is logged from now on, until the next reload."""

    level: Literal["debug", "info", "warning", "error"]


class EdgeView(Protocol):
    """The edge, as the admin API asks it."""

    @property
    def state(self) -> State: ...

    @property
    def ready(self) -> bool:
        """Every worker is ready and none is told to stop."""

    async def status(self) -> Status: ...

    async def connections(self, query: ConnectionQuery) -> Connections:
        """The page that a checked query asks for."""

    async def connection(self, connection_id: str) -> ConnectionStats | None:
        """One connection in detail, or None when no worker has it."""

    async def close_connection(self, connection_id: str, code: int, reason: str) -> bool:
        """Close a connection; False when no worker has it."""

    async def set_log_level(self, level: str) -> None:
        """Log from this level on, here and in all workers."""

    @property
    def trace_directory(self) -> str | None:
        """Where traces are written; None: nowhere."""

    async def trace_connection(
        self, connection_id: str, action: Literal["start", "stop"]
    ) -> TraceAnswer:
        """Start or stop the trace of a connection."""

    async def follow_connection(
        self, worker: int, connection_id: str, follower: str, level: QlogLevel
    ) -> FollowAnswer:
        """What happened on a connection since the follower's last question."""
