"""How an intermediary transforms messages (RFC 9110 section 7.6, RFC 7239, RFC 7838)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from quicedge.http.forwarding import HOP_BY_HOP, ORDINARY, Reserved
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
    fields: Fields = []
    via: list[bytes] = []
    reserved = context.reserved
    for line in request.fields:
        name, value = line
        if name in ORDINARY:
            fields.append(line)
        elif name == b"via":
            via.append(value)
        elif name == b"te":
            # RFC 9110 section 10.1.4: we forward trailers, and gRPC origins require this field.
            fields.append((b"te", b"trailers"))
        elif name == b"max-forwards" and request.method == b"OPTIONS":
            fields.append((name, _one_forward_less(value)))
        elif name not in reserved:
            fields.append(line)
    if context.early_data:
        # RFC 8470 section 5.1: an intermediary that forwards such a request MUST add it.
        fields.append((b"early-data", b"1"))
    host = context.client_host.encode()
    node = b'"[%b]"' % host if b":" in host else host
    fields += (
        (b"via", _via(via, context.version)),
        (b"forwarded", b'for=%b;host="%b";proto=https' % (node, request.authority)),
        (b"x-forwarded-for", host),
        (b"x-forwarded-host", request.authority),
        (b"x-forwarded-proto", b"https"),
    )
    return request.with_fields(fields)


def _via(received: Sequence[bytes], version: bytes) -> bytes:
    """Append our entry to the received ones, combined into one list (RFC 9110 section 5.3)."""
    return b", ".join((*(value for value in received if value), version + b" " + PSEUDONYM))


def _one_forward_less(value: bytes) -> bytes:
    """Decrement Max-Forwards (RFC 9110 section 7.6.2); `value` must not be zero."""
    digits = value.lstrip(b"0")[:_MAX_FORWARDS_DIGITS]
    return b"%d" % (min(int(digits), _MAX_FORWARDS) - 1)


def response_fields(fields: Sequence[Field]) -> Fields:
    """The fields of an origin's response without hop-by-hop fields.

    RFC 9110 section 7.6.1: an intermediary MUST remove the fields that Connection names.
    """
    named = frozenset(
        option.strip().lower()
        for name, value in fields
        if name == b"connection"
        for option in value.split(b",")
    )
    dropped = HOP_BY_HOP | named if named else HOP_BY_HOP
    return [field for field in fields if field[0] not in dropped]


def response_to_client(response: Response, date: bytes) -> Response:
    """Transform a response for the client. `date` is the current time as an HTTP date."""
    status = response.status
    via: list[bytes] = []
    kept: Fields = []
    dated = False
    for name, value in response_fields(response.fields):
        if name == b"via":
            via.append(value)
        elif name == b"content-length" and status == 204:
            # RFC 9110 section 8.6: a server MUST NOT send it with 204.
            continue
        else:
            dated |= name == b"date"
            kept.append((name, value))
    if not dated:
        # RFC 9110 section 6.6.1: a recipient that forwards a response without Date MUST append one.
        kept.append((b"date", date))
    if response.version is not None:
        # Separate lines: combined, they might exceed the length that can be encoded.
        kept += ((b"via", value) for value in via)
        kept.append((b"via", _via((), response.version)))
    return Response(status, kept, response.version)


def interim_to_client(response: Response) -> Response:
    """Transform an interim response for the client; no content-length (RFC 9110 section 8.6)."""
    fields = [item for item in response_fields(response.fields) if item[0] != b"content-length"]
    return Response(response.status, fields, response.version)


def response_trailers(trailers: Sequence[Field]) -> Fields:
    """Transform the trailers of a response for the client."""
    return [field for field in trailers if field[0] not in HOP_BY_HOP]
