"""Translates the events of all known dialects to the vocabulary of the current drafts.

Current events are not changed. Unknown events and members are kept as they are: a tool "SHOULD make
an effort to support and visualize even unknown data" (quic-events section 9).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from quicedge.qlog.event import Event, TraceHeader, integer, mapping, text
from quicedge.qlog.load import Reader
from quicedge.qlog.names import (
    COLUMNS,
    FRAMES,
    METRICS,
    PACKET_TYPES,
    PARAMETERS,
    RTT_METRICS,
    current_name,
)
from quicedge.qlog.parse_errors import ParseErrors

_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "ns": 1e-6}
"""Milliseconds per unit for `time_units` (before draft 02)."""
_FIELDS_BY_POSITION = ["relative_time", "category", "event", "data"]
_DELTA_FORMATS = ("delta", "relative_to_previous_event")
_GROUP_MEMBERS = ("group_id", "ODCID", "odcid")
_LONGEST_TIME = 1e15
"""Milliseconds; larger numbers are invalid (the epoch was 2e12 ago)."""
_LONGEST_GAP = 24 * 3600 * 1000.0
"""Maximum milliseconds between two events; longer gaps are invalid and would distort graphs."""
_LONGEST_NAME = 200
"""Maximum length of an event's name or group."""


class Trace:
    """Translates the events of a trace in order, and keeps its clock."""

    def __init__(self, header: TraceHeader) -> None:
        self.header = header
        self.events = 0
        self.bad_events = 0
        """Items that are not events: without a name or a valid time."""
        self.first_time: float | None = None
        """The time of the first event on the trace's own clock, in milliseconds."""
        self._sum = 0.0
        self._latest = 0.0
        common = header.common
        units = text(mapping(header.trace, "configuration"), "time_units") or text(
            common, "time_units"
        )
        self.unit = _UNITS.get(units, 1.0)
        self._time_format = text(common, "time_format")
        fields = header.trace.get("event_fields")
        self._fields = (
            [_column(name) for name in fields] if isinstance(fields, list) else _FIELDS_BY_POSITION
        )

    @property
    def started(self) -> datetime | None:
        """The wall-clock time of the first event, if it is known."""
        if self.first_time is None:
            return None
        reference = self.header.common.get("reference_time")
        at = self.first_time
        try:
            if isinstance(reference, dict):
                started = text(reference, "wall_clock_time") or text(reference, "epoch")
                start = datetime.fromisoformat(started).timestamp() * 1000
                # Absolute times count from the given epoch, monotonic ones from the start.
                at = start + at
            elif self._time_format.startswith("relative") or at < 1e11:
                base = float(reference) if isinstance(reference, (int, float, str)) else 0.0
                at = base * self.unit + at
            return datetime.fromtimestamp(at / 1000).astimezone() if at > 1e11 else None
        except (ValueError, OverflowError, OSError):
            return None

    def translate(self, raw: Any) -> Event | None:
        """Translate an item; None if it is not an event. `raw` is consumed."""
        if isinstance(raw, list):
            raw = dict(zip(self._fields, raw, strict=False))
        if not isinstance(raw, dict):
            self.bad_events += 1
            return None
        data = raw.get("data")
        name = raw.get("name")
        if not isinstance(name, str):
            event = text(raw, "event") or text(raw, "type")
            category = text(raw, "category")
            name = f"{category}:{event}" if category and event else event
        time = self._clock(raw)
        if not name or time is None:
            self.bad_events += 1
            return None
        name = name[:_LONGEST_NAME]
        current = current_name(name)
        members: dict[str, Any] = data if isinstance(data, dict) else {}
        if isinstance(raw.get("trigger"), str):
            members.setdefault("trigger", raw["trigger"])
        change = _CHANGES.get(current)
        if change is not None and members:
            change(members, self.unit)
        group = ""
        for member in _GROUP_MEMBERS:
            if member in raw:
                group = str(raw[member])[:_LONGEST_NAME]
                break
        event_ = Event(time, current, members, self.events, group, name)
        self.events += 1
        return event_

    def _clock(self, raw: dict[str, Any]) -> float | None:
        """Milliseconds since the first event; None if the event has no valid time."""
        form = raw.get("time_format", self._time_format)
        value = raw.get("time")
        if value is None:
            value = raw.get("relative_time")
        if value is None and "delta_time" in raw:
            value, form = raw["delta_time"], "delta"
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        if not abs(value) < _LONGEST_TIME or not math.isfinite(value):
            return None
        time = value * self.unit
        if form in _DELTA_FORMATS:
            self._sum += time
            time = self._sum
        if self.first_time is None:
            self.first_time = self._latest = time
        if time - self._latest > _LONGEST_GAP:
            return None
        self._latest = max(self._latest, time)
        return max(0.0, time - self.first_time)


def _column(name: Any) -> str:
    lowered = str(name).lower()
    return COLUMNS.get(lowered, lowered)


