"""What the edge knows of the transport, passed on: to origins, to clients, along a trace."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

from quicedge.http.message import Field, Fields

TRANSPORT_FIELDS = frozenset(
    (
        b"x-quic-version", b"x-quic-rtt-ms", b"x-quic-min-rtt-ms", b"x-quic-loss",
        b"x-quic-congestion-window", b"x-quic-0rtt",
    )
)  # fmt: skip
"""Fields that origins believe because a client's are dropped."""

# W3C Trace Context section 3.2.2: version ff is invalid, so are identifiers of zeros alone.
_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_TRACE_FIELDS = frozenset((b"traceparent", b"tracestate"))


class Transport(NamedTuple):
    """A connection's transport when a request came; None is unknown."""

    version: str
    smoothed_rtt: float | None
    """Seconds."""
    min_rtt: float | None
    loss_ratio: float
    congestion_window: int
    early_data: bool


def transport_fields(transport: Transport) -> Fields:
    """The `X-Quic-*` fields of a request."""
    fields: Fields = [
        (b"x-quic-version", transport.version.encode()),
        (b"x-quic-loss", b"%.4f" % transport.loss_ratio),
        (b"x-quic-congestion-window", b"%d" % transport.congestion_window),
        (b"x-quic-0rtt", b"1" if transport.early_data else b"0"),
    ]
    if transport.smoothed_rtt is not None:
        fields.append((b"x-quic-rtt-ms", b"%.3f" % (transport.smoothed_rtt * 1000)))
    if transport.min_rtt is not None:
        fields.append((b"x-quic-min-rtt-ms", b"%.3f" % (transport.min_rtt * 1000)))
    return fields


def server_timing(
    origin_seconds: float | None, edge_seconds: float, rtt_seconds: float | None
) -> bytes:
    """A `server-timing` value (W3C Server Timing), in milliseconds."""
    parts = [b"edge;dur=%.1f" % (max(edge_seconds, 0.0) * 1000)]
    if origin_seconds is not None:
        parts.append(b"origin;dur=%.1f" % (origin_seconds * 1000))
    if rtt_seconds is not None:
        parts.append(b'quic;desc="smoothed RTT";dur=%.1f' % (rtt_seconds * 1000))
    return b", ".join(parts)


class TraceContext(NamedTuple):
    """A request's place in a distributed trace."""

    fields: Fields
    """What the origin is told in place of the client's."""
    trace_id: str


def trace_context(fields: list[Field]) -> TraceContext:
    """Continue the trace that a request belongs to, or begin one (W3C Trace Context).

    The edge reports no span of its own, so a valid `traceparent` is passed on as it came
    (section 4.3); what is malformed is dropped with its `tracestate` (section 3.2.1).
    """
    parents = [value for name, value in fields if name == b"traceparent"]
    match = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if match is not None and not (match[1] == b"00" and match[5]):
        kept = [item for item in fields if item[0] in _TRACE_FIELDS]
        return TraceContext(kept, match[2].decode())
    trace_id = secrets.token_hex(16)
    parent = f"00-{trace_id}-{secrets.token_hex(8)}-00"
    return TraceContext([(b"traceparent", parent.encode())], trace_id)


DROPPED_WITH_TRACE_CONTEXT = _TRACE_FIELDS
"""Fields of the client that `TraceContext.fields` replace."""
