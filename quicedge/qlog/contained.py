"""Whole-file JSON traces: qlog 0.1 to 0.4 and `urn:ietf:params:qlog:file:contained`.

The file is one JSON object, `{..., "traces": [{..., "events": [EVENT, ...], ...}]}`, with its
members in any order. Only one event is held in memory. If members that describe the clock, columns
or vantage point of a trace follow its events, they are looked up first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from quicedge.qlog.event import TraceHeader
from quicedge.qlog.json_stream import JsonStream, NotJson, Truncated
from quicedge.qlog.parse_errors import ParseErrors

_EVENTS = re.compile(r'"events"\s{0,16}:\s{0,16}\[')
_NEXT_ITEM = re.compile(r"[}\]]\s{0,16},\s{0,16}(?=[{\[])")
_WANTED_OF_ARRAYS = {"configuration", "event_fields", "vantage_point"}
"""Members required to read events written as arrays (drafts before 02)."""
_WANTED_OF_OBJECTS = {"common_fields", "vantage_point"}
_VERSION_MEMBERS = {"file_schema", "qlog_version"}
"""Members of a file that determine its vocabulary."""
_LARGEST_AFTER_ERROR = 1024 * 1024
"""Maximum size of an event right after a parse error, where most candidates are not events."""


class ContainedReader:
    """Yields the raw events of a file, each with the header of its trace. Iterate once."""

    def __init__(
        self,
        stream: JsonStream,
        parse_errors: ParseErrors,
        headers: list[TraceHeader],
        look_ahead: Callable[[int], JsonStream],
    ) -> None:
        """`look_ahead` opens another stream at a byte offset of the same file."""
        self._stream = stream
        self._look_ahead = look_ahead
        self._parse_errors = parse_errors
        self._headers = headers
        self._file: dict[str, Any] = {}
        self.records = 0

    def __iter__(self) -> Iterator[tuple[TraceHeader, Any]]:
        try:
            yield from self._read_file()
            if self._stream.repaired is not None:
                raise NotJson(self._stream.repaired, "invalid UTF-8")
            if self._stream.peek():
                raise NotJson(self._stream.offset, "trailing data after the JSON text")
        except NotJson as error:
            self._report(error)
            # Whatever the damage, further event lists can be found by their name.
            while self._stream.find(_EVENTS):
                try:
                    yield from self._read_events(self._new_header())
                except NotJson as another:
                    self._report(another)

    def _report(self, error: NotJson) -> None:
        places = self._parse_errors.places
        if isinstance(error, Truncated) and places and places[-1].record == self.records:
            return  # the truncated event was already reported
        self._parse_errors.add(error.offset, self.records, error.reason)

    def _new_header(self) -> TraceHeader:
        header = TraceHeader(index=len(self._headers), file=self._file)
        self._headers.append(header)
        return header

    def _members(self) -> Iterator[str]:
        """Yields the names of an object's members; the stream is then at the value."""
        stream = self._stream
        stream.expect("{")
        if stream.peek() == "}":
            stream.skip()
            return
        yield from _names(stream)

    def _read_file(self) -> Iterator[tuple[TraceHeader, Any]]:
        stream = self._stream
        alone: TraceHeader | None = None
        for name in self._members():
            opening = stream.peek()
            if name == "traces" and opening == "[":
                stream.skip()
                if not _VERSION_MEMBERS & self._file.keys():
                    self._complete(self._file, _VERSION_MEMBERS, _skip_traces)
                if stream.peek() == "]":
                    stream.skip()
                    continue
                while True:
                    if stream.peek() == "{":
                        yield from self._read_trace(self._new_header())
                    else:
                        stream.value()
                    if stream.peek() == "]":
                        stream.skip()
                        break
                    stream.expect(",")
            elif name == "events" and opening == "[":
                alone = alone or self._new_header()
                alone.trace = self._file
                stream.skip()
                self._complete_events(self._file)
                yield from self._read_events(alone)
            else:
                self._file[name] = stream.value()

    def _read_trace(self, header: TraceHeader) -> Iterator[tuple[TraceHeader, Any]]:
        for name in self._members():
            if name == "events" and self._stream.peek() == "[":
                self._stream.skip()
                self._complete_events(header.trace)
                yield from self._read_events(header)
            else:
                header.trace[name] = self._stream.value()

    def _complete_events(self, members: dict[str, Any]) -> None:
        """Look up the members required to read the events that start here."""
        wanted = _WANTED_OF_ARRAYS if self._stream.peek() == "[" else _WANTED_OF_OBJECTS
        if not wanted <= members.keys():
            self._complete(members, wanted, _skip_items)

    def _complete(
        self, members: dict[str, Any], wanted: set[str], skip: Callable[[JsonStream], None]
    ) -> None:
        """Look up members that follow the array that starts here, which `skip` skips."""
        try:
            stream = self._look_ahead(self._stream.offset)
        except OSError:
            return
        try:
            skip(stream)
            if stream.peek() == "}":
                return
            stream.expect(",")
            for name in _names(stream):
                value = stream.value()
                if name in wanted:
                    members.setdefault(name, value)
        except NotJson:
            pass  # reading will report it
        finally:
            stream.close()

    def _read_events(self, header: TraceHeader) -> Iterator[tuple[TraceHeader, Any]]:
        """The items of an event list; raises `NotJson` only at the end of the file."""
        stream = self._stream
        first = True
        while True:
            try:
                if stream.peek() == "]":
                    stream.skip()
                    return
                if not first:
                    stream.expect(",")
                item = stream.value()
            except NotJson as error:
                self._report(error)
                found, item = self._next_event()
                if not found:
                    return
            first = False
            if stream.repaired is not None:
                self._report(NotJson(stream.repaired, "invalid UTF-8"))
                stream.repaired = None
            self.records += 1
            yield header, item

    def _next_event(self) -> tuple[bool, Any]:
        """Resume after a parse error: find the next event in the file."""
        stream = self._stream
        while stream.find(_NEXT_ITEM):
            try:
                item = stream.value(_LARGEST_AFTER_ERROR)
            except NotJson:
                continue
            if looks_like_event(item):
                return True, item
        return False, None