class Events:
    """The translated events of a file, each with its trace. Iterate once."""

    def __init__(self, path: str | Path, progress: Callable[[int], None] | None = None) -> None:
        self.reader = Reader(path, progress)
        self.traces: dict[int, Trace] = {}

    @property
    def parse_errors(self) -> ParseErrors:
        return self.reader.parse_errors

    @property
    def bad_events(self) -> int:
        """JSON values that are not events."""
        return sum(trace.bad_events for trace in self.traces.values())

    def __iter__(self) -> Iterator[tuple[Trace, Event]]:
        trace: Trace | None = None
        for header, raw in self.reader:
            if trace is None or trace.header is not header:
                trace = self.traces.get(header.index)
                if trace is None:
                    trace = self.traces[header.index] = Trace(header)
            event = trace.translate(raw)
            if event is not None:
                yield trace, event


# --- changes in the data of events -------------------------------------------------------------


def _rename(members: dict[str, Any], names: dict[str, str]) -> None:
    for old, new in names.items():
        if old in members and new not in members:
            members[new] = members.pop(old)


def _raw_length(members: dict[str, Any], *old: str, member: str = "length") -> None:
    """Move a length from its old place into `raw`."""
    for name in old:
        if name in members:
            length = members.pop(name)
            raw = members.get("raw")
            if not isinstance(raw, dict):
                raw = members["raw"] = {}
            raw.setdefault(member, length)


def _header(data: dict[str, Any]) -> None:
    header = data.get("header")
    if not isinstance(header, dict):
        if "packet_size" in data:
            _raw_length(data, "packet_size")
        if not {"packet_type", "type", "packet_number"} & data.keys():
            return
        header = data["header"] = {}
    for outside, inside in (
        ("packet_type", "packet_type"),
        ("type", "packet_type"),
        ("packet_number", "packet_number"),
    ):
        if outside in data:
            header.setdefault(inside, data.pop(outside))
    kind = header.get("packet_type")
    if isinstance(kind, str):
        header["packet_type"] = PACKET_TYPES.get(kind.lower(), kind)
    number = header.get("packet_number")
    if isinstance(number, str):
        header["packet_number"] = integer(header, "packet_number")
    version = header.get("version")
    if version is not None:
        header["version"] = _version(version)
    if "packet_size" in header:
        data["packet_size"] = header.pop("packet_size")
    if "packet_size" in data:
        _raw_length(data, "packet_size")


def _packet(data: dict[str, Any], unit: float) -> None:
    _header(data)
    found = data.get("frames")
    if isinstance(found, list):
        for frame in found:
            if isinstance(frame, dict):
                _frame(frame)


def _frames(data: dict[str, Any], unit: float) -> None:
    found = data.get("frames")
    if isinstance(found, list):
        for frame in found:
            if isinstance(frame, dict):
                _frame(frame)


def _frame(frame: dict[str, Any]) -> None:
    kind = frame.get("frame_type")
    if kind == "stream" or kind == "crypto" or kind == "datagram":
        if "length" in frame:
            _raw_length(frame, "length", member="payload_length")
        if "id" in frame:
            _rename(frame, {"id": "stream_id"})
    elif kind == "ack":
        ranges = frame.get("acked_ranges")
        if isinstance(ranges, str):
            try:
                frame["acked_ranges"] = json.loads(ranges)
            except (ValueError, RecursionError):
                frame["acked_ranges"] = []
    elif isinstance(kind, str):
        lowered = kind.lower()
        current = FRAMES.get(lowered, lowered)
        if kind != current:
            frame["frame_type"] = current
            _frame(frame)
            return
        if kind == "padding":
            _raw_length(frame, "length", member="payload_length")
        elif kind == "new_connection_id":
            _rename(
                frame,
                {
                    "retire_before": "retire_prior_to",
                    "reset_token": "stateless_reset_token",
                    "length": "connection_id_length",
                },
            )
            _rename_token(frame)
        elif kind in ("reset_stream", "stop_sending", "connection_close"):
            _error(frame, "error")
        elif kind == "new_token" and not isinstance(frame.get("token"), dict):
            token = frame.pop("new_token", frame.get("token"))
            frame.pop("length", None)
            frame["token"] = {"raw": {"data": token}}


def _rename_token(members: dict[str, Any]) -> None:
    """Unwrap a stateless reset token, which ngtcp2 writes as an object."""
    token = members.get("stateless_reset_token")
    if isinstance(token, dict):
        members["stateless_reset_token"] = token.get("data", "")


def _error(members: dict[str, Any], member: str) -> None:
    """Split `error_code`, which before draft 12 held the name or number of an error."""
    if member in members:
        return
    code = members.get("error_code")
    if isinstance(code, str):
        members[member] = members.pop("error_code")
        code = members.get("raw_error_code", members.get("error_code_bytes"))
        if code is not None:
            members["error_code"] = code
    elif code is not None:
        members[member] = "unknown"
    members.pop("raw_error_code", None)


def _metrics(data: dict[str, Any], unit: float) -> None:
    _rename(data, METRICS)
    if unit != 1.0:
        for name in RTT_METRICS:
            value = data.get(name)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                data[name] = value * unit


