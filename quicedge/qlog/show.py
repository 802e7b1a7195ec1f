"""One line per event: the output of `quicedge qlog show`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import click
import msgspec

from quicedge.qlog.event import (
    Event,
    frames,
    integer,
    mapping,
    number,
    sequence,
    text,
)
from quicedge.qlog.packets import note
from quicedge.qlog.units import safe

_LONGEST_VALUE = 60
_LONGEST_LINE = 200
"""Maximum length of an event's description."""

_ARROWS: Final = {
    "quic:packet_sent": ("→", "green"),
    "quic:packet_received": ("←", "blue"),
    "quic:packet_lost": ("✗", "red"),
    "quic:packet_dropped": ("⊘", "red"),
    "quic:recovery_metrics_updated": ("~", "cyan"),
    "quic:congestion_state_updated": ("~", "magenta"),
    "quic:connection_closed": ("■", "red"),
    "http3:frame_created": ("→", "yellow"),
    "http3:frame_parsed": ("←", "yellow"),
}
_METRICS: Final = (
    ("smoothed_rtt", "srtt", "ms"),
    ("latest_rtt", "rtt", "ms"),
    ("min_rtt", "min", "ms"),
    ("congestion_window", "cwnd", ""),
    ("bytes_in_flight", "in flight", ""),
    ("ssthresh", "ssthresh", ""),
    ("pto_count", "pto", ""),
)


@dataclass(slots=True)
class Filter:
    """Selects the events to show; empty and None mean no restriction."""

    types: tuple[str, ...] = ()
    """Event names with or without namespace, with wildcards: `packet_*`, `http3:*`."""
    packet: int | None = None
    stream: int | None = None
    since: float | None = None
    """Milliseconds."""
    until: float | None = None

    def __call__(self, event: Event) -> bool:
        if self.since is not None and event.time < self.since:
            return False
        if self.until is not None and event.time > self.until:
            return False
        if self.types and not any(self._is(event, pattern) for pattern in self.types):
            return False
        if self.packet is not None and not _concerns_packet(event, self.packet):
            return False
        return self.stream is None or _concerns_stream(event, self.stream)

    @staticmethod
    def _is(event: Event, pattern: str) -> bool:
        name = event.name if ":" in pattern else event.name.partition(":")[2]
        return fnmatchcase(name, pattern) or fnmatchcase(event.original, pattern)


def _concerns_packet(event: Event, packet: int) -> bool:
    """Whether a packet with this number is sent, received, lost or acknowledged."""
    if integer(mapping(event.data, "header"), "packet_number") == packet:
        return True
    for frame in frames(event.data):
        for item in sequence(frame, "acked_ranges"):
            if (
                isinstance(item, list)
                and item
                and all(type(bound) is int for bound in item)
                and item[0] <= packet <= item[-1]
            ):
                return True
    return False


def _concerns_stream(event: Event, stream: int) -> bool:
    if integer(event.data, "stream_id") == stream:
        return True
    return any(integer(frame, "stream_id") == stream for frame in frames(event.data))


def line(event: Event) -> str:
    """An event for a terminal, in colour; text from the trace is escaped."""
    arrow, colour = _ARROWS.get(event.name, ("·", None))
    name = event.name.removeprefix("quic:")
    description = safe(describe(event))
    if len(description) > _LONGEST_LINE:
        description = description[: _LONGEST_LINE - 1] + "…"
    return (
        f"{event.time:>12.3f}  {click.style(arrow, fg=colour)} "
        f"{click.style(f'{safe(name):<26}', fg=colour)} {description}"
    ).rstrip()


def as_json(event: Event) -> str:
    """An event as one line of JSON, in the vocabulary of the current drafts."""
    record: dict[str, Any] = {"time": event.time, "name": event.name, "data": event.data}
    if event.group:
        record["group_id"] = event.group
    try:
        encoded = msgspec.json.encode(record).decode()
    except (UnicodeEncodeError, RecursionError, TypeError, ValueError):
        encoded = msgspec.json.encode({**record, "data": {"unreadable": safe(event.data)}}).decode()
    # JSON does not escape DEL, C1 controls and bidi marks, which a terminal may interpret.
    return encoded if encoded.isascii() and "\x7f" not in encoded else _ascii(encoded)


def _ascii(encoded: str) -> str:
    """The same JSON with unprintable characters as `\\uNNNN`."""
    out = []
    for character in encoded:
        if character.isprintable():
            out.append(character)
        else:
            units = character.encode("utf-16-be", "surrogatepass")
            out += [
                f"\\u{int.from_bytes(units[at : at + 2], 'big'):04x}"
                for at in range(0, len(units), 2)
            ]
    return "".join(out)


def describe(event: Event) -> str:
    """A short description of an event, not escaped."""
    describer = _DESCRIBERS.get(event.name)
    description = describer(event) if describer is not None else ""
    return description or _members(event.data)


def _packet(event: Event) -> str:
    header = mapping(event.data, "header")
    parts = [text(header, "packet_type") or "packet"]
    packet_number = integer(header, "packet_number")
    if packet_number is not None:
        parts.append(str(packet_number))
    size = integer(mapping(event.data, "raw"), "length")
    if size is not None:
        parts.append(f"{size} B")
    description = note(frames(event.data))
    if description:
        parts.append(f"[{description}]")
    trigger = text(event.data, "trigger")
    if trigger:
        parts.append(trigger)
    return "  ".join(parts)


def _metrics(event: Event) -> str:
    parts = []
    for member, name, unit in _METRICS:
        value = number(event.data, member)
        if value is not None:
            parts.append(f"{name} {value:.3f} {unit}" if unit else f"{name} {value:.0f}")
    return ", ".join(parts)


def _http(event: Event) -> str:
    frame = mapping(event.data, "frame")
    parts = [f"stream {integer(event.data, 'stream_id')}", text(frame, "frame_type")]
    length = integer(mapping(frame, "raw"), "payload_length")
    if length is not None:
        parts.append(f"{length} B")
    fields = [
        f"{text(item, 'name')}: {text(item, 'value')[:_LONGEST_VALUE]}"
        for item in sequence(frame, "headers")[:8]
        if isinstance(item, dict)
    ]
    if fields:
        parts.append(f"[{', '.join(fields)}]")
    return "  ".join(parts)


def _state(event: Event) -> str:
    old, new = text(event.data, "old"), text(event.data, "new")
    trigger = text(event.data, "trigger")
    description = f"{old} → {new}" if old else new
    return f"{description} ({trigger})" if trigger and description else description


def _members(data: dict[str, Any]) -> str:
    """Any data as `name=value`, truncated."""
    parts = []
    for name, value in data.items():
        if isinstance(value, str):
            shown = value
        else:
            try:
                shown = msgspec.json.encode(value).decode()
            except (UnicodeEncodeError, RecursionError, TypeError, ValueError):
                shown = "…"
        if len(shown) > _LONGEST_VALUE:
            shown = shown[: _LONGEST_VALUE - 1] + "…"
        parts.append(f"{name}={shown}")
        if len(parts) >= 12:
            parts.append("…")
            break
    return " ".join(parts)


_DESCRIBERS: dict[str, Callable[[Event], str]] = {
    "quic:packet_sent": _packet,
    "quic:packet_received": _packet,
    "quic:packet_lost": _packet,
    "quic:packet_dropped": _packet,
    "quic:packet_buffered": _packet,
    "quic:recovery_metrics_updated": _metrics,
    "quic:congestion_state_updated": _state,
    "quic:connection_state_updated": _state,
    "http3:frame_created": _http,
    "http3:frame_parsed": _http,
}
