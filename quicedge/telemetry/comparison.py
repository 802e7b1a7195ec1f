"""HTTP versions side by side, for the clients that really came: recent connections of each.

Every worker keeps a bounded number of samples per protocol, one per connection, taken when it ends;
live connections add theirs when asked. Figures are those of `ConnectionStats`, in seconds, bits per
second and shares. A median over few connections says little: `is_sparse` marks it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from math import ceil

from msgspec import Struct

from quicedge.config.limits import (
    COMPARISON_CONNECTIONS,
    COMPARISON_ENOUGH,
    COMPARISON_GOODPUT_BYTES,
    COMPARISON_GOODPUT_SECONDS,
    COMPARISON_LOSS_PACKETS,
)
from quicedge.telemetry.protocols import HttpProtocol


class Sample(Struct, frozen=True, array_like=True):
    """What one connection was like; None: unknown, or too few samples."""

    smoothed_rtt: float | None = None
    handshake_seconds: float | None = None
    first_byte_seconds: float | None = None
    goodput: float | None = None
    """Acknowledged bits per second of the time in which sending was not idle."""
    packets_sent: int = 0
    packets_lost: int = 0

    @property
    def loss_ratio(self) -> float | None:
        """None on connections of too few packets."""
        if self.packets_sent < COMPARISON_LOSS_PACKETS:
            return None
        return min(self.packets_lost / self.packets_sent, 1.0)


Samples = dict[HttpProtocol, list[Sample]]


def goodput(acknowledged: int | None, busy_seconds: float | None) -> float | None:
    """Bits per second, of connections that sent enough for a rate to mean something."""
    if (
        acknowledged is None
        or busy_seconds is None
        or acknowledged < COMPARISON_GOODPUT_BYTES
        or busy_seconds < COMPARISON_GOODPUT_SECONDS
    ):
        return None
    return acknowledged * 8 / busy_seconds


class RecentConnections:
    """Samples of the connections of one worker that ended last."""

    def __init__(self) -> None:
        self._ended = {
            protocol: deque[Sample](maxlen=COMPARISON_CONNECTIONS) for protocol in HttpProtocol
        }

    def ended(self, protocol: HttpProtocol, sample: Sample) -> None:
        self._ended[protocol].append(sample)

    def samples(self, live: Mapping[HttpProtocol, list[Sample]]) -> Samples:
        """The latest samples: of live connections, then of those that ended last."""
        found: Samples = {}
        for protocol, ended in self._ended.items():
            both = [*live.get(protocol, ()), *reversed(ended)]
            found[protocol] = both[:COMPARISON_CONNECTIONS]
        return found


class Figure(Struct, frozen=True):
    """One figure over the connections where it is known."""

    connections: int
    median: float | None
    p95: float | None
    is_sparse: bool
    """Of too few connections to compare."""


class ProtocolFigures(Struct, frozen=True, kw_only=True):
    """Recent connections of one protocol."""

    protocol: HttpProtocol
    connections: int
    smoothed_rtt: Figure
    handshake_seconds: Figure
    first_byte_seconds: Figure
    goodput: Figure
    loss_ratio: Figure
    packets_lost_ratio: float | None
    """Share of all their packets that were lost."""


class Comparison(Struct, frozen=True, kw_only=True):
    """The protocols side by side."""

    enough: int = COMPARISON_ENOUGH
    """Connections from which on a figure is not sparse."""
    protocols: list[ProtocolFigures]


def compare(workers: Iterable[Samples]) -> Comparison:
    """The samples of all workers together, every protocol whether or not anybody spoke it."""
    workers = list(workers)
    return Comparison(
        protocols=[
            _figures(protocol, [one for found in workers for one in found.get(protocol, ())])
            for protocol in HttpProtocol
        ]
    )


def _figures(protocol: HttpProtocol, samples: list[Sample]) -> ProtocolFigures:
    sent = sum(sample.packets_sent for sample in samples)
    lost = sum(sample.packets_lost for sample in samples)
    return ProtocolFigures(
        protocol=protocol,
        connections=len(samples),
        smoothed_rtt=_figure(sample.smoothed_rtt for sample in samples),
        handshake_seconds=_figure(sample.handshake_seconds for sample in samples),
        first_byte_seconds=_figure(sample.first_byte_seconds for sample in samples),
        goodput=_figure(sample.goodput for sample in samples),
        loss_ratio=_figure(sample.loss_ratio for sample in samples),
        packets_lost_ratio=min(lost / sent, 1.0) if sent else None,
    )


def _figure(values: Iterable[float | None]) -> Figure:
    known = sorted(value for value in values if value is not None)
    return Figure(
        connections=len(known),
        median=_quantile(known, 0.5),
        p95=_quantile(known, 0.95),
        is_sparse=len(known) < COMPARISON_ENOUGH,
    )


def _quantile(ordered: list[float], share: float) -> float | None:
    """The smallest value that at least this share does not exceed (nearest rank)."""
    return ordered[max(ceil(share * len(ordered)) - 1, 0)] if ordered else None
