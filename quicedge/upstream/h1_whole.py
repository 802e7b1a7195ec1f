"""Reads a small response that has arrived in one piece, without the parser.

Most responses to small requests are one read with a plain head and content of known length. What is
anything else, or in any way doubtful, is left to the parser: this accepts a subset of what that
accepts, and takes it for the same.
"""

from __future__ import annotations

from typing import NamedTuple

from quicedge.config.limits import (
    UPSTREAM_HEADS_REMEMBERED,
    UPSTREAM_LINES_REMEMBERED,
    UPSTREAM_MAX_FIELDS,
    UPSTREAM_MAX_HEAD,
    UPSTREAM_REMEMBERED_HEAD,
    UPSTREAM_REMEMBERED_LINE,
)
from quicedge.http.grammar import CONTENT_LENGTH
from quicedge.http.message import Field, Fields, Response
from quicedge.http.remembered import Remembered
from quicedge.http.validation import MessageError, validate_response_fields

_lines = Remembered[Field](UPSTREAM_LINES_REMEMBERED, UPSTREAM_REMEMBERED_LINE)
"""Lines of heads that were read before, and the fields that they are."""

_PARSED = frozenset(
    (b"keep-alive", b"proxy-connection", b"trailer", b"transfer-encoding", b"upgrade")
)
"""Fields that need more than a glance."""


class _Head(NamedTuple):
    status: int
    fields: Fields
    length: int | None
    """Bytes of content."""


_heads = Remembered[_Head](UPSTREAM_HEADS_REMEMBERED, UPSTREAM_REMEMBERED_HEAD)
"""Heads that were read before: origins repeat them too, at least until their clock ticks."""


def read_whole(data: bytes) -> tuple[Response, bytes] | None:
    """The final response that `data` is, to any method but HEAD, and its content, if the connection
    stays open; None: ask the parser. Its fields are valid, their names in lower case."""
    end = data.find(b"\r\n\r\n")
    if not 12 < end <= UPSTREAM_MAX_HEAD:
        return None
    text = data[:end]
    head = _heads.get(text) or _read_head(text)
    content = data[end + 4 :]
    if head is None or head.length != len(content):
        return None
    return Response(head.status, head.fields.copy(), b"1.1"), content


def _read_head(text: bytes) -> _Head | None:
    """Read a head without the empty line at its end; None: ask the parser."""
    first, *lines = text.split(b"\r\n")
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
        or text.count(b"\n") != count
        or text.count(b"\r") != count
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
    if unknown:
        try:
            validate_response_fields(tuple(unknown.values()))
        except MessageError:
            return None
    head = _Head(status, fields, length)
    _remember(text, head, unknown)
    return head


def _remember(text: bytes, head: _Head, lines: dict[bytes, Field]) -> None:
    """These have passed, and mean nothing special; cookies are nobody else's business."""
    has_cookie = False
    for line, field in lines.items():
        if field[0] == b"set-cookie":
            has_cookie = True
        else:
            _lines.remember(line, field)
    if not has_cookie:
        _heads.remember(text, head)
