"""Whole-file JSON traces: qlog 0.1 to 0.4 and `urn:ietf:params:qlog:file:contained`.

The file is one JSON object, `{..., "traces": [{..., "events": [EVENT, ...], ...}]}`, with its
members in any order. Only one event is held at a time. What a trace says of its clock, its columns
and its side may stand behind its events; it is then looked up first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from quicedge.qlog.breaks import Breaks
from quicedge.qlog.cursor import ENDS, Broken, Cursor
from quicedge.qlog.event import TraceHeader

_EVENTS = re.compile(r'"events"\s{0,16}:\s{0,16}\[')
_NEXT_ITEM = re.compile(r"[}\]]\s{0,16},\s{0,16}(?=[{\[])")
_WANTED_OF_ARRAYS = {"configuration", "event_fields", "vantage_point"}
"""Members that are needed to read events written as arrays (drafts before 02)."""
_WANTED_OF_OBJECTS = {"common_fields", "vantage_point"}
_VERSION_MEMBERS = {"file_schema", "qlog_version"}
"""Members of a file that tell its vocabulary."""
_LARGEST_AFTER_BREAK = 1024 * 1024
"""Bytes that an event may have right after a broken place, where most candidates are none."""


class ContainedReader:
    """Yields each event as it stands in the file, with the header of its trace."""

    def __init__(
        self,
        cursor: Cursor,
        breaks: Breaks,
        headers: list[TraceHeader],
        look_ahead: Callable[[int], Cursor],
    ) -> None:
        """`look_ahead` gives a cursor of its own at a byte offset of the same file."""
        self._cursor = cursor
        self._look_ahead = look_ahead
        self._breaks = breaks
        self._headers = headers
        self._file: dict[str, Any] = {}
        self.records = 0

    def __iter__(self) -> Iterator[tuple[TraceHeader, Any]]:
        try:
            yield from self._read_file()
            if self._cursor.repaired is not None:
                raise Broken(self._cursor.repaired, "octets that are no UTF-8")
            if self._cursor.peek():
                raise Broken(self._cursor.offset, "there is more after the end of the JSON text")
        except Broken as broken:
            self._report(broken)
            # Whatever the damage, further lists of events can still be found by their name.
            while self._cursor.find(_EVENTS):
                try:
                    yield from self._read_events(self._new_header())
                except Broken as another:
                    self._report(another)

    def _report(self, broken: Broken) -> None:
        places = self._breaks.places
        if broken.reason == ENDS and places and places[-1].record == self.records:
            return  # the event that the end cut off has been reported
        self._breaks.add(broken.offset, self.records, broken.reason)

    def _new_header(self) -> TraceHeader:
        header = TraceHeader(index=len(self._headers), file=self._file)
        self._headers.append(header)
        return header

    def _members(self) -> Iterator[str]:
        """The names of an object's members, the cursor standing at each value."""
        cursor = self._cursor
        cursor.expect("{")
        if cursor.peek() == "}":
            cursor.skip()
            return
        yield from _names(cursor)

    def _read_file(self) -> Iterator[tuple[TraceHeader, Any]]:
        cursor = self._cursor
        alone: TraceHeader | None = None
        for name in self._members():
            opening = cursor.peek()
            if name == "traces" and opening == "[":
                cursor.skip()
                if not _VERSION_MEMBERS & self._file.keys():
                    self._complete(self._file, _VERSION_MEMBERS, _skip_traces)
                if cursor.peek() == "]":
                    cursor.skip()
                    continue
                while True:
                    if cursor.peek() == "{":
                        yield from self._read_trace(self._new_header())
                    else:
                        cursor.value()
                    if cursor.peek() == "]":
                        cursor.skip()
                        break
                    cursor.expect(",")
            elif name == "events" and opening == "[":
                alone = alone or self._new_header()
                alone.trace = self._file
                cursor.skip()
                self._complete_events(self._file)
                yield from self._read_events(alone)
            else:
                self._file[name] = cursor.value()

    def _read_trace(self, header: TraceHeader) -> Iterator[tuple[TraceHeader, Any]]:
        for name in self._members():
            if name == "events" and self._cursor.peek() == "[":
                self._cursor.skip()
                self._complete_events(header.trace)
                yield from self._read_events(header)
            else:
                header.trace[name] = self._cursor.value()

    def _complete_events(self, members: dict[str, Any]) -> None:
        """Look up what is needed to read the events that begin here."""
        wanted = _WANTED_OF_ARRAYS if self._cursor.peek() == "[" else _WANTED_OF_OBJECTS
        if not wanted <= members.keys():
            self._complete(members, wanted, _skip_items)

    def _complete(
        self, members: dict[str, Any], wanted: set[str], skip: Callable[[Cursor], None]
    ) -> None:
        """Look up members that stand behind the array that begins here, which `skip` passes."""
        try:
            cursor = self._look_ahead(self._cursor.offset)
        except OSError:
            return
        try:
            skip(cursor)
            if cursor.peek() == "}":
                return
            cursor.expect(",")
            for name in _names(cursor):
                value = cursor.value()
                if name in wanted:
                    members.setdefault(name, value)
        except Broken:
            pass  # the reading itself will meet the place, and report it
        finally:
            cursor.close()

    def _read_events(self, header: TraceHeader) -> Iterator[tuple[TraceHeader, Any]]:
        """The items of a list of events; raises `Broken` only where the file ends."""
        cursor = self._cursor
        first = True
        while True:
            try:
                if cursor.peek() == "]":
                    cursor.skip()
                    return
                if not first:
                    cursor.expect(",")
                item = cursor.value()
            except Broken as broken:
                self._report(broken)
                found, item = self._next_event()
                if not found:
                    return
            first = False
            if cursor.repaired is not None:
                self._report(Broken(cursor.repaired, "octets that are no UTF-8"))
                cursor.repaired = None
            self.records += 1
            yield header, item

    def _next_event(self) -> tuple[bool, Any]:
        """Go on after a broken place: the next thing in the file that is an event."""
        cursor = self._cursor
        while cursor.find(_NEXT_ITEM):
            try:
                item = cursor.value(_LARGEST_AFTER_BREAK)
            except Broken:
                continue
            if looks_like_event(item):
                return True, item
        return False, None


