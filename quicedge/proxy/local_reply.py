"""Requests that end at the edge whatever their route: TRACE, and OPTIONS that may go no further."""

from __future__ import annotations

import re
from enum import Enum, auto

from quicedge.http.message import Request

_MAX_FORWARDS = re.compile(rb"[0-9]+")


class LocalReply(Enum):
    """What a request gets from the edge itself."""

    NOT_SERVED = auto()
    """TRACE: it would reflect what the edge adds for origins alone, and credentials that scripts
    must not read (the cross-site tracing attack); no honest client sends it to a web site."""
    OPTIONS = auto()
    """Max-Forwards is used up: RFC 9110 section 7.6.2 makes the edge the final recipient."""
    MALFORMED = auto()
    """Max-Forwards is no number."""


def local_reply(request: Request) -> LocalReply | None:
    """What a request gets from the edge itself; None: it is forwarded."""
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
