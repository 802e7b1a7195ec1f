"""HTTP messages as the edge handles them, independent of the version on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

Field = tuple[bytes, bytes]
"""One field line: lower-case name, value without surrounding whitespace."""

Fields = list[Field]

FIELD_OVERHEAD = 32
"""Bytes a field line counts beyond its name and value (RFC 9114 section 4.2.2)."""


def section_size(fields: Sequence[Field]) -> int:
    """The size of a field section as limits count it (RFC 9114 section 4.2.2)."""
    return sum(len(name) + len(value) + FIELD_OVERHEAD for name, value in fields)


def count_lines(fields: Sequence[Field]) -> int:
    """Field lines, Cookie being one however it was split (RFC 9114 section 4.2.1)."""
    crumbs = sum(name == b"cookie" for name, _ in fields)
    return len(fields) - max(crumbs - 1, 0)


class HttpVersion(StrEnum):
    """A version as Via and `network.protocol.version` name it."""

    HTTP_1_1 = "1.1"
    HTTP_2 = "2"


@dataclass(slots=True)
class Request:
    """A request head that passed `http.validation` (RFC 9114 section 4.3.1)."""

    method: bytes
    scheme: bytes
    authority: bytes
    path: bytes
    fields: Fields = field(default_factory=list)
    """Field lines without pseudo-header fields and without Host."""
    content_length: int | None = None
    """Declared body size in bytes; None when not declared."""
    ended: bool = False
    """True when no body (and no trailers) follow the head."""
    protocol: bytes | None = None
    """The `:protocol` of an extended CONNECT (RFC 9220)."""

    def with_fields(self, fields: Fields) -> Request:
        """The same request with other field lines."""
        # Not `dataclasses.replace`, which takes five times as long.
        return Request(
            self.method,
            self.scheme,
            self.authority,
            self.path,
            fields,
            self.content_length,
            self.ended,
            self.protocol,
        )


@dataclass(slots=True)
class Response:
    """A response head, final or interim (1xx)."""

    status: int
    fields: Fields = field(default_factory=list)
    version: bytes | None = None
    """The HTTP version it was received in (`1.1`, `2`); None: it was made by the edge."""
