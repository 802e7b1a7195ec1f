"""Reads the heads of HTTP/1.1 requests (RFC 9112 sections 2 to 6), strictly.

What servers interpret differently is rejected, not repaired: a head that passes has one reading.
Field sections are validated by `http.validation`, as those of HTTP/2 and HTTP/3 are. Clients repeat
most of their field section from request to request, so validated sections are remembered.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from quicedge.config.limits import (
    H1_REMEMBERED_BLOCK,
    H1_REMEMBERED_BLOCKS,
    H1_REMEMBERED_LINE,
    H1_REMEMBERED_LINES,
)
from quicedge.http.grammar import FIELD_VALUE
from quicedge.http.message import Fields, Request
from quicedge.http.remembered import Remembered
from quicedge.http.validation import (
    CONNECTION_SPECIFIC,
    MessageError,
    MessageLimits,
    validate_request,
)

# request-line = method SP request-target SP HTTP-version            (RFC 9112 section 3)
# HTTP-version = "HTTP" "/" DIGIT "." DIGIT                          (RFC 9112 section 2.3)
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_MINOR = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}

_ONCE = frozenset((b"content-length", b"expect", b"host"))
"""RFC 9112 section 3.2: MUST reject more than one Host. RFC 9110 section 8.6 lets a recipient
reject a repeated Content-Length, even one of equal values."""

_ORDINARY_OPTIONS = frozenset((b"", b"close", b"keep-alive", b"te", b"upgrade"))
"""Connection options that name no field to remove."""
_KEPT = frozenset((b"expect", b"te"))
"""Fields that are not removed although Connection names them: Expect says whether content waits,
and TE is rewritten."""

_PLACEHOLDER = b"x"
"""An authority that stands in for one that another part of the head has."""
_REST_OF_LINE: Fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/")]
"""A request line for validating a field section on its own."""


class _Line(NamedTuple):
    """A request line."""

    method: bytes
    path: bytes
    authority: bytes | None
    """Of a target in absolute form."""
    minor: int
    """The HTTP version is 1.`minor`."""


class _Block(NamedTuple):
    """The field lines of a head."""

    fields: Fields
    host: bytes | None
    content_length: int | None
    chunked: bool
    close: bool
    keep_alive: bool
    takes_trailers: bool
    upgrade: bytes


@dataclass(slots=True)
class RequestHead:
    """A request head, and what it says about its connection."""

    request: Request
    minor: int
    """The HTTP version is 1.`minor`."""
    persistent: bool
    """The client wants to send further requests on this connection."""
    chunked: bool
    takes_trailers: bool
    """The client accepts trailers (TE, RFC 9110 section 10.1.4)."""
    upgrade: bytes
    """The protocols that the client offers to switch to, as in Upgrade; empty if there are none."""


class HeadReader:
    """Reads request heads, for all connections of a worker.

    `scheme`: of the URIs that the connections may carry requests for.
    """

    __slots__ = ("_blocks", "_lines", "limits", "scheme")

    def __init__(self, limits: MessageLimits, scheme: bytes = b"https") -> None:
        self.limits = limits
        self.scheme = scheme
        self._lines = Remembered[_Line](H1_REMEMBERED_LINES, H1_REMEMBERED_LINE)
        self._blocks = Remembered[_Block](H1_REMEMBERED_BLOCKS, H1_REMEMBERED_BLOCK)

    @property
    def remembered(self) -> tuple[int, int]:
        """The number of request lines and field sections that are remembered."""
        return len(self._lines), len(self._blocks)

    def read(self, head: bytes, default_authority: bytes) -> RequestHead:
        """Read a head without the empty line at its end; raises MessageError.

        `default_authority`: of HTTP/1.0 requests without Host (RFC 9112 section 3.3).
        """
        line_bytes, _, block_bytes = head.partition(b"\r\n")
        line = self._lines.get(line_bytes) or self._read_line(line_bytes)
        block = self._blocks.get(block_bytes) or self._read_block(block_bytes)
        fields, host, length, chunked, close, keep_alive, takes_trailers, upgrade = block
        method, path, authority, minor = line
        if minor:
            if host is None:
                raise MessageError("host is missing")
            persistent = not close
        else:
            if chunked:
                # RFC 9112 section 6.1: the framing of such a message is faulty.
                raise MessageError("transfer-encoding in HTTP/1.0")
            if host is None:
                host = default_authority
            # RFC 9110 section 10.1.1: MUST ignore the expectation in HTTP/1.0.
            fields = [field for field in fields if field[0] != b"expect"]
            persistent = keep_alive and not close
            upgrade = b""
        return RequestHead(
            # RFC 9112 section 3.2.2: the target's authority, not Host, if it has one.
            Request(
                method,
                self.scheme,
                host if authority is None else authority,
                path,
                fields,
                length,
                not chunked and not length,
            ),
            minor,
            persistent,
            chunked,
            takes_trailers,
            upgrade,
        )

    def check_line(self, line: bytes) -> None:
        """Raise MessageError if a request line is malformed, before its fields have arrived."""
        if line not in self._lines:
            self._read_line(line)

    def _read_line(self, text: bytes) -> _Line:
        parts = text.split(b" ")
        if len(parts) != 3:
            raise MessageError("the request line does not have three parts")
        method, target, version = parts
        minor = _MINOR.get(version)
        if minor is None:
            if _VERSION.fullmatch(version):
                raise MessageError("the HTTP version is not supported", status_hint=505)
            raise MessageError("the HTTP version is malformed")
        if method == b"CONNECT":
            validate_request([(b":method", method), (b":authority", target)], self.limits)
        authority, path = self._split_target(method, target)
        request = validate_request(
            [
                (b":method", method),
                (b":scheme", self.scheme),
                (b":authority", _PLACEHOLDER if authority is None else authority),
                (b":path", path),
            ],
            self.limits,
        )
        line = _Line(request.method, request.path, authority, minor)
        self._lines.remember(text, line)
        return line

    def _split_target(self, method: bytes, target: bytes) -> tuple[bytes | None, bytes]:
        """The authority, None unless in absolute form, and the path of a request target."""
        if target[:1] == b"/" or target == b"*":
            return None, target
        scheme, separator, rest = target.partition(b"://")
        if not separator:
            raise MessageError("the request target is malformed")
        if scheme.lower() != self.scheme:
            # RFC 9110 section 7.4: not a URI that this connection may carry requests for.
            raise MessageError("the scheme of the request target is not served here", 421)
        end = next((at for at, octet in enumerate(rest) if octet in b"/?#"), len(rest))
        authority, path = rest[:end], rest[end:]
        if not path and method == b"OPTIONS":
            return authority, b"*"  # RFC 9112 section 3.2.4
        return authority, path if path[:1] == b"/" else b"/" + path

    def _read_block(self, text: bytes) -> _Block:
        section = list(_REST_OF_LINE)
        specific: dict[bytes, bytes] = {}
        seen: set[bytes] = set()
        takes_trailers = False
        for line in text.split(b"\r\n") if text else ():
            # A folded line, or one with whitespace before its colon, has no valid name.
            name, colon, value = line.partition(b":")
            if not colon:
                raise MessageError("a field line has no colon")
            name, value = name.lower(), value.strip(b" \t")
            if name in CONNECTION_SPECIFIC or name == b"te":
                if not FIELD_VALUE.fullmatch(value):
                    raise MessageError(f"the value of {name.decode()} is malformed")
                if name == b"te":
                    takes_trailers |= _takes_trailers(value)
                elif name not in specific:
                    specific[name] = value
                elif name == b"transfer-encoding":
                    raise MessageError("transfer-encoding appears twice")
                else:
                    specific[name] += b", " + value
            else:
                if name in _ONCE:
                    if name in seen:
                        raise MessageError(f"{name.decode()} appears twice")
                    seen.add(name)
                section.append((name, value))
        if b"host" not in seen:
            section.insert(0, (b":authority", _PLACEHOLDER))
        if takes_trailers:
            section.append((b"te", b"trailers"))
        request = validate_request(section, self.limits)
        chunked = _is_chunked(specific.get(b"transfer-encoding"))
        if chunked and request.content_length is not None:
            # RFC 9112 section 6.1: an attempt to smuggle a request, or an error.
            raise MessageError("both transfer-encoding and content-length")
        options = _options(specific.get(b"connection", b""))
        fields = request.fields
        if options - _ORDINARY_OPTIONS:
            # RFC 9110 section 7.6.1: MUST remove the fields that Connection names.
            fields = [field for field in fields if field[0] not in options or field[0] in _KEPT]
        block = _Block(
            fields,
            request.authority if b"host" in seen else None,
            request.content_length,
            chunked,
            b"close" in options,
            b"keep-alive" in options,
            takes_trailers,
            specific.get(b"upgrade", b"") if b"upgrade" in options else b"",
        )
        self._blocks.remember(text, block)
        return block


def _is_chunked(coding: bytes | None) -> bool:
    if coding is None:
        return False
    if coding.lower() != b"chunked":
        # RFC 9112 section 6.1: SHOULD respond with 501 to a coding that it does not understand.
        raise MessageError("a transfer coding other than chunked", status_hint=501)
    return True


def _takes_trailers(te: bytes) -> bool:
    codings = te.lower().split(b",")
    return any(coding.partition(b";")[0].strip() == b"trailers" for coding in codings)


def _options(connection: bytes) -> frozenset[bytes]:
    """The options of a Connection field, in lower case."""
    return frozenset(option.strip().lower() for option in connection.split(b","))


def describe_head(head: bytes) -> Fields:
    """A malformed head as a field section, as far as it can be read: for logs."""
    line, _, block = head.partition(b"\r\n")
    parts = line.split(b" ")
    known: Fields = [(b":method", parts[0])]
    if len(parts) > 1:
        known.append((b":path", parts[1]))
    for text in block.split(b"\r\n"):
        name, colon, value = text.partition(b":")
        if colon:
            name = name.strip().lower()
            known.append((b":authority" if name == b"host" else name, value.strip()))
    return known
