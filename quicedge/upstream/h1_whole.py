"""Reads a small response that has arrived in one piece, without the parser.

Most responses to small requests are one read with a plain head and content of known length. What is
anything else, or in any way doubtful, is left to the parser: this accepts a subset of what that
accepts, and takes it for the same.
"""

from __future__ import annotations

from typing import NamedTuple

from quicedge.config.limits import (
    UPSTREAM_LINES_REMEMBERED,
    UPSTREAM_MAX_FIELDS,
    UPSTREAM_MAX_HEAD,
    UPSTREAM_REMEMBERED_LINE,
)
from quicedge.http.grammar import CONTENT_LENGTH
from quicedge.http.message import Field, Fields
from quicedge.http.remembered import Remembered
from quicedge.http.validation import MessageError, validate_response_fields

_lines = Remembered[Field](UPSTREAM_LINES_REMEMBERED, UPSTREAM_REMEMBERED_LINE)
"""Lines of heads that were read before, and the fields that they are."""

_PARSED = frozenset(
    (b"keep-alive", b"proxy-connection", b"trailer", b"transfer-encoding", b"upgrade")
)
"""Fields that need more than a glance."""


class WholeResponse(NamedTuple):
    """A final response with content of known length, on a connection that stays open."""

    status: int
    fields: Fields
    """Valid, their names in lower case."""
    content: bytes


def read_whole(data: bytes) -> WholeResponse | None:
    """The response that `data` is, to any method but HEAD; None: ask the parser."""
    end = data.find(b"\r\n\r\n")
    if not 12 < end <= UPSTREAM_MAX_HEAD:
        return None
    first, *lines = data[:end].split(b"\r\n")
    code = first[9:12]
    if first[:9] != b"HTTP/1.1 " or first[12:13] != b" " or not code.isdigit():
        return None
    count = len(lines)
    status = int(code)
    if (
        not 200 <= status <= 599
        or status in (204, 304)
        or count > UPSTREAM_MAX_FIELDS
        # Lines that end in anything but CRLF are not for us to judge.
        or data.count(b"\n", 0, end) != count
        or data.count(b"\r", 0, end) != count
        or b"\0" in first
    ):
        return None
    fields: Fields = []
    unknown: dict[bytes, Field] = {}
    length = None
    for line in lines:
        known = _lines.get(line)
        if known is not None:
            fields.append(known)
            continue
        name, colon, value = line.partition(b":")
        if not colon:
            return None
        name, value = name.lower(), value.strip(b" \t")
        if name == b"content-length":
            if length is not None or not CONTENT_LENGTH.fullmatch(value):
                return None
            length = int(value)
            fields.append((name, value))
            continue
        if name in _PARSED or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
        unknown[line] = field = name, value
        fields.append(field)
    content = data[end + 4 :]
    if length != len(content):
        return None
    if unknown:
        try:
            validate_response_fields(tuple(unknown.values()))
        except MessageError:
            return None
        _remember(unknown)
    return WholeResponse(status, fields, content)


def _remember(lines: dict[bytes, Field]) -> None:
    """Origins repeat their lines: these have passed, and mean nothing special."""
    for line, field in lines.items():
        if field[0] != b"set-cookie":
            _lines.remember(line, field)
