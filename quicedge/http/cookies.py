"""The Cookie field of requests (RFC 6265 section 5.4)."""

from __future__ import annotations

from collections.abc import Sequence

from quicedge.http.message import Field


def cookie(fields: Sequence[Field], name: bytes) -> bytes | None:
    """The value of the first cookie of a name; None: there is none."""
    for field, value in fields:
        if field == b"cookie":
            for pair in value.split(b";"):
                key, mark, held = pair.strip().partition(b"=")
                if mark and key == name:
                    return held.strip(b'"')
    return None
