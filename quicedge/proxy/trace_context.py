"""A request's place in a distributed trace (W3C Trace Context)."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

from quicedge.http.message import Field, Fields

# W3C Trace Context section 3.2.2: version ff is invalid, so are identifiers of zeros alone.
_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
TRACE_FIELDS = frozenset((b"traceparent", b"tracestate"))
_SAMPLED, _RANDOM = 1, 2
"""Trace flags."""


class TraceContext(NamedTuple):
    """A request's place in a distributed trace."""

    fields: Fields
    """What the origin is told in place of the client's."""
    trace_id: str


class Parent(NamedTuple):
    """The span of somebody else that a request belongs to; identifiers in hexadecimal."""

    trace_id: str
    span_id: str
    sampled: bool
    """Whether it is recorded there."""
    random: bool
    """Whether the trace's identifier was chosen at random (Trace Context level 2)."""
    state: bytes
    """`tracestate`, its field lines joined; empty when there was none."""
    fields: Fields
    """As they came."""


def parent_of(fields: list[Field]) -> Parent | None:
    """Who a request says it comes from (W3C Trace Context); None when it says nothing valid.

    What is malformed counts for nothing, its `tracestate` neither (section 3.2.1).
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
    """Continue the trace that a request belongs to, or begin one (W3C Trace Context).

    For an edge that reports no span of its own: a valid `traceparent` is passed on as it came
    (section 4.3).
    """
    parent = parent_of(fields)
    if parent is not None:
        return TraceContext(parent.fields, parent.trace_id)
    trace_id = new_trace_id()
    return TraceContext([traceparent(trace_id, new_span_id(), sampled=False)], trace_id)


def new_trace_id() -> str:
    """32 hexadecimal digits; all zeros would be invalid, and will not come up."""
    return secrets.token_hex(16)


def new_span_id() -> str:
    """16 hexadecimal digits, not all zeros."""
    return secrets.token_hex(8)


def traceparent(trace_id: str, span_id: str, *, sampled: bool, random: bool = False) -> Field:
    """The field that makes a span the parent of what its reader does."""
    flags = (_SAMPLED if sampled else 0) | (_RANDOM if random else 0)
    return b"traceparent", f"00-{trace_id}-{span_id}-{flags:02x}".encode()


class SpanContext(NamedTuple):
    """An exchange's place in a trace, known from its start."""

    trace_id: str
    server_id: str
    client_id: str
    """The span that the origin is told of."""
    parent: Parent | None
    recorded: bool

    @property
    def fields(self) -> Fields:
        """What the origin is told."""
        parent = self.parent
        random = parent.random if parent is not None else False
        fields: Fields = [
            traceparent(self.trace_id, self.client_id, sampled=self.recorded, random=random)
        ]
        if parent is not None and parent.state:
            fields.append((b"tracestate", parent.state))
        return fields
