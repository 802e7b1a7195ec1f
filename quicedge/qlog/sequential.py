"""Record-by-record traces: JSON text sequences (RFC 7464) and newline-delimited JSON.

The first record is the file's header, each further one an event. A record that is no JSON is
reported and skipped; the next separator starts afresh (RFC 7464 section 2.3).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from quicedge.config.tracelimits import QLOG_MAX_EVENT
from quicedge.qlog.breaks import Breaks
from quicedge.qlog.event import TraceHeader, mapping
from quicedge.qlog.source import Source

RECORD_SEPARATOR = b"\x1e"
_decode_fast = msgspec.json.Decoder().decode


class SequentialReader:
    """Yields each event as it stands in the file, with the header of its trace."""

    def __init__(
        self,
        source: Source,
        head: bytes,
        separator: bytes,
        breaks: Breaks,
        headers: list[TraceHeader],
    ) -> None:
        self._source = source
        self._head = head
        self._separator = separator
        self._breaks = breaks
        self._headers = headers
        self.records = 0

    def __iter__(self) -> Iterator[tuple[TraceHeader, Any]]:
        header: TraceHeader | None = None
        for offset, record in self._records():
            for item in self._values(offset, record):
                self.records += 1
                if is_header(item):
                    header = TraceHeader(len(self._headers), item, dict(mapping(item, "trace")))
                    self._headers.append(header)
                    continue
                if header is None:
                    self._breaks.add(offset, self.records - 1, "events begin without a header")
                    header = TraceHeader(len(self._headers))
                    self._headers.append(header)
                yield header, item

    def _records(self) -> Iterator[tuple[int, bytes]]:
        """Each record that is not blank and its offset in the file."""
        offset = 0
        pending = self._head
        too_long = False
        while True:
            pieces = pending.split(self._separator)
            pending = pieces.pop()
            for piece in pieces:
                if too_long:
                    too_long = False
                elif piece and not piece.isspace():
                    yield offset, piece
                offset += len(piece) + 1
            if len(pending) > QLOG_MAX_EVENT:
                if not too_long:
                    self._breaks.add(
                        offset, self.records, f"a record longer than {QLOG_MAX_EVENT} bytes"
                    )
                too_long = True
                offset += len(pending)
                pending = b""
            piece = self._source.read()
            if not piece:
                break
            pending += piece
        if pending and not pending.isspace() and not too_long:
            yield offset, pending

    def _values(self, offset: int, record: bytes) -> list[Any]:
        """What a record holds: one value; several where a separator was lost; none."""
        try:
            return [_decode_fast(record)]
        except (ValueError, RecursionError):
            pass
        try:
            value = decode(record)
            self._breaks.add(offset, self.records, "no strict JSON (text or a number)")
            return [value]
        except ValueError as error:
            reason = getattr(error, "msg", str(error))
            at = offset + max(0, getattr(error, "pos", 0))
        found = []
        for line in record.split(b"\n"):
            if line and not line.isspace():
                try:
                    found.append(decode(line))
                except ValueError:
                    pass
        last = not record.endswith(b"\n") and self._source.ended
        self._breaks.add(at, self.records, reason + (" (the file ends too early)" if last else ""))
        return found


def decode(record: bytes) -> Any:
    """A JSON value; raises ValueError. What a strict reader refuses (lone surrogates, NaN, octets
    that are no UTF-8) is read as well as it can be."""
    try:
        return json.loads(record.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_header(item: Any) -> bool:
    """Whether a record is a file's header rather than an event."""
    if not isinstance(item, dict) or "data" in item:
        return False
    return bool({"trace", "qlog_version", "qlog_format", "file_schema"} & item.keys())
