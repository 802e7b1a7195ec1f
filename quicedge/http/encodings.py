"""Negotiation of content codings (RFC 9110 section 12.5.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from quicedge.http.message import Field

_ITEM = re.compile(rb"([^\s;,]+)\s*(?:;\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*)?", re.I)
_MAX_LENGTH = 256
"""Bytes of the field that are looked at: browsers send about 25."""


def accepted(value: bytes) -> dict[bytes, float]:
    """The codings of an Accept-Encoding value with their weights; `*` stands for all others."""
    found: dict[bytes, float] = {}
    for item in value.split(b","):
        match = _ITEM.fullmatch(item.strip())
        if match is not None:
            found[match[1].lower()] = 1.0 if match[2] is None else float(match[2])
    return found


def accept_encoding(fields: Sequence[Field]) -> bytes:
    """The value of Accept-Encoding, empty if there is none; what is far too long is cut off."""
    values = [value for name, value in fields if name == b"accept-encoding"]
    return b",".join(values)[:_MAX_LENGTH]


def choose(value: bytes, offered: Sequence[bytes]) -> bytes | None:
    """The offered coding that an Accept-Encoding value prefers; None: none is acceptable.

    Of equal weights the one that is offered first.
    """
    weights = accepted(value)
    best, chosen = 0.0, None
    for coding in offered:
        weight = weights.get(coding)
        if weight is None and coding == b"gzip":
            weight = weights.get(b"x-gzip")
        if weight is None:
            weight = weights.get(b"*", 0.0)
        if weight > best:
            best, chosen = weight, coding
    return chosen
