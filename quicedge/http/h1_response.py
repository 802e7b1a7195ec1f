"""Serialization of responses to HTTP/1.1 clients (RFC 9112 sections 4 and 7)."""

from __future__ import annotations

from collections.abc import Sequence

from quicedge.http.message import Field
from quicedge.http.phrases import reason_phrase

_STATUS_LINES: dict[int, bytes] = {}


def encode_response(status: int, fields: Sequence[Field], framing: bytes = b"") -> bytes:
    """A status line and a field section; raises ValueError for what HTTP/1.1 cannot represent.

    `framing`: further field lines, each with its line break. The fields have passed
    `http.validation`; this is a second line of defence, because line breaks are harmless in HTTP/2
    but not here.
    """
    line = _STATUS_LINES.get(status)
    if line is None:
        line = b"HTTP/1.1 %d %b\r\n" % (status, reason_phrase(status).encode())
        _STATUS_LINES[status] = line
    parts = [line]
    for name, value in fields:
        parts += (name, b": ", value, b"\r\n")
    parts += (framing, b"\r\n")
    text = b"".join(parts)
    breaks = len(fields) + 2 + framing.count(b"\n")
    if text.count(b"\n") != breaks or text.count(b"\r") != breaks:
        raise ValueError("a field contains a line break")
    return text


def encode_trailers(trailers: Sequence[Field]) -> bytes:
    """The last chunk and the trailer section; raises ValueError as `encode_response`."""
    if not trailers:
        return b"0\r\n\r\n"
    parts = [b"0\r\n"]
    for name, value in trailers:
        parts += (name, b": ", value, b"\r\n")
    parts.append(b"\r\n")
    text = b"".join(parts)
    breaks = len(trailers) + 2
    if text.count(b"\n") != breaks or text.count(b"\r") != breaks:
        raise ValueError("a trailer contains a line break")
    return text
