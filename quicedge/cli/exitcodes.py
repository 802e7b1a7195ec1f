"""Exit codes of `quicedge get`, compatible with curl."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Meanings as in curl's manual, which documents them as stable; 2 is also used by click."""

    UNSUPPORTED_PROTOCOL = 1
    """A redirect to a URL other than https."""
    URL_MALFORMED = 3
    COULDNT_RESOLVE_HOST = 6
    COULDNT_CONNECT = 7
    PARTIAL_FILE = 18
    """Content is shorter than content-length."""
    HTTP_ERROR = 22
    """--fail and a status of 400 or above."""
    WRITE_ERROR = 23
    READ_ERROR = 26
    TIMEOUT = 28
    TLS_CONNECT_ERROR = 35
    TOO_MANY_REDIRECTS = 47
    RECEIVE_ERROR = 56
    """The connection ended before the response did."""
    CERTIFICATE_NOT_VERIFIED = 60
    CA_FILE_UNUSABLE = 77
    HTTP3_ERROR = 95
    """The server violated HTTP/3 or reset the stream."""
