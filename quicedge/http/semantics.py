"""What an intermediary does to messages (RFC 9110 section 7.6, RFC 7239, RFC 7838)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from quicedge.http.forwarding import HOP_BY_HOP, ORDINARY, Reserved
from quicedge.http.message import Field, Fields, Request, Response

PSEUDONYM = b"quicedge"
"""Our name in Via."""

_MAX_FORWARDS = 255
"""The highest Max-Forwards sent on: no chain of intermediaries is so long."""
_MAX_FORWARDS_DIGITS = 18
"""Digits that are read; the largest of so many is above the highest anyway."""
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


_WITHOUT_CONTENT = frozenset(
    (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"COPY", b"MOVE", b"UNLOCK", b"PURGE")
)


@dataclass(frozen=True, slots=True)
class EdgeContext:
    """What the edge knows about an exchange beyond its messages."""

    client_host: str
    """The client's validated IP address."""
    early_data: bool = False
    """The request came in 0-RTT data and goes on before the handshake is complete."""
    version: bytes = b"3"
    """The HTTP version that the request came in."""
    reserved: Reserved = field(default_factory=Reserved)
    """Request fields that only the edge may write."""


def is_idempotent(method: bytes) -> bool:
    """Whether a request may be sent again without asking (RFC 9110 section 9.2.2)."""
    return method in _IDEMPOTENT


def carries_no_content(method: bytes) -> bool:
    """Whether requests of a method have no content by habit (RFC 9110 section 9.3, RFC 4918)."""
    return method in _WITHOUT_CONTENT


MESSAGE_STREAMS = frozenset(
    (
        b"application/grpc", b"application/json-seq", b"application/jsonl", b"application/ndjson",
        b"application/x-ndjson", b"multipart/x-mixed-replace", b"text/event-stream",
    )
)  # fmt: skip
"""Media types whose content is sent a message at a time, as messages come up."""


def media_type(fields: Sequence[Field]) -> bytes:
    """The type of a message's content without parameters and suffix, lower case; empty if none."""
    for name, value in fields:
        if name == b"content-type":
            return value.partition(b";")[0].partition(b"+")[0].strip().lower()
    return b""


def response_has_body(method: bytes, status: int) -> bool:
    """Whether a response can have content (RFC 9110 section 6.4.1)."""
    return not (method == b"HEAD" or 100 <= status < 200 or status in (204, 304))


def request_to_origin(request: Request, context: EdgeContext) -> Request:
    """The request as the origin gets it: hop-by-hop fields gone, forwarding fields ours."""
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
            # RFC 9110 section 10.1.4: we forward trailers, and gRPC origins insist on this.
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
    """Ours at the end of those received: several lines are one list (RFC 9110 section 5.3)."""
    return b", ".join((*(value for value in received if value), version + b" " + PSEUDONYM))


def _one_forward_less(value: bytes) -> bytes:
    """The Max-Forwards to send on (RFC 9110 section 7.6.2), of digits that are not all 0."""
    digits = value.lstrip(b"0")[:_MAX_FORWARDS_DIGITS]
    return b"%d" % (min(int(digits), _MAX_FORWARDS) - 1)


def response_fields(fields: Sequence[Field]) -> Fields:
    """Fields of an origin's response that concern the client, hop-by-hop ones dropped.

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
    """The response as the client gets it. `date` is the present time, as an HTTP date."""
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
        # RFC 9110 section 6.6.1: who forwards a response without Date MUST append one.
        kept.append((b"date", date))
    if response.version is not None:
        # Lines of their own: joined, they might be longer than a field can be encoded.
        kept += ((b"via", value) for value in via)
        kept.append((b"via", _via((), response.version)))
    return Response(status, kept, response.version)


def interim_to_client(response: Response) -> Response:
    """An interim response as the client gets it; RFC 9110 section 8.6: no content-length."""
    fields = [item for item in response_fields(response.fields) if item[0] != b"content-length"]
    return Response(response.status, fields, response.version)


def response_trailers(trailers: Sequence[Field]) -> Fields:
    """Trailers as the client gets them."""
    return [field for field in trailers if field[0] not in HOP_BY_HOP]
