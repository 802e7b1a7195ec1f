"""The Cookie field of requests (RFC 6265 section 5.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quicedge.http.message import Field


def cookies(fields: Sequence[Field]) -> Iterator[Field]:
    """Name and value of each cookie, as sent."""
    for field, line in fields:
        if field == b"cookie":
            for pair in line.split(b";"):
                name, mark, value = pair.strip().partition(b"=")
                if mark:
                    yield name, value


def cookie(fields: Sequence[Field], name: bytes) -> bytes | None:
    """The value of the first cookie of a name, without quotes; None: there is none."""
    return next((value.strip(b'"') for key, value in cookies(fields) if key == name), None)
