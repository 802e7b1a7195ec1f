"""Packet statistics of one direction, and the first packets individually."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from quicedge.config.tracelimits import QLOG_MAX_DETAIL, QLOG_MAX_LAST_PACKETS
from quicedge.qlog.event import frame_length, integer, sequence, text

_MAX_KINDS = 64
"""Maximum number of packet and frame types; a damaged trace could hold any number."""
_MAX_NOTE = 60
"""Maximum length of the description of a packet's frames."""

NOT_ELICITING = {"ack", "padding", "connection_close"}
"""Frames that are not ack-eliciting (RFC 9000 section 13.2)."""


def _count(counts: dict[str, int], kind: str, amount: int = 1) -> None:
    if kind in counts or len(counts) < _MAX_KINDS:
        counts[kind] = counts.get(kind, 0) + amount


@dataclass(slots=True)
class Detail:
    """One packet of the sequence diagram."""

    time: float
    type: str
    number: int | None
    size: int
    note: str


@dataclass(slots=True)
class Packets:
    """The packets of one direction of a connection."""

    count: int = 0
    bytes: int = 0
    stream_bytes: int = 0
    """Bytes of STREAM frames, retransmissions included."""
    ack_only: int = 0
    """Packets that are not ack-eliciting."""
    types: dict[str, int] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    """Number of packets by size in bytes."""
    first: float | None = None
    last: float = 0.0
    details: list[Detail] = field(default_factory=list)
    last_times: deque[float] = field(default_factory=lambda: deque(maxlen=QLOG_MAX_LAST_PACKETS))
    """Times of the last packets."""

    def add(
        self,
        time: float,
        kind: str,
        number: int | None,
        size: int,
        frames: list[dict[str, Any]],
        detailed: bool,
    ) -> bool:
        """Count a packet; returns whether it is ack-eliciting."""
        self.count += 1
        self.bytes += size
        self.first = time if self.first is None else self.first
        self.last = max(self.last, time)
        self.last_times.append(time)
        _count(self.types, kind)
        if size <= 65535:
            self.sizes[size] = self.sizes.get(size, 0) + 1
        eliciting = not frames
        for frame in frames:
            name = text(frame, "frame_type")
            _count(self.frames, name)
            if name not in NOT_ELICITING:
                eliciting = True
            if name == "stream":
                self.stream_bytes += frame_length(frame)
        if not eliciting:
            self.ack_only += 1
        if detailed and len(self.details) < QLOG_MAX_DETAIL:
            self.details.append(Detail(time, kind, number, size, note(frames)))
        return eliciting

    def after(self, time: float) -> int:
        """The number of packets after a time near the end of the trace."""
        return sum(at > time for at in self.last_times)

    def size_share(self, share: float) -> int | None:
        """The quantile `share` (0 to 1) of packet sizes."""
        seen = 0
        for size in sorted(self.sizes):
            seen += self.sizes[size]
            if seen >= share * self.count:
                return size
        return None


def note(frames: list[dict[str, Any]]) -> str:
    """A short description of a packet's frames: `ack 0-41, stream 4 @1200+1180 fin`."""
    parts: list[str] = []
    length = 0
    for frame in frames:
        part = describe(frame)
        if parts and parts[-1].partition(" ×")[0] == part:
            words, _, times = parts[-1].partition(" ×")
            parts[-1] = f"{words} ×{int(times or 1) + 1}"
            continue
        length += len(part) + 2
        if length > _MAX_NOTE and parts:
            parts.append("…")
            break
        parts.append(part)
    return ", ".join(parts)


def describe(frame: dict[str, Any]) -> str:
    """A short description of one frame."""
    kind = text(frame, "frame_type")[:40] or "frame"
    stream = integer(frame, "stream_id")
    where = "" if stream is None else f" {stream}"
    if kind in ("stream", "crypto"):
        end = " fin" if frame.get("fin") is True else ""
        return f"{kind}{where} @{integer(frame, 'offset') or 0}+{frame_length(frame)}{end}"
    if kind == "ack":
        ranges = sequence(frame, "acked_ranges")
        bounds = [
            bound for item in ranges[:64] if isinstance(item, list) for bound in item[:2]
            if type(bound) is int
        ]  # fmt: skip
        if not bounds:
            return "ack"
        more = f" ({len(ranges)} ranges)" if len(ranges) > 1 else ""
        return f"ack {min(bounds)}-{max(bounds)}{more}"
    for member in ("maximum", "limit"):
        value = integer(frame, member)
        if value is not None:
            return f"{kind}{where} {value}"
    if kind == "connection_close":
        error = text(frame, "error")[:40]
        code = integer(frame, "error_code")
        shown = error if error and error != "unknown" else "" if code is None else f"{code:#x}"
        return f"{kind} {shown}".rstrip()
    return kind + where