def _names(stream: JsonStream) -> Iterator[str]:
    """Yields the names of the remaining members; the stream is then at the value."""
    while True:
        at = stream.offset
        name = stream.value()
        if not isinstance(name, str):
            raise NotJson(at, "expected the name of a member")
        stream.expect(":")
        yield name
        if stream.peek() == "}":
            stream.skip()
            return
        stream.expect(",")


def _skip_items(stream: JsonStream) -> None:
    """Skip the rest of an array, including its end."""
    first = True
    while stream.peek() != "]":
        if not first:
            stream.expect(",")
        stream.value()
        first = False
    stream.skip()


def _skip_traces(stream: JsonStream) -> None:
    """Skip the rest of the array of traces, including its end, one event at a time."""
    first = True
    while stream.peek() != "]":
        if not first:
            stream.expect(",")
        first = False
        if stream.peek() != "{":
            stream.value()
            continue
        stream.skip()
        if stream.peek() == "}":
            stream.skip()
            continue
        for name in _names(stream):
            if name == "events" and stream.peek() == "[":
                stream.skip()
                _skip_items(stream)
            else:
                stream.value()
    stream.skip()


def looks_like_event(item: Any) -> bool:
    """Whether a JSON value looks like an event.

    That is an object with a name and data, or, before draft 02, an array such as
    `[time, category, event, data]`.
    """
    if isinstance(item, dict):
        return "data" in item and bool({"name", "event", "type"} & item.keys())
    return isinstance(item, list) and len(item) >= 3 and isinstance(item[-1], dict)
