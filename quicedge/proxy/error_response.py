"""What the edge says when it answers itself: the status and nothing of its inside."""

from __future__ import annotations

from quicedge.http.message import Response
from quicedge.http.phrases import reason_phrase
from quicedge.http.semantics import response_has_body


def error_response(status: int, method: bytes | None) -> tuple[Response, bytes]:
    """A response head and its body for an error status.

    The body is empty for HEAD, and for a request whose method is unknown (None): it may be HEAD,
    which has no content whoever answers it (RFC 9110 section 9.3.2).
    """
    body = f"{status} {reason_phrase(status)}\n".encode()
    fields = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"0" if method is None else b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    has_body = method is not None and response_has_body(method, status)
    return Response(status, fields), body if has_body else b""
