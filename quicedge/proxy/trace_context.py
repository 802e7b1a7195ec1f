"""Distributed trace context (W3C Trace Context)."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

from quicedge.http.message import Field, Fields

# W3C Trace Context section 3.2.2: version ff is invalid, and so are all-zero identifiers.
_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
TRACE_FIELDS = frozenset((b"traceparent", b"tracestate"))
_SAMPLED, _RANDOM = 1, 2
"""Trace flags."""


class TraceContext(NamedTuple):
    """The position of a request in a distributed trace."""

    fields: Fields
    """The fields for the origin, in place of the client's."""
    trace_id: str


class Parent(NamedTuple):
    """The remote parent span of a request; identifiers are hexadecimal."""

    trace_id: str
    span_id: str
    sampled: bool
    """Whether the parent is recorded."""
    random: bool
    """Whether the trace's identifier was chosen at random (Trace Context level 2)."""
    state: bytes
    """`tracestate` with its field lines joined; empty if there was none."""
    fields: Fields
    """The fields as received."""


def parent_of(fields: list[Field]) -> Parent | None:
    """The parent span named by a request (W3C Trace Context); None if there is no valid one.

    A malformed `traceparent` is ignored, and its `tracestate` too (section 3.2.1).
    """
    parents = [value for name, value in fields if name == b"traceparent"]
    match = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if match is None or (match[1] == b"00" and match[5]):
        return None
    flags = int(match[4], 16)
    kept = [item for item in fields if item[0] in TRACE_FIELDS]
    return Parent(
        trace_id=match[2].decode(),
        span_id=match[3].decode(),
        sampled=bool(flags & _SAMPLED),
        random=bool(flags & _RANDOM),
        state=b",".join(value for name, value in kept if name == b"tracestate" and value),
        fields=kept,
    )


def trace_context(fields: list[Field]) -> TraceContext:
    """Continue the trace of a request, or start a new one (W3C Trace Context).

    For an edge that records no spans: a valid `traceparent` is forwarded unchanged (section 4.3).
    """
    parent = parent_of(fields)
    if parent is not None:
        return TraceContext(parent.fields, parent.trace_id)
    trace_id = new_trace_id()
    return TraceContext([traceparent(trace_id, new_span_id(), sampled=False)], trace_id)


def new_trace_id() -> str:
    """A random trace ID of 32 hexadecimal digits."""
    return secrets.token_hex(16)


def new_span_id() -> str:
    """A random span ID of 16 hexadecimal digits."""
    return secrets.token_hex(8)


def traceparent(trace_id: str, span_id: str, *, sampled: bool, random: bool = False) -> Field:
    """The `traceparent` field for a span."""
    flags = (_SAMPLED if sampled else 0) | (_RANDOM if random else 0)
    return b"traceparent", f"00-{trace_id}-{span_id}-{flags:02x}".encode()


class SpanContext(NamedTuple):
    """The span identifiers of an exchange, generated at its start."""

    trace_id: str
    server_id: str
    client_id: str
    """The ID of the client span, which the origin gets as its parent."""
    parent: Parent | None
    recorded: bool

    @property
    def fields(self) -> Fields:
        """The fields for the origin."""
        parent = self.parent
        random = parent.random if parent is not None else False
        fields: Fields = [
            traceparent(self.trace_id, self.client_id, sampled=self.recorded, random=random)
        ]
        if parent is not None and parent.state:
            fields.append((b"tracestate", parent.state))
        return fields
