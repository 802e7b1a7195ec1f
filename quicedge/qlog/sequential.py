"""Record-by-record traces: JSON text sequences (RFC 7464), newline-delimited JSON, and JSON texts
concatenated without separators.

The first record is the header of the file, the others are events. A record that is not valid JSON
is reported and skipped; reading resumes at the next separator (RFC 7464 section 2.3).
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
"""Where reading resumes after an invalid record: at a brace at the start of a line."""
_decode_fast = msgspec.json.Decoder().decode


class Values(Protocol):
    """The JSON values of a file, each with its offset; iterate once."""

    count: int
    """Values read so far."""

    def __iter__(self) -> Iterator[tuple[int, Any]]: ...


class SequentialReader:
    """Yields the raw events of a file, each with the header of its trace. Iterate once."""

    def __init__(
        self, values: Values, parse_errors: ParseErrors, headers: list[TraceHeader]
    ) -> None:
        self._values = values
        self._parse_errors = parse_errors
        self._headers = headers

    @property
    def records(self) -> int:
        """Values read so far, including headers."""
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
    """Concatenated JSON texts with only white space between them."""

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
            except NotJson as error:
                self._parse_errors.add(error.offset, self.count, error.reason)
                if not stream.find(_NEXT_VALUE):
                    return
                continue
            if stream.repaired is not None:
                self._parse_errors.add(stream.repaired, self.count, "invalid UTF-8")
                stream.repaired = None
            self.count += 1
            yield offset, value


class SeparatedValues:
    """Records with a separator before (RFC 7464) or after (newline-delimited JSON) each."""

    def __init__(
        self, source: Source, head: bytes, offset: int, separator: bytes, parse_errors: ParseErrors
    ) -> None:
        """`head`: the data that was already read from the source, starting at `offset`."""
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
        """Yields non-blank records and their offsets in the file."""
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
        """The values of a record: one, several if a separator was lost, or none."""
        try:
            return [_decode_fast(record)]
        except (ValueError, RecursionError):
            pass
        try:
            value = decode(record)
            self._parse_errors.add(offset, self.count, "not strict JSON (text or a number)")
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
    """Decode a JSON value leniently; raises ValueError.

    Accepts lone surrogates, NaN and invalid UTF-8.
    """
    try:
        return json.loads(record.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_header(item: Any) -> bool:
    """Whether a record is a header rather than an event."""
    if not isinstance(item, dict) or "data" in item:
        return False
    return bool({"trace", "qlog_version", "qlog_format", "file_schema"} & item.keys())
