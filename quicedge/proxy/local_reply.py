"""Requests that the edge answers itself: TRACE, and OPTIONS with Max-Forwards used up."""

from __future__ import annotations

import re
from enum import Enum, auto

from quicedge.http.message import Request

_MAX_FORWARDS = re.compile(rb"[0-9]+")


class LocalReply(Enum):
    """How the edge answers a request itself."""

    NOT_SERVED = auto()
    """TRACE: it would reflect fields that the edge adds for origins, and credentials that scripts
    must not read (cross-site tracing); honest clients do not send it to a web site."""
    OPTIONS = auto()
    """Max-Forwards is 0: the edge is the final recipient (RFC 9110 section 7.6.2)."""
    MALFORMED = auto()
    """Max-Forwards is not a number."""


MAY_BE_LOCAL = frozenset((b"OPTIONS", b"TRACE"))
"""Methods of requests that the edge may answer itself."""


def local_reply(request: Request) -> LocalReply | None:
    """How the edge answers a request itself; None: forward it."""
    if request.method == b"TRACE":
        return LocalReply.NOT_SERVED
    if request.method != b"OPTIONS":
        # RFC 9110 section 7.6.2: a recipient MAY ignore it with any other method.
        return None
    values = [value for name, value in request.fields if name == b"max-forwards"]
    if not values:
        return None
    if len(values) > 1 or not _MAX_FORWARDS.fullmatch(values[0]):
        return LocalReply.MALFORMED
    return None if values[0].strip(b"0") else LocalReply.OPTIONS
