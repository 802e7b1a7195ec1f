"""What the edge says when it answers itself: the status and nothing of its inside."""

from __future__ import annotations

from http import HTTPStatus

from quicedge.http.message import Response


def error_response(status: int, method: bytes) -> tuple[Response, bytes]:
    """A response head and its body (empty for HEAD) for an error status."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    body = f"{status} {phrase}\n".encode()
    fields = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    return Response(status, fields), b"" if method == b"HEAD" else body