def _parameters(data: dict[str, Any], unit: float) -> None:
    _rename(data, PARAMETERS)
    _rename_token(data)


def _initiator(data: dict[str, Any], unit: float) -> None:
    _rename(data, {"owner": "initiator"})


def _versions(data: dict[str, Any], unit: float) -> None:
    for member in ("server_versions", "client_versions"):
        found = data.get(member)
        if isinstance(found, list):
            data[member] = [_version(version) for version in found]
    if "chosen_version" in data:
        data["chosen_version"] = _version(data["chosen_version"])


def _version(version: Any) -> Any:
    if isinstance(version, int) and not isinstance(version, bool):
        return f"{version:08x}" if version >= 0 else str(version)
    if not isinstance(version, str):
        return version
    version = version.removeprefix("0x")
    return version.lower().zfill(8) if re.fullmatch("[0-9a-fA-F]{1,8}", version) else version


def _alpn(data: dict[str, Any], unit: float) -> None:
    for member in ("server_alpns", "client_alpns"):
        found = data.get(member)
        if isinstance(found, list):
            data[member] = [
                {"string_value": item} if isinstance(item, str) else item for item in found
            ]
    if isinstance(data.get("chosen_alpn"), str):
        data["chosen_alpn"] = {"string_value": data["chosen_alpn"]}


def _datagrams(data: dict[str, Any], unit: float) -> None:
    if "byte_length" in data:
        data["raw"] = [{"length": data.pop("byte_length")}]
    raw = data.get("raw")
    if isinstance(raw, dict):
        data["raw"] = [raw]
    # aioquic includes the UDP header in `length`; the drafts count only the payload.
    for item in data["raw"] if isinstance(raw, list) else ():
        if isinstance(item, dict) and "payload_length" in item:
            item["length"] = item["payload_length"]
    _rename(data, {"datagram_id": "datagram_ids"})


def _stream_type(data: dict[str, Any], unit: float) -> None:
    _rename(data, {"owner": "initiator", "new": "stream_type"})
    kind = data.get("stream_type")
    if kind in ("qpack_encoder", "qpack_decoder"):
        data["stream_type"] = kind.removesuffix("r")
    elif kind == "data":
        data["stream_type"] = "request"


def _moved(data: dict[str, Any], unit: float) -> None:
    _raw_length(data, "length")


def _http_frame(data: dict[str, Any], unit: float) -> None:
    frame = data.get("frame")
    if not isinstance(frame, dict):
        return
    if "length" in data:
        frame["length"] = data.pop("length")
    _raw_length(frame, "length", "byte_length", member="payload_length")


def _lost(data: dict[str, Any], unit: float) -> None:
    _packet(data, unit)
    if "largest_lost_packet_num" in data:
        # mvfst logs one event per loss detection, with only the largest packet number.
        number = data.pop("largest_lost_packet_num")
        if integer(data, "lost_packets") == 1:
            header = {"packet_type": "unknown", **mapping(data, "header")}
            data["header"] = {**header, "packet_number": number}


_OWN_TIMEOUTS = ("idle timeout", "handshake timeout")
"""Reasons that traces of aioquic, and our older ones, gave as internal errors of the peer."""


def _close(data: dict[str, Any], unit: float) -> None:
    _rename(
        data,
        {
            "owner": "initiator",
            "connection_code": "connection_error",
            "application_code": "application_error",
            "code_bytes": "error_code",
        },
    )
    reason = text(data, "reason").lower()
    if text(data, "trigger") == "idle_timeout" or (
        reason in _OWN_TIMEOUTS and text(data, "connection_error") == "internal_error"
    ):
        # RFC 9000 section 10.1: an endpoint closes silently when its timer expires. Nothing is sent
        # or received, so there is neither an initiating peer nor an error code.
        for member in ("connection_error", "application_error", "error", "error_code"):
            data.pop(member, None)
        data["initiator"] = "local"
        data["trigger"] = "idle_timeout" if reason != "handshake timeout" else "error"


_CHANGES: dict[str, Callable[[dict[str, Any], float], None]] = {
    "quic:packet_sent": _packet,
    "quic:packet_received": _packet,
    "quic:packet_lost": _lost,
    "quic:packet_dropped": _packet,
    "quic:packet_buffered": _packet,
    "quic:frames_processed": _frames,
    "quic:frames_created": _frames,
    "quic:frames_parsed": _frames,
    "quic:marked_for_retransmit": _frames,
    "quic:recovery_metrics_updated": _metrics,
    "quic:parameters_set": _parameters,
    "quic:parameters_restored": _parameters,
    "quic:version_information": _versions,
    "quic:alpn_information": _alpn,
    "quic:udp_datagrams_sent": _datagrams,
    "quic:udp_datagrams_received": _datagrams,
    "quic:stream_data_moved": _moved,
    "quic:connection_closed": _close,
    "quic:connection_id_updated": _initiator,
    "http3:parameters_set": _initiator,
    "http3:stream_type_set": _stream_type,
    "http3:frame_created": _http_frame,
    "http3:frame_parsed": _http_frame,
}
