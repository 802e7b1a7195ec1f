"""Open a trace file of any shape and read its events one by one, in bounded memory.

Shapes: whole-file JSON, JSON text sequences (`.sqlog`) and newline-delimited JSON, each also
gzipped, each with one or several traces. They are told apart by content, not by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quicedge.qlog.breaks import Breaks
from quicedge.qlog.contained import ContainedReader
from quicedge.qlog.cursor import Cursor
from quicedge.qlog.event import TraceHeader
from quicedge.qlog.sequential import RECORD_SEPARATOR, SequentialReader
from quicedge.qlog.source import Source

_BOM = b"\xef\xbb\xbf"
_HEAD = 64 * 1024
"""Bytes looked at to tell the shape."""


class Reader:
    """The events of a file, each with the header of its trace, as they stand there.

    Iterate once. Nothing in the file makes it raise: what cannot be read is in `breaks`. Only
    opening it can fail (OSError).
    """

    def __init__(self, path: str | Path, progress: Callable[[int], None] | None = None) -> None:
        self.source = Source(path, progress)
        self.breaks = Breaks()
        self.headers: list[TraceHeader] = []
        """Traces met so far."""
        self.shape = "unknown"
        """`JSON`, `JSON-SEQ` or `NDJSON`."""
        self._records: ContainedReader | SequentialReader | None = None

    @property
    def records(self) -> int:
        """Events read so far; in a sequence the header counts too."""
        return self._records.records if self._records is not None else 0

    def __iter__(self) -> Iterator[tuple[TraceHeader, Any]]:
        try:
            head = b""
            while len(head) < _HEAD and (piece := self.source.read()):
                head += piece
            self.shape = shape_of(head)
            if self.shape == "JSON":
                body = head.removeprefix(_BOM)
                cursor = Cursor(self.source, body, len(head) - len(body))
                self._records = ContainedReader(cursor, self.breaks, self.headers)
            else:
                separator = RECORD_SEPARATOR if self.shape == "JSON-SEQ" else b"\n"
                self._records = SequentialReader(
                    self.source, head, separator, self.breaks, self.headers
                )
            if not head.strip():
                self.breaks.add(0, 0, "the file is empty")
            else:
                yield from self._records
            if self.source.damage is not None:
                self.breaks.add(self.source.offset, self.records, self.source.damage)
        finally:
            self.source.close()


def shape_of(head: bytes) -> str:
    """Which shape the file with this beginning has."""
    start = head.removeprefix(_BOM).lstrip()
    if start.startswith(RECORD_SEPARATOR):
        return "JSON-SEQ"
    first, newline, rest = start.partition(b"\n")
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and not {"traces", "events"} & value.keys():
        return "JSON-SEQ" if RECORD_SEPARATOR in rest else "NDJSON"
    if value is None and b'"events"' not in head and b'"traces"' not in head:
        # A damaged header: what follows it tells.
        if RECORD_SEPARATOR in rest:
            return "JSON-SEQ"
        if newline and rest.lstrip().startswith(b'{"') and len(first) > 1:
            return "NDJSON"
    return "JSON"
