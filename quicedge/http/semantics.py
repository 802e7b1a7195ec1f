"""How an intermediary transforms messages (RFC 9110 section 7.6, RFC 7239, RFC 7838)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

from quicedge.config.limits import AUTHORITIES_REMEMBERED, MAX_AUTHORITY
from quicedge.http.forwarding import HOP_BY_HOP, Reserved
from quicedge.http.message import Field, Fields, Request, Response

PSEUDONYM = b"quicedge"
"""Our name in Via."""

_MAX_FORWARDS = 255
"""Upper bound of a forwarded Max-Forwards; longer than any chain of intermediaries."""
_MAX_FORWARDS_DIGITS = 18
"""Digits to parse; any number with more exceeds `_MAX_FORWARDS` anyway."""
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


_WITHOUT_CONTENT = frozenset(
    (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"COPY", b"MOVE", b"UNLOCK", b"PURGE")
)


@dataclass(frozen=True, slots=True)
class EdgeContext:
    """What the edge knows about a request beyond the message itself."""

    client_host: str
    """The client's validated IP address."""
    early_data: bool = False
    """The request arrived in 0-RTT data and is forwarded before the handshake is complete."""
    version: bytes = b"3"
    """The HTTP version that the request was received with."""
    reserved: Reserved = field(default_factory=Reserved)
    """Request fields that only the edge may write."""


def is_idempotent(method: bytes) -> bool:
    """Whether requests may be retried automatically (RFC 9110 section 9.2.2)."""
    return method in _IDEMPOTENT


def carries_no_content(method: bytes) -> bool:
    """Whether such requests usually have no content (RFC 9110 section 9.3, RFC 4918)."""
    return method in _WITHOUT_CONTENT


MESSAGE_STREAMS = frozenset(
    (
        b"application/grpc", b"application/json-seq", b"application/jsonl", b"application/ndjson",
        b"application/x-ndjson", b"multipart/x-mixed-replace", b"text/event-stream",
    )
)  # fmt: skip
"""Media types of message streams: content is sent whenever there is a message."""


def media_type(fields: Sequence[Field]) -> bytes:
    """The media type in lower case, without parameters and suffix; empty if there is none."""
    for name, value in fields:
        if name == b"content-type":
            return value.partition(b";")[0].partition(b"+")[0].strip().lower()
    return b""


def response_has_body(method: bytes, status: int) -> bool:
    """Whether a response can have content (RFC 9110 section 6.4.1)."""
    return not (method == b"HEAD" or 100 <= status < 200 or status in (204, 304))


def request_to_origin(request: Request, context: EdgeContext) -> Request:
    """Transform a request for the origin: drop hop-by-hop fields, set forwarding fields."""
    via: list[bytes] = []
    if context.reserved.passed.issuperset(dict(request.fields)):
        fields = request.fields.copy()
    else:
        fields = _forwarded_lines(request, context.reserved, via)
    if context.early_data:
        # RFC 8470 section 5.1: an intermediary that forwards such a request MUST add it.
        fields.append((b"early-data", b"1"))
    fields.append(_via_field(context.version) if not via else (b"via", _via(via, context.version)))
    authority = request.authority
    remembered = len(authority) <= MAX_AUTHORITY
    fields += (_client_fields if remembered else _make_client_fields)(
        context.client_host, authority
    )
    return request.with_fields(fields)


def _forwarded_lines(request: Request, reserved: Reserved, via: list[bytes]) -> Fields:
    """The field lines that are forwarded; those of Via are moved to `via`."""
    fields: Fields = []
    for line in request.fields:
        name, value = line
        if name == b"via":
            via.append(value)
        elif name == b"te":
            # RFC 9110 section 10.1.4: we forward trailers, and gRPC origins require this field.
            fields.append((b"te", b"trailers"))
        elif name == b"max-forwards" and request.method == b"OPTIONS":
            fields.append((name, _one_forward_less(value)))
        elif name not in reserved:
            fields.append(line)
    return fields


def _make_client_fields(client_host: str, authority: bytes) -> tuple[Field, ...]:
    """The fields that describe the client and what it asked for."""
    host = client_host.encode()
    node = b'"[%b]"' % host if b":" in host else host
    return (
        (b"forwarded", b'for=%b;host="%b";proto=https' % (node, authority)),
        (b"x-forwarded-for", host),
        (b"x-forwarded-host", authority),
        (b"x-forwarded-proto", b"https"),
    )


_client_fields = lru_cache(maxsize=AUTHORITIES_REMEMBERED)(_make_client_fields)


def _via(received: Sequence[bytes], version: bytes) -> bytes:
    """Append our entry to the received ones, combined into one list (RFC 9110 section 5.3)."""
    return b", ".join((*(value for value in received if value), version + b" " + PSEUDONYM))


@cache
def _via_field(version: bytes) -> Field:
    """Via with our entry alone; there are few versions of HTTP."""
    return b"via", _via((), version)


def _one_forward_less(value: bytes) -> bytes:
    """Decrement Max-Forwards (RFC 9110 section 7.6.2); `value` must not be zero."""
    digits = value.lstrip(b"0")[:_MAX_FORWARDS_DIGITS]
    return b"%d" % (min(int(digits), _MAX_FORWARDS) - 1)


def response_fields(fields: Sequence[Field]) -> Fields:
    """The fields of an origin's response without hop-by-hop fields.

    RFC 9110 section 7.6.1: an intermediary MUST remove the fields that Connection names.
    """
    if HOP_BY_HOP.isdisjoint(dict(fields)):
        return list(fields)
    kept = [field for field in fields if field[0] not in HOP_BY_HOP]
    named = {
        option.strip().lower()
        for name, value in fields
        if name == b"connection"
        for option in value.split(b",")
    }
    return [field for field in kept if field[0] not in named] if named else kept


def response_to_client(response: Response, date: bytes) -> Response:
    """Transform a response for the client. `date` is the current time as an HTTP date."""
    fields = response_fields(response.fields)
    names = dict(fields)
    if response.status == 204 and b"content-length" in names:
        # RFC 9110 section 8.6: a server MUST NOT send it with 204.
        fields = [field for field in fields if field[0] != b"content-length"]
    if b"date" not in names:
        # RFC 9110 section 6.6.1: a recipient that forwards a response without Date MUST append one.
        fields.append((b"date", date))
    if b"via" in names:
        via = [field for field in fields if field[0] == b"via"]
        fields = [field for field in fields if field[0] != b"via"]
        if response.version is not None:
            # Separate lines: combined, they might exceed the length that can be encoded.
            fields += via
    if response.version is not None:
        fields.append(_via_field(response.version))
    return Response(response.status, fields, response.version)


def interim_to_client(response: Response) -> Response:
    """Transform an interim response for the client; no content-length (RFC 9110 section 8.6)."""
    fields = [item for item in response_fields(response.fields) if item[0] != b"content-length"]
    return Response(response.status, fields, response.version)


def response_trailers(trailers: Sequence[Field]) -> Fields:
    """Transform the trailers of a response for the client."""
    return [field for field in trailers if field[0] not in HOP_BY_HOP]