def _names(cursor: Cursor) -> Iterator[str]:
    """The names of an object's members from the next one on, the cursor standing at each value."""
    while True:
        at = cursor.offset
        name = cursor.value()
        if not isinstance(name, str):
            raise Broken(at, "expected the name of a member")
        cursor.expect(":")
        yield name
        if cursor.peek() == "}":
            cursor.skip()
            return
        cursor.expect(",")


def _skip_items(cursor: Cursor) -> None:
    """Pass the rest of an array, and its end."""
    first = True
    while cursor.peek() != "]":
        if not first:
            cursor.expect(",")
        cursor.value()
        first = False
    cursor.skip()


def _skip_traces(cursor: Cursor) -> None:
    """Pass the rest of the array of traces, and its end, with one event in memory at a time."""
    first = True
    while cursor.peek() != "]":
        if not first:
            cursor.expect(",")
        first = False
        if cursor.peek() != "{":
            cursor.value()
            continue
        cursor.skip()
        if cursor.peek() == "}":
            cursor.skip()
            continue
        for name in _names(cursor):
            if name == "events" and cursor.peek() == "[":
                cursor.skip()
                _skip_items(cursor)
            else:
                cursor.value()
    cursor.skip()


def looks_like_event(item: Any) -> bool:
    """Whether a JSON value has an event's shape: an object with a name and data, or, in drafts
    before 02, an array such as `[time, category, event, data]`."""
    if isinstance(item, dict):
        return "data" in item and bool({"name", "event", "type"} & item.keys())
    return isinstance(item, list) and len(item) >= 3 and isinstance(item[-1], dict)
