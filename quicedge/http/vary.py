"""The Vary field: on which request fields a response depends (RFC 9110 section 12.5.5)."""

from __future__ import annotations

from collections.abc import Sequence

from quicedge.http.message import Field, Fields


def with_vary(fields: Sequence[Field], name: bytes) -> Fields:
    """The fields with `name` (in lower case) in Vary."""
    for key, value in fields:
        if key == b"vary":
            listed = {item.strip().lower() for item in value.split(b",")}
            if name in listed or b"*" in listed:
                return list(fields)
    return [*fields, (b"vary", name)]
