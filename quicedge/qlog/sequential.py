"""Record-by-record traces: JSON text sequences (RFC 7464), newline-delimited JSON, and JSON texts
that follow each other with no separator.

The first record is the file's header, each further one an event. A record that is no JSON is
reported and skipped; the next separator starts afresh (RFC 7464 section 2.3).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from quicedge.config.tracelimits import QLOG_MAX_EVENT
from quicedge.qlog.event import TraceHeader, mapping
from quicedge.qlog.json_stream import JsonStream, NotJson
from quicedge.qlog.parse_errors import ParseErrors
from quicedge.qlog.source import Source

RECORD_SEPARATOR = b"\x1e"
_NEXT_VALUE = re.compile(r"[}\]]?\s{0,16}\n(?=\{)")
"""Where reading goes on after a broken record: a brace at the beginning of a line."""
_decode_fast = msgspec.json.Decoder().decode


class Values(Protocol):
    """The JSON values of a file, each with its offset; iterate once."""

    count: int
    """Values read so far."""

    def __iter__(self) -> Iterator[tuple[int, Any]]: ...


class SequentialReader:
    """Yields each event as it stands in the file, with the header of its trace."""

    def __init__(
        self, values: Values, parse_errors: ParseErrors, headers: list[TraceHeader]
    ) -> None:
        self._values = values
        self._parse_errors = parse_errors
        self._headers = headers

    @property
    def records(self) -> int:
        """Values read so far, headers among them."""
        return self._values.count

    def __iter__(self) -> Iterator[tuple[TraceHeader, Any]]:
        header: TraceHeader | None = None
        for offset, item in self._values:
            if is_header(item):
                header = TraceHeader(len(self._headers), item, dict(mapping(item, "trace")))
                self._headers.append(header)
                continue
            if header is None:
                self._parse_errors.add(offset, self.records - 1, "events begin without a header")
                header = TraceHeader(len(self._headers))
                self._headers.append(header)
            yield header, item


class ConcatenatedValues:
    """JSON texts one after another with nothing but white space between them."""

    def __init__(self, stream: JsonStream, parse_errors: ParseErrors) -> None:
        self._stream = stream
        self._parse_errors = parse_errors
        self.count = 0

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        stream = self._stream
        while stream.peek():
            offset = stream.offset
            try:
                value = stream.value()
            except NotJson as broken:
                self._parse_errors.add(broken.offset, self.count, broken.reason)
                if not stream.find(_NEXT_VALUE):
                    return
                continue
            if stream.repaired is not None:
                self._parse_errors.add(stream.repaired, self.count, "octets that are no UTF-8")
                stream.repaired = None
            self.count += 1
            yield offset, value


class SeparatedValues:
    """Records with a separator before (RFC 7464) or behind (newline-delimited JSON) each."""

    def __init__(
        self, source: Source, head: bytes, offset: int, separator: bytes, parse_errors: ParseErrors
    ) -> None:
        """`head`: what was read of the source, from `offset` in the file on."""
        self._source = source
        self._head = head
        self._offset = offset
        self._separator = separator
        self._parse_errors = parse_errors
        self.count = 0

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        for offset, record in self._records():
            for item in self._parse(offset, record):
                self.count += 1
                yield offset, item

    def _records(self) -> Iterator[tuple[int, bytes]]:
        """Each record that is not blank and its offset in the file."""
        offset = self._offset
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
                    self._parse_errors.add(
                        offset, self.count, f"a record longer than {QLOG_MAX_EVENT} bytes"
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

    def _parse(self, offset: int, record: bytes) -> list[Any]:
        """What a record holds: one value; several where a separator was lost; none."""
        try:
            return [_decode_fast(record)]
        except (ValueError, RecursionError):
            pass
        try:
            value = decode(record)
            self._parse_errors.add(offset, self.count, "no strict JSON (text or a number)")
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
        self._parse_errors.add(
            at, self.count, reason + (" (the file ends too early)" if last else "")
        )
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
