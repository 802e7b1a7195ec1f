"""Opens trace files of any format and reads their events one by one in bounded memory.

Formats: whole-file JSON, JSON text sequences (`.sqlog`), newline-delimited JSON and concatenated
JSON texts (pretty-printed records), each optionally compressed with gzip, each with one or more
traces. They are recognized by content, not by name; a byte order mark is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from quicedge.qlog.contained import ContainedReader
from quicedge.qlog.event import TraceHeader
from quicedge.qlog.json_stream import JsonStream
from quicedge.qlog.parse_errors import ParseErrors
from quicedge.qlog.sequential import (
    RECORD_SEPARATOR,
    ConcatenatedValues,
    SeparatedValues,
    SequentialReader,
)
from quicedge.qlog.source import Source

_BOM = b"\xef\xbb\xbf"
_HEAD = 64 * 1024
"""Bytes examined to recognize the format."""
_WHOLE_FILE_MEMBERS = {"traces", "events"}


class Shape(StrEnum):
    """The file format, by the layout of its events."""

    UNKNOWN = "unknown"
    CONTAINED = "JSON"
    SEQUENCE = "JSON-SEQ"
    LINES = "NDJSON"
    CONCATENATED = "concatenated JSON"


class Reader:
    """The raw events of a file, each with the header of its trace.

    Iterate once. The content of the file never raises: what cannot be read is in `parse_errors`.
    Only opening it can fail (OSError).
    """

    def __init__(self, path: str | Path, progress: Callable[[int], None] | None = None) -> None:
        self.source = Source(path, progress)
        self._progress = progress
        self.parse_errors = ParseErrors()
        self.headers: list[TraceHeader] = []
        """The traces found so far."""
        self.shape = Shape.UNKNOWN
        self._records: ContainedReader | SequentialReader | None = None

    @property
    def records(self) -> int:
        """Events read so far; in a sequence including headers."""
        return self._records.records if self._records is not None else 0

    def __iter__(self) -> Iterator[tuple[TraceHeader, Any]]:
        try:
            head = b""
            while len(head) < _HEAD and (piece := self.source.read()):
                head += piece
            body = head.removeprefix(_BOM)
            self.shape = shape_of(body)
            self._records = self._open(body, len(head) - len(body))
            if not body.strip():
                self.parse_errors.add(0, 0, "the file is empty")
            else:
                yield from self._records
            if self.source.damage is not None:
                self.parse_errors.add(self.source.offset, self.records, self.source.damage)
        finally:
            self.source.close()

    def _open(self, body: bytes, offset: int) -> ContainedReader | SequentialReader:
        if self.shape is Shape.CONTAINED:
            return ContainedReader(
                JsonStream(self.source, body, offset),
                self.parse_errors,
                self.headers,
                self._look_ahead,
            )
        values: SeparatedValues | ConcatenatedValues
        if self.shape is Shape.CONCATENATED:
            values = ConcatenatedValues(JsonStream(self.source, body, offset), self.parse_errors)
        else:
            separator = RECORD_SEPARATOR if self.shape is Shape.SEQUENCE else b"\n"
            values = SeparatedValues(self.source, body, offset, separator, self.parse_errors)
        return SequentialReader(values, self.parse_errors, self.headers)

    def _look_ahead(self, offset: int) -> JsonStream:
        """Open a second stream at `offset` of the file. Raises OSError."""
        stream = JsonStream(Source(self.source.path, self._progress), b"")
        stream.go_to(offset)
        return stream


def shape_of(head: bytes) -> Shape:
    """The format of a file that starts with `head`."""
    start = head.removeprefix(_BOM).lstrip()
    if start.startswith(RECORD_SEPARATOR):
        return Shape.SEQUENCE
    first, newline, rest = start.partition(b"\n")
    separated = RECORD_SEPARATOR in rest
    try:
        value = json.loads(first.decode("latin-1"))
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and not _WHOLE_FILE_MEMBERS & value.keys():
        return Shape.SEQUENCE if separated else Shape.LINES
    if value is None:
        # Records may span lines, or share one; behind a damaged header the next record decides.
        value = _first_value(start)
        if isinstance(value, dict) and not _WHOLE_FILE_MEMBERS & value.keys():
            return Shape.SEQUENCE if separated else Shape.CONCATENATED
        if not isinstance(value, dict) and b'"events"' not in head and b'"traces"' not in head:
            if separated:
                return Shape.SEQUENCE
            if newline and rest.lstrip().startswith(b'{"') and len(first) > 1:
                return Shape.LINES
    return Shape.CONTAINED


def _first_value(text: bytes) -> Any:
    """The JSON value at the start of the text; None if there is none."""
    try:
        return json.JSONDecoder().raw_decode(text.decode("latin-1"))[0]
    except (ValueError, RecursionError):
        return None
