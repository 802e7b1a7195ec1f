"""The access log: one record an exchange, with the transport it travelled on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from quicedge.telemetry.text import escape, escape_json
from quicedge.telemetry.writer import LineWriter


class AccessRecord(msgspec.Struct, kw_only=True):
    """One exchange. Durations are seconds, sizes bytes; None is unknown.

    Octets from outside come in by `telemetry.text.text`, which makes them ASCII.
    """

    time: str = ""
    """End of the exchange, RFC 3339 in UTC with milliseconds; set by `AccessLog`."""
    method: str
    authority: str
    path: str
    status: int | None
    """The final status; None when the client left before there was one."""
    outcome: str
    """How it ended (`telemetry.outcomes.Outcome`)."""
    reason: str | None = None
    """Why the outcome is not `complete`, where more is known than its name says."""
    bytes_received: int
    """Request body."""
    bytes_sent: int
    """Response body that the client acknowledged."""
    total_seconds: float
    """From the request head until the client had acknowledged the last byte of the response."""
    queue_seconds: float | None = None
    """Waiting for an origin connection."""
    connect_seconds: float | None = None
    """TCP and TLS to the origin; 0 on a reused connection."""
    first_byte_seconds: float | None = None
    """From the request head to the response head."""
    response_seconds: float | None = None
    """From the request head to the end of the origin's response; the rest of the total is the
    client's."""
    upstream: str | None = None
    """The group of servers, by its name in the configuration."""
    server: str | None = None
    """The origin that answered."""
    client: str = ""
    """Validated address of the client, `host:port` or `[v6]:port`."""
    protocol: str = "h3"
    quic_version: str | None = None
    connection_id: str | None = None
    """`ConnectionStats.id`."""
    stream_id: int | None = None
    smoothed_rtt: float | None = None
    min_rtt: float | None = None
    congestion_window: int | None = None
    bytes_in_flight: int | None = None
    packets_lost: int | None = None
    """Of the connection since its start."""
    limited_by: str | None = None
    """`ConnectionStats.limited_by`."""
    user_agent: str | None = None
    trace_id: str | None = None
    """Of the distributed trace that the request belongs to (W3C Trace Context)."""


class AccessLog:
    """Writes records as JSON lines or as lines for a reader at a terminal."""

    def __init__(
        self,
        writer: LineWriter,
        format: Literal["json", "console"],
        *,
        fields: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`fields`: members of a record in the order they are written; empty: the usual ones."""
        self._writer = writer
        usual = encode_json if format == "json" else encode_console
        self._encode = _encoder_of(fields, format) if fields else usual
        self._clock = clock
        self._second = -1
        self._prefix = ""

    def log(self, record: AccessRecord) -> None:
        """Queue one record; never blocks. Without room it is dropped and counted."""
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        record.time = f"{self._prefix}{int((now - second) * 1000):03d}Z"
        self._writer.write(self._encode(record))

    @property
    def dropped(self) -> int:
        """Records and other lines of the same file that were lost since the start."""
        return self._writer.dropped


_json = msgspec.json.Encoder()


def encode_json(record: AccessRecord) -> bytes:
    """One line of JSON with its newline; no raw control character in it."""
    try:
        line = _json.encode(record)
    except UnicodeEncodeError:
        # A lone surrogate: text that did not come by `telemetry.text.text`.
        line = json.dumps(msgspec.to_builtins(record)).encode("ascii")
    return escape_json(line) + b"\n"


def _encoder_of(
    fields: Sequence[str], format: Literal["json", "console"]
) -> Callable[[AccessRecord], bytes]:
    """An encoder of some members alone: an object of JSON, or `name=value` pairs."""

    def encode(record: AccessRecord) -> bytes:
        chosen = {name: getattr(record, name) for name in fields}
        if format == "json":
            return escape_json(json.dumps(chosen).encode()) + b"\n"
        pairs = " ".join(f"{name}={value}" for name, value in chosen.items() if value is not None)
        return escape(pairs).encode("utf-8", "backslashreplace") + b"\n"

    return encode


def encode_console(record: AccessRecord) -> bytes:
    """One line for the eye, its newline included."""
    parts = [
        record.time[11:23],
        record.client,
        record.method,
        f"{record.authority}{record.path}",
        "-" if record.status is None else str(record.status),
        _size(record.bytes_sent),
        f"{record.total_seconds * 1000:.1f}ms",
    ]
    if record.outcome != "complete":
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
    if record.connection_id:
        parts.append(f"conn={record.connection_id[:8]}/{record.stream_id}")
    return escape(" ".join(parts)).encode("utf-8", "backslashreplace") + b"\n"


def _size(nbytes: int) -> str:
    if nbytes < 1000:
        return f"{nbytes}B"
    if nbytes < 1_000_000:
        return f"{nbytes / 1000:.1f}kB"
    return f"{nbytes / 1_000_000:.1f}MB"
