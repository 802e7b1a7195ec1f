"""Exit codes of `quicedge get`: those of curl, for scripts that know them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Meanings as in curl's manual, which documents the numbers as stable; 2 is click's, too."""

    UNSUPPORTED_PROTOCOL = 1
    """A redirect leads to something else than https."""
    URL_MALFORMED = 3
    COULDNT_RESOLVE_HOST = 6
    COULDNT_CONNECT = 7
    PARTIAL_FILE = 18
    """Content is shorter than content-length."""
    HTTP_ERROR = 22
    """--fail, and the status is 400 or more."""
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
    """The server broke HTTP/3, or reset the stream."""
