"""Events, and the header of the trace they belong to.

An `Event` uses the vocabulary of the current drafts, whatever wrote the trace (`normalise.py`). Its
content is untrusted: anyone may have written or damaged the file. Members are therefore read with
`number`, `text`, `mapping` and `sequence`, which return a value of the right type or a default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_EMPTY: dict[str, Any] = {}
_LARGEST = 2.0**64
"""Above any number of the drafts (uint64); larger ones could overflow arithmetic."""


class Vantage(StrEnum):
    """Where a trace was recorded (main-schema's vantage point types)."""

    CLIENT = "client"
    SERVER = "server"
    NETWORK = "network"
    UNKNOWN = "unknown"


class Direction(StrEnum):
    """The direction of packets or data, as seen from the vantage point."""

    SENT = "sent"
    RECEIVED = "received"


@dataclass(slots=True)
class Event:
    """One event in the current drafts' vocabulary."""

    time: float
    """Milliseconds since the first event of its trace."""
    name: str
    """As in the drafts, `quic:packet_sent`."""
    data: dict[str, Any]
    index: int = 0
    """Its position in the trace, from 0."""
    group: str = ""
    """Its connection, if the trace holds several; else empty."""
    original: str = ""
    """Its name in the file."""


@dataclass(slots=True)
class TraceHeader:
    """The metadata of one trace of a file."""

    index: int = 0
    file: dict[str, Any] = field(default_factory=dict)
    """Members beside the traces: `qlog_version`, `file_schema`, `title`."""
    trace: dict[str, Any] = field(default_factory=dict)
    """Members of the trace beside its events; those that follow the events are added last."""

    @property
    def common(self) -> dict[str, Any]:
        return mapping(self.trace, "common_fields")

    @property
    def vantage(self) -> Vantage:
        """Where the trace was recorded; for a network trace, the side whose view it follows."""
        point = mapping(self.trace, "vantage_point")
        kind = text(point, "type")
        if kind == Vantage.NETWORK:
            kind = text(point, "flow") or kind
        return Vantage(kind) if kind in set(Vantage) else Vantage.UNKNOWN

    @property
    def schemas(self) -> list[str]:
        found = self.trace.get("event_schemas", self.file.get("event_schemas"))
        return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []

    @property
    def version(self) -> str:
        """The vocabulary: an event schema (`quic-12`) or a qlog version (`0.3`, `draft-00`)."""
        for uri in self.schemas:
            if ":events:quic" in uri:
                return uri.rsplit(":", 1)[1]
        return text(self.file, "qlog_version") or text(self.file, "file_schema") or "unknown"

    @property
    def implementation(self) -> str:
        """The implementation that wrote the trace, as named by the header."""
        names = " ".join(
            (
                text(mapping(self.trace, "vantage_point"), "name"),
                text(self.trace, "title"),
                text(self.file, "title"),
                text(self.file, "description"),
            )
        ).lower()
        for name in ("quicedge", "aioquic", "ngtcp2", "picoquic", "quic-go", "quiche", "quinn",
                     "mvfst", "lsquic", "neqo", "msquic", "s2n"):  # fmt: skip
            if name in names:
                return name
        return text(mapping(self.trace, "vantage_point"), "name") or "unknown"


def number(members: dict[str, Any], name: str) -> float | None:
    """A finite, non-negative number, else None.

    Numbers in strings are accepted: JSON readers may lose precision above 2^53 (RFC 8259), so some
    writers quote them.
    """
    value = members.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if 0 <= value <= _LARGEST and math.isfinite(value) else None


def integer(members: dict[str, Any], name: str) -> int | None:
    """Like `number`, without the fraction."""
    value = number(members, name)
    return None if value is None else int(value)


def text(members: dict[str, Any], name: str) -> str:
    """A string, else an empty one."""
    value = members.get(name)
    return value if isinstance(value, str) else ""


def mapping(members: dict[str, Any], name: str) -> dict[str, Any]:
    """An object, else an empty one, which must not be modified."""
    value = members.get(name)
    return value if isinstance(value, dict) else _EMPTY


def sequence(members: dict[str, Any], name: str) -> list[Any]:
    """An array, else an empty one."""
    value = members.get(name)
    return value if isinstance(value, list) else []


def frames(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The frames of a packet; values that are not objects are omitted."""
    value = data.get("frames")
    return [frame for frame in value if isinstance(frame, dict)] if isinstance(value, list) else []


def frame_length(frame: dict[str, Any]) -> int:
    """Payload bytes of a STREAM, CRYPTO or DATAGRAM frame; 0 if the trace does not say."""
    raw = frame.get("raw")
    if not isinstance(raw, dict):
        return 0
    length = integer(raw, "payload_length")
    return length if length is not None else integer(raw, "length") or 0
