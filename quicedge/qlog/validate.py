"""Validates a trace against the drafts' definitions and for consistency (`consistency.py`).

A trace that declares the event schemas of drafts 12 or later is validated as it is. Older ones
(qlog 0.1 to 0.4, quic-events up to 11) cannot conform to names that did not exist yet; they are
translated first, and the result is validated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quicedge.config.tracelimits import QLOG_MAX_CONNECTIONS, QLOG_MAX_FINDINGS
from quicedge.qlog.consistency import Consistency
from quicedge.qlog.definitions import Problem, Severity, check, events
from quicedge.qlog.event import Event, TraceHeader, text
from quicedge.qlog.load import Reader, Shape
from quicedge.qlog.normalise import Trace
from quicedge.qlog.parse_errors import ParseErrors

_SCHEMA = re.compile(r"urn:ietf:params:qlog:events:([\w.~-]+?)(?:-(\d+))?(?:#[\w.~-]+)?")
_OLDEST = 12
"""The first draft of quic-events with the current names."""
_CONTENT = ("trace", "traces", "events")
"""Members of a file that contain its traces."""
_ENVELOPE = {
    "?tuple": "TupleID",
    "?time_format": "TimeFormat",
    "?group_id": "GroupID",
    "?system_info": "SystemInformation",
}
"""Members of an event beside `time`, `name` and `data` (main-schema section 7)."""


@dataclass(slots=True)
class Finding:
    """One kind of problem, and how often it occurred."""

    level: Severity
    event: str
    """Event name, or `file`."""
    what: str
    first: int
    """The number of the first affected event in the file."""
    count: int = 1
    example: str = ""
    """A detail of the first affected event, if the finding does not contain it."""


@dataclass(slots=True)
class Validation:
    """The result of validating a file."""

    events: int = 0
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)
    beyond_limit: int = 0
    parse_errors: ParseErrors = field(default_factory=ParseErrors)
    names: dict[str, int] = field(default_factory=dict)
    """Number of events by current name."""
    importance: dict[str, int] = field(default_factory=dict)
    """Number of events by importance: core, base, extra, or unknown."""
    translated: bool = False
    """Whether the trace uses an older dialect and was translated first."""
    version: str = ""

    complete: bool = True
    """Whether no events are missing: no parse errors, and none reported as lost."""

    @property
    def conforms(self) -> bool:
        """Whether there are neither errors nor notes."""
        return not self.findings and not self.parse_errors.count

    @property
    def errors(self) -> int:
        """The number of kinds of errors, plus parse errors."""
        found = sum(finding.level is Severity.ERROR for finding in self.findings.values())
        return found + self.parse_errors.count

    def add(self, severity: Severity, event: str, what: str, example: str = "") -> None:
        known = self.findings.get((event, what))
        if known is not None:
            known.count += 1
        elif len(self.findings) < QLOG_MAX_FINDINGS:
            self.findings[event, what] = Finding(
                severity, event, what, self.events, example=example
            )
        else:
            self.beyond_limit += 1

    def count(self, importance: str) -> None:
        self.importance[importance] = self.importance.get(importance, 0) + 1

    def take(self, event: str, problems: list[Problem]) -> None:
        for severity, place, what in problems:
            self.add(severity, event, f"{place} {what}" if place else what)


def validate(path: str | Path, progress: Callable[[int], None] | None = None) -> Validation:
    """Validate a file. Raises only OSError."""
    return _Validator(Reader(path, progress)).run()


class _Validator:
    """One pass over a file."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._result = Validation()
        self._traces: dict[int, Trace] = {}
        self._times: dict[int, float] = {}
        self._packets: dict[tuple[int, str], Consistency] = {}
        self._doubtful: dict[tuple[str, str], Finding] = {}
        """Findings that are errors unless the trace lost the events that would explain them."""

    def run(self) -> Validation:
        result, reader = self._result, self._reader
        for header, raw in reader:
            trace = self._traces.get(header.index)
            if trace is None:
                trace = self._traces[header.index] = Trace(header)
                result.version = result.version or header.version
                if is_current(header):
                    _check_header(result, header, reader.shape)
                else:
                    result.translated = True
            self._check(trace, raw)
            result.events += 1
        result.parse_errors = reader.parse_errors
        if not result.events and not result.parse_errors.count:
            result.add(Severity.ERROR, "file", "has no events")
        elif result.events and not any(name in events() for name in result.names):
            result.add(
                Severity.ERROR, "file", "has no event of the drafts: nothing could be compared"
            )
        if result.complete and not result.parse_errors.count:
            result.findings.update(self._doubtful)
        return result

    def _check(self, trace: Trace, raw: Any) -> None:
        event = _check_event(self._result, trace, raw, self._times)
        if event is None:
            return
        if event.name.startswith("loglevel:") and "events lost" in text(event.data, "message"):
            self._result.complete = False
        connection = (trace.header.index, event.group)
        packets = self._packets.get(connection)
        if packets is None:
            if len(self._packets) >= QLOG_MAX_CONNECTIONS:
                return
            packets = self._packets[connection] = Consistency()
        for found in packets.check(event):
            if not found.needs_all:
                self._result.add(Severity.ERROR, event.original, found.what, found.example)
                continue
            key = event.original, found.what
            known = self._doubtful.get(key)
            if known is not None:
                known.count += 1
            elif len(self._doubtful) < QLOG_MAX_FINDINGS:
                self._doubtful[key] = Finding(
                    Severity.ERROR, *key, self._result.events, example=found.example
                )


