"""Plain HTTP on a port that speaks TLS: browsers and people type `http://` before port 443."""

from __future__ import annotations

import re

# method SP request-target, as far as the first bytes show them (RFC 9112 section 3).
_REQUEST = re.compile(rb"[A-Z]{3,16} (?:/|\*|https?://)")

_REASON = b"This port speaks HTTPS; use https:// instead of http://.\n"
_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\n"
    b"content-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\n"
    b"connection: close\r\n"
    b"\r\n"
    b"%b" % (len(_REASON), _REASON)
)


def answer_plain_http(data: bytes) -> bytes | None:
    """The answer to a plain HTTP request that begins with `data`; None if it is something else."""
    return _ANSWER if _REQUEST.match(data) else None
