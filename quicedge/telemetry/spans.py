"""Spans of distributed traces, as sent from workers to the exporting process.

Attributes follow OpenTelemetry's semantic conventions for HTTP spans; others are prefixed with
`quic.` or `quicedge.`. Does not depend on OpenTelemetry itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

Attribute = str | int | float | bool


class Span(Struct, frozen=True, array_like=True):
    """A finished span. Identifiers are lower-case hexadecimal."""

    trace_id: str
    span_id: str
    parent_id: str | None
    """None for the root of a trace."""
    remote_parent: bool
    """The parent belongs to another process."""
    kind: Literal["server", "client"]
    name: str
    start: float
    """Seconds since the epoch."""
    end: float
    attributes: dict[str, Attribute]
    error: str | None = None
    """Status code or outcome if the span failed; None otherwise."""
    state: str = ""
    """The `tracestate` received with the parent."""


class SpanCounts(Struct, frozen=True):
    """Counts of exported and dropped spans since the start."""

    exported: int = 0
    dropped: dict[str, int] = {}
    """By reason: `worker` and `queue` were full, `export` failed."""


class Sampler(Struct, frozen=True):
    """Decides which traces are recorded."""

    ratio: float = 1.0
    """Share of traces that start here."""
    parent_based: bool = True
    """Follow the parent's sampling decision for traces that started elsewhere."""

    def samples(self, trace_id: str, parent_sampled: bool | None) -> bool:
        """`parent_sampled`: None when the trace starts here.

        The decision is the same in every process, as by the SDK's TraceIdRatioBased sampler: the
        low 64 bits of the trace ID are compared with a bound.
        """
        if self.parent_based and parent_sampled is not None:
            return parent_sampled
        return int(trace_id[16:], 16) < round(self.ratio * (1 << 64))


class SamplerError(ValueError):
    """The environment asks for a sampler that there is not."""


_SAMPLERS = {
    "always_on": (1.0, False),
    "always_off": (0.0, False),
    "traceidratio": (None, False),
    "parentbased_always_on": (1.0, True),
    "parentbased_always_off": (0.0, True),
    "parentbased_traceidratio": (None, True),
}


def sampler_of(ratio: float | None, environment: Mapping[str, str]) -> Sampler:
    """The configured ratio, else the sampler of OTEL_TRACES_SAMPLER, else all traces."""
    if ratio is not None:
        return Sampler(ratio)
    name = environment.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if not name:
        return Sampler()
    if name not in _SAMPLERS:
        raise SamplerError(
            f"OTEL_TRACES_SAMPLER: {name!r} is not one of {', '.join(sorted(_SAMPLERS))}"
        )
    share, parent_based = _SAMPLERS[name]
    if share is None:
        text = environment.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise SamplerError(f"OTEL_TRACES_SAMPLER_ARG: {text!r} is not from 0 to 1")
    return Sampler(share, parent_based)


def is_disabled(environment: Mapping[str, str]) -> bool:
    """Whether the environment disables spans, overriding the configuration."""
    return (
        environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    )
