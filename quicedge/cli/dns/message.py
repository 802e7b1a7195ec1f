"""DNS messages: a query for HTTPS records, and what its response says (RFC 1035, RFC 9460)."""

from __future__ import annotations

import struct
from typing import NamedTuple

HTTPS = 65
IN = 1
OPT = 41

_PAYLOAD = 1232
"""Bytes of a response that we ask for: one packet on any path (DNS Flag Day 2020)."""
_MAX_NAME = 255
"""Bytes of a name with its lengths (RFC 1035 section 2.3.4)."""
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_OPT_SIZE = 1 + _RECORD.size
_RESPONSE, _TRUNCATED, _RECURSION_DESIRED, _RCODE = 0x8000, 0x0200, 0x0100, 0x000F
_NO_ERROR, _NO_SUCH_NAME = 0, 3
_RCODES = {1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED"}
_ALPN, _PORT = 1, 3
"""SvcParamKeys (RFC 9460 section 14.3.2)."""


class DnsError(Exception):
    """A message that says nothing about the records asked for, and why."""


class HttpsRecord(NamedTuple):
    """One HTTPS record, as far as HTTP/3 is concerned."""

    priority: int
    """0: an alias."""
    target: str
    """A name without its last dot; empty: the record's own."""
    alpn: tuple[str, ...] = ()
    port: int | None = None
    """None: that of the URL."""


def encode_query(number: int, name: str) -> bytes:
    """A query for the HTTPS records of a name; raises DnsError if there can be no such name."""
    header = _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 1)
    opt = b"\0" + _RECORD.pack(OPT, _PAYLOAD, 0, 0)
    return header + _encode_name(name) + struct.pack("!HH", HTTPS, IN) + opt


def _encode_name(name: str) -> bytes:
    labels = name.removesuffix(".").encode().split(b".")
    if not all(0 < len(label) < 64 for label in labels):
        raise DnsError(f"{name} is not a name of DNS")
    encoded = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(encoded) > _MAX_NAME:
        raise DnsError(f"{name} is not a name of DNS")
    return encoded


def answers(data: bytes, query: bytes) -> bool:
    """Whether a datagram is the response to a query."""
    question = query[_HEADER.size : -_OPT_SIZE]
    return (
        len(data) >= _HEADER.size
        and data[:2] == query[:2]
        and data[4:6] == b"\0\1"
        and data[_HEADER.size :][: len(question)].lower() == question.lower()
    )


def parse_response(data: bytes) -> list[HttpsRecord]:
    """The HTTPS records of a response, of the name or of what it is an alias of (CNAME)."""
    try:
        return _parse_response(data)
    except (struct.error, IndexError) as error:
        raise DnsError("a malformed response") from error


def _parse_response(data: bytes) -> list[HttpsRecord]:
    _, flags, questions, count, _, _ = _HEADER.unpack_from(data)
    rcode = flags & _RCODE
    if not flags & _RESPONSE:
        raise DnsError("not a response")
    if rcode not in (_NO_ERROR, _NO_SUCH_NAME):
        raise DnsError(f"the resolver says {_RCODES.get(rcode, f'RCODE {rcode}')}")
    at = _HEADER.size
    for _ in range(questions):
        at = _name(data, at)[1] + 4
    found = []
    for _ in range(count):
        at = _name(data, at)[1]
        kind, _, _, size = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if at + size > len(data):
            raise DnsError("a malformed response")
        if kind == HTTPS:
            found.append(_record(data[at : at + size]))
        at += size
    if flags & _TRUNCATED and not found:
        raise DnsError("the response is too large for a datagram")
    return found


def _name(data: bytes, at: int) -> tuple[str, int]:
    """A name, possibly compressed, and where it ends; pointers lead backwards only."""
    labels: list[str] = []
    end: int | None = None
    length, start = 0, at
    while size := data[at]:
        if size < 64:
            label = data[at + 1 : at + 1 + size]
            length += size + 1
            if len(label) < size or length >= _MAX_NAME:
                raise DnsError("a malformed name")
            labels.append(label.decode("ascii", "backslashreplace"))
            at += 1 + size
        elif size >= 0xC0:
            end = at + 2 if end is None else end
            at = (size & 0x3F) << 8 | data[at + 1]
            if at >= start:
                raise DnsError("a malformed name")
            start = at
        else:
            raise DnsError("a malformed name")
    return ".".join(labels), at + 1 if end is None else end


def _record(data: bytes) -> HttpsRecord:
    """RFC 9460 section 2.2; the target is not compressed."""
    (priority,) = struct.unpack_from("!H", data)
    target, at = _name(data, 2)
    alpn: tuple[str, ...] = ()
    port = None
    while at < len(data):
        key, size = struct.unpack_from("!HH", data, at)
        value = data[at + 4 : at + 4 + size]
        at += 4 + size
        if len(value) < size:
            raise DnsError("a malformed HTTPS record")
        if key == _ALPN:
            alpn = tuple(_alpn(value))
        elif key == _PORT:
            (port,) = struct.unpack("!H", value)
    return HttpsRecord(priority, target, alpn, port)


def _alpn(value: bytes) -> list[str]:
    found, at = [], 0
    while at < len(value):
        name = value[at + 1 : at + 1 + value[at]]
        if not name or len(name) < value[at]:
            raise DnsError("a malformed HTTPS record")
        found.append(name.decode("ascii", "backslashreplace"))
        at += 1 + len(name)
    return found
