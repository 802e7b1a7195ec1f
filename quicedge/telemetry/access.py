"""The access log: one record per exchange, with the state of its transport."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import TypedDict

import msgspec

from quicedge.config.schema import LogFormat
from quicedge.telemetry.outcomes import Outcome
from quicedge.telemetry.protocols import HttpProtocol
from quicedge.telemetry.text import escape, escape_json
from quicedge.telemetry.upstreams import HedgeResult
from quicedge.telemetry.writer import LineWriter


class TunnelFacts(TypedDict):
    """How a tunnel ended."""

    protocol: str
    client_close_code: int | None
    """Of the client's WebSocket Close frame; 1005 if it had no code."""
    origin_close_code: int | None
    ended_first: str | None
    """Who ended its half first: `client`, `origin` or `edge`."""


class AccessRecord(msgspec.Struct, kw_only=True):
    """One exchange. Durations are in seconds, sizes in bytes; None means unknown.

    Untrusted octets must be converted by `telemetry.text.text`, which makes them ASCII.
    """

    time: str = ""
    """End of the exchange, RFC 3339 in UTC with milliseconds; set by `AccessLog`."""
    method: str
    authority: str
    path: str
    status: int | None
    """The final status; None when the client left before there was one."""
    outcome: Outcome
    reason: str | None = None
    """Details on an outcome other than `complete`."""
    bytes_received: int
    """Request body."""
    bytes_sent: int
    """Response body that the client acknowledged."""
    total_seconds: float
    """From the request head until the last byte of the response was acknowledged."""
    queue_seconds: float | None = None
    """Time spent waiting for an origin connection."""
    connect_seconds: float | None = None
    """TCP and TLS setup to the origin; 0 on a reused connection."""
    first_byte_seconds: float | None = None
    """From the request head to the response head."""
    response_seconds: float | None = None
    """From the request head to the end of the origin's response; the rest of the total is due to
    the client."""
    upstream: str | None = None
    """Configured name of the upstream."""
    server: str | None = None
    """The origin server that answered."""
    hedge: HedgeResult | None = None
    """What became of a second attempt; None: there was no need for one, or no hedging."""
    client: str = ""
    """Validated address of the client, `host:port` or `[v6]:port`."""
    protocol: HttpProtocol = HttpProtocol.HTTP_3
    quic_version: str | None = None
    """None on TCP."""
    tls_group: str | None = None
    """`ConnectionStats.group`."""
    client_subject: str | None = None
    """Of the certificate that the client has proved who it is with (RFC 4514)."""
    client_fingerprint: str | None = None
    """SHA-256 of that certificate."""
    connection_id: str | None = None
    """`ConnectionStats.id`."""
    stream_id: int | None = None
    smoothed_rtt: float | None = None
    min_rtt: float | None = None
    congestion_window: int | None = None
    bytes_in_flight: int | None = None
    packets_lost: int | None = None
    """On the connection since its start; on TCP segments retransmitted."""
    limited_by: str | None = None
    """`ConnectionStats.limited_by`."""
    user_agent: str | None = None
    trace_id: str | None = None
    """ID of the request's distributed trace (W3C Trace Context)."""
    tunnel: TunnelFacts | None = None
    """Of a tunnel (WebSocket); its bytes and duration are those of the record."""


class AccessLog:
    """Writes records as JSON lines or as human-readable lines."""

    def __init__(
        self,
        writer: LineWriter,
        format: LogFormat,
        *,
        fields: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`fields`: members of a record in output order; empty for the default set."""
        self._writer = writer
        usual = encode_json if format is LogFormat.JSON else encode_console
        self._encode = _encoder_of(fields, format) if fields else usual
        self._clock = clock
        self._second = -1
        self._prefix = ""

    def log(self, record: AccessRecord) -> None:
        """Queue one record; never blocks. Dropped and counted when the buffer is full."""
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        record.time = f"{self._prefix}{int((now - second) * 1000):03d}Z"
        self._writer.write(self._encode(record))

    @property
    def dropped(self) -> int:
        """Lines of this log dropped since the start."""
        return self._writer.dropped


_json = msgspec.json.Encoder()


def encode_json(record: AccessRecord) -> bytes:
    """Encode as one line of JSON, newline included, without raw control characters."""
    try:
        line = _json.encode(record)
    except UnicodeEncodeError:
        # A lone surrogate, from text that bypassed `telemetry.text.text`.
        line = json.dumps(msgspec.to_builtins(record)).encode("ascii")
    return escape_json(line) + b"\n"


def _encoder_of(fields: Sequence[str], format: LogFormat) -> Callable[[AccessRecord], bytes]:
    """An encoder of selected members: a JSON object, or `name=value` pairs."""

    def encode(record: AccessRecord) -> bytes:
        chosen = {name: getattr(record, name) for name in fields}
        if format is LogFormat.JSON:
            return escape_json(json.dumps(chosen).encode()) + b"\n"
        pairs = " ".join(f"{name}={value}" for name, value in chosen.items() if value is not None)
        return escape(pairs).encode("utf-8", "backslashreplace") + b"\n"

    return encode


def encode_console(record: AccessRecord) -> bytes:
    """Encode as one human-readable line, newline included."""
    parts = [
        record.time[11:23],
        record.client,
        record.method,
        f"{record.authority}{record.path}",
        "-" if record.status is None else str(record.status),
        _size(record.bytes_sent),
        f"{record.total_seconds * 1000:.1f}ms",
    ]
    if record.outcome is not Outcome.COMPLETE:
        parts.append(record.outcome)
    if record.reason:
        parts.append(f"({record.reason})")
    if record.bytes_received:
        parts.append(f"body={_size(record.bytes_received)}")
    if record.server:
        parts.append(f"origin={record.server}")
    if record.smoothed_rtt is not None:
        parts.append(f"rtt={record.smoothed_rtt * 1000:.1f}ms")
    if record.congestion_window is not None:
        parts.append(f"cwnd={_size(record.congestion_window)}")
    if record.packets_lost:
        parts.append(f"lost={record.packets_lost}")
    if record.tunnel is not None:
        codes = record.tunnel["client_close_code"], record.tunnel["origin_close_code"]
        parts.append(f"{record.tunnel['protocol']}={codes[0] or '-'}/{codes[1] or '-'}")
    if record.connection_id:
        parts.append(f"conn={record.connection_id[:8]}/{record.stream_id}")
    return escape(" ".join(parts)).encode("utf-8", "backslashreplace") + b"\n"


def _size(nbytes: int) -> str:
    if nbytes < 1000:
        return f"{nbytes}B"
    if nbytes < 1_000_000:
        return f"{nbytes / 1000:.1f}kB"
    return f"{nbytes / 1_000_000:.1f}MB"
