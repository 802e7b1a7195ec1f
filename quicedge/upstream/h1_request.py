"""Serialization of requests to HTTP/1.1 (RFC 9112 sections 3, 5 and 7)."""

from __future__ import annotations

from collections.abc import Sequence

from quicedge.http.message import Field, Fields, Request

_METHODS_WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))

_FRAMING = frozenset(
    (b"connection", b"content-length", b"host", b"keep-alive", b"transfer-encoding", b"upgrade")
)
"""Written only by the edge; a copy from the client could contradict the framing."""

_SPECIAL = _FRAMING | {b"expect", b"te"}

_NOT_FOR_UPGRADE = frozenset((b"expect", b"te"))
"""A request for a tunnel has no content, and no trailers come back."""


def encode_head(request: Request) -> bytes:
    """Request line and field section; raises ValueError for what HTTP/1.1 cannot represent.

    The request has passed `http.validation`; this is a second line of defence, because line breaks
    are harmless in HTTP/3 but not here.
    """
    lines = [
        b"%b %b HTTP/1.1" % (request.method, request.path),
        b"host: " + request.authority,
    ]
    if lines[0].count(b" ") != 2:
        raise ValueError("the request line has an extra space")
    fields: Sequence[Field] = request.fields
    if not _SPECIAL.isdisjoint(dict(fields)):
        fields = _own_lines(fields, ended=request.ended)
    lines += map(b": ".join, fields)
    if request.ended:
        if request.content_length:
            raise ValueError("content-length declares a body that is not sent")
        if request.content_length is not None or request.method in _METHODS_WITH_BODY:
            lines.append(b"content-length: 0")
    elif request.content_length is not None:
        lines.append(b"content-length: %d" % request.content_length)
    else:
        lines.append(b"transfer-encoding: chunked")
    return _join(lines)


def _own_lines(fields: Sequence[Field], *, ended: bool) -> Fields:
    """The fields without those that only the edge writes; `ended`: the request has no content."""
    kept: Fields = []
    for line in fields:
        name = line[0]
        if name in _FRAMING or (name == b"expect" and ended):
            continue
        kept.append(line)
        if name == b"te":
            # RFC 9110 section 10.1.4: a sender of TE MUST also send "TE" in Connection.
            kept.append((b"connection", b"te"))
    return kept


def encode_upgrade(request: Request, key: bytes | None) -> bytes:
    """The head of a request to switch protocols (RFC 9110 section 7.8); raises ValueError.

    `key`: a `sec-websocket-key` to add.
    """
    if request.protocol is None:
        raise ValueError("no protocol to switch to")
    lines = [
        b"GET %b HTTP/1.1" % request.path,
        b"host: " + request.authority,
        b"connection: upgrade",
        b"upgrade: " + request.protocol,
    ]
    if lines[0].count(b" ") != 2:
        raise ValueError("the request line has an extra space")
    lines += (
        name + b": " + value
        for name, value in request.fields
        if name not in _FRAMING and name not in _NOT_FOR_UPGRADE
    )
    if key is not None:
        lines.append(b"sec-websocket-key: " + key)
    return _join(lines)


def encode_trailers(trailers: Sequence[Field]) -> bytes:
    """The last chunk and the trailer section; raises ValueError as `encode_head`."""
    if not trailers:
        return b"0\r\n\r\n"
    lines = [b"0", *(name + b": " + value for name, value in trailers if name not in _FRAMING)]
    return _join(lines)


def _join(lines: list[bytes]) -> bytes:
    lines += (b"", b"")
    text = b"\r\n".join(lines)
    breaks = len(lines) - 1
    if text.count(b"\n") != breaks or text.count(b"\r") != breaks or b"\0" in text:
        raise ValueError("a field contains a line break or NUL")
    return text
