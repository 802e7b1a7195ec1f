"""A glance at a ClientHello (RFC 8446 section 4.1.2), before the TLS stack reads it in full."""

from __future__ import annotations

from typing import NamedTuple

_HEAD = 4 + 2 + 32
"""Bytes before the session ID: message type and length, version, random."""
_SERVER_NAME = 0
_PRE_SHARED_KEY = 41


class Glance(NamedTuple):
    """What is wanted early. None where the hello does not say, or says it badly."""

    server_name: str | None
    obfuscated_age: int | None
    """Of the first ticket, milliseconds modulo 2^32 with `ticket_age_add` added."""


def glance(message: bytes) -> Glance:
    """Find two extensions of a ClientHello message; never raises.

    Whether the hello is well formed is not judged here: whoever reads it in full does that.
    """
    name: str | None = None
    age: int | None = None
    try:
        at = _HEAD
        at += 1 + message[at]  # session ID
        at += 2 + _uint16(message, at)  # cipher suites
        at += 1 + message[at]  # compression methods
        end = at + 2 + _uint16(message, at)
        at += 2
        while at < end:
            kind, length = _uint16(message, at), _uint16(message, at + 2)
            at += 4
            if kind == _SERVER_NAME and message[at + 2] == 0:
                name_length = _uint16(message, at + 3)
                name = message[at + 5 : at + 5 + name_length].decode("ascii")
            elif kind == _PRE_SHARED_KEY:
                age_at = at + 4 + _uint16(message, at + 2)
                age = int.from_bytes(message[age_at : age_at + 4], "big")
            at += length
    except (IndexError, UnicodeDecodeError):
        pass
    return Glance(name, age)


def _uint16(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]