def is_current(header: TraceHeader) -> bool:
    """Whether the trace declares the vocabulary of the current drafts."""
    if "qlog_version" in header.file and not header.schemas:
        return False
    for uri in header.schemas:
        match = _SCHEMA.fullmatch(uri)
        if match and match[1] == "quic":
            return match[2] is None or int(match[2][:6]) >= _OLDEST
    return "file_schema" in header.file


def _check_header(result: Validation, header: TraceHeader, shape: Shape) -> None:
    schema, wanted, kind = (
        ("sequential", "application/qlog+json-seq", "TraceSeq")
        if shape is not Shape.CONTAINED
        else ("contained", "application/qlog+json", "TraceSeq")
    )
    described = {name: value for name, value in header.file.items() if name not in _CONTENT}
    result.take("file", check(described, "LogFile", ""))
    result.take("file", check(header.trace, kind, "trace"))
    value = text(header.file, "file_schema")
    if value and value != f"urn:ietf:params:qlog:file:{schema}":
        result.add(
            Severity.ERROR, "file", f"file_schema is {value[:80]!r}, but the file is {schema}"
        )
    format_ = text(header.file, "serialization_format")
    if format_ and format_.lower() != wanted:
        result.add(
            Severity.ERROR, "file", f"serialization_format is {format_[:80]!r}, not {wanted!r}"
        )
    if shape in (Shape.LINES, Shape.CONCATENATED):
        result.add(Severity.ERROR, "file", "records lack the record separator 0x1E (RFC 7464)")
    for uri in header.schemas:
        match = _SCHEMA.fullmatch(uri)
        if match is None:
            result.add(Severity.NOTE, "file", f"event schema {uri[:80]!r} is private or malformed")
        elif match[2] is None and match[1] in ("quic", "http3", "http"):
            # "Until such an RFC exists, implementations MUST NOT identify themselves using this
            # URI" (quic-events section 2.1).
            result.add(Severity.ERROR, "file", f"event schema {uri!r} lacks the draft's number")


def _check_event(
    result: Validation, trace: Trace, raw: Any, times: dict[int, float]
) -> Event | None:
    """Validate one event; returns it in the current vocabulary, None if it is not an event."""
    current = is_current(trace.header)
    if not isinstance(raw, dict) and current:
        result.add(Severity.ERROR, "event", "is not an object")
        return None
    if current:
        envelope = {key: value for key, value in raw.items() if key != "data"}
        name = text(raw, "name") or "event"
        kind = {"object": {"time": "float64", "name": "text", **_ENVELOPE}}
        result.take(name, check(envelope, kind, ""))
        if "data" not in raw:
            result.add(Severity.ERROR, name, "lacks the member 'data'")
        data = raw.get("data", {})
        if name in events():
            result.take(name, check(data, events()[name]["data"], "data"))
    event = trace.translate(raw)
    if event is None:
        if not current:
            result.add(Severity.ERROR, "event", "has no name or no usable time")
        return None
    before = times.get(trace.header.index, 0.0)
    if event.time < before:
        result.add(Severity.NOTE, "file", "events are not in the order of their times")
    times[trace.header.index] = max(before, event.time)
    if event.name in result.names or len(result.names) < QLOG_MAX_FINDINGS:
        result.names[event.name] = result.names.get(event.name, 0) + 1
    definition = events().get(event.name)
    result.count(definition["importance"] if definition else "unknown")
    if definition is None:
        result.add(Severity.NOTE, event.original, "is not an event of the drafts")
        return event
    if current and event.original == event.name:
        return event
    if current:
        result.add(
            Severity.ERROR, event.original, f"is the name that older drafts had for {event.name}"
        )
    result.take(event.original, check(event.data, definition["data"], "data"))
    return event
