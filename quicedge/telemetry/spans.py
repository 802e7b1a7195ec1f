"""Spans of a distributed trace, between the worker that saw them and the process that exports them.

Names and meanings of attributes are those of OpenTelemetry's semantic conventions for HTTP spans;
what they do not cover begins with `quic.` or `quicedge.`. Nothing here needs OpenTelemetry itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

Attribute = str | int | float | bool


class Span(Struct, frozen=True, array_like=True):
    """A span that is over. Identifiers are lower-case hexadecimal."""

    trace_id: str
    span_id: str
    parent_id: str | None
    """None: it is a trace's root."""
    remote_parent: bool
    """The parent is somebody else's span."""
    kind: Literal["server", "client"]
    name: str
    start: float
    """Seconds since the epoch."""
    end: float
    attributes: dict[str, Attribute]
    error: str | None = None
    """Why it counts as failed: a status code, or how the exchange ended; None: it does not."""
    state: str = ""
    """The `tracestate` that came with the parent."""


class SpanCounts(Struct, frozen=True):
    """What became of spans since the start."""

    exported: int = 0
    dropped: dict[str, int] = {}
    """By reason: `worker` and `queue` had no room, `export` the collector did not take."""


class Sampler(Struct, frozen=True):
    """Which traces are recorded."""

    ratio: float = 1.0
    """Share of traces that begin here."""
    parent_based: bool = True
    """A trace that began elsewhere is recorded if it is there."""

    def samples(self, trace_id: str, parent_sampled: bool | None) -> bool:
        """`parent_sampled`: None when the trace begins here.

        The same trace gets the same answer everywhere, as the SDK's TraceIdRatioBased gives it:
        the low 64 bits of the identifier are compared with a bound.
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
    """The configured share of traces, else what OTEL_TRACES_SAMPLER says, else all of them."""
    if ratio is not None:
        return Sampler(ratio)
    name = environment.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if not name:
        return Sampler()
    if name not in _SAMPLERS:
        raise SamplerError(
            f"OTEL_TRACES_SAMPLER: {name!r} is none of {', '.join(sorted(_SAMPLERS))}"
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
    """Whether the environment switches spans off, whatever is configured."""
    return (
        environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    )
