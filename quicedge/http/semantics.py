"""What an intermediary does to messages (RFC 9110 section 7.6, RFC 7239, RFC 7838)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from quicedge.http.message import Field, Fields, Request, Response

PSEUDONYM = b"quicedge"
"""Our name in Via."""

HOP_BY_HOP = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip
"""RFC 9110 section 7.6.1: these concern one connection and are not forwarded."""

SET_BY_EDGE = frozenset(
    (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"early-data")
)
"""Fields the origin believes because only the edge writes them; a client's are dropped."""

_REQUEST_DROPPED = HOP_BY_HOP | SET_BY_EDGE | {b"via", b"host"}
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


@dataclass(frozen=True, slots=True)
class EdgeContext:
    """What the edge knows about an exchange beyond its messages."""

    client_host: str
    """The client's validated IP address."""
    alt_svc: bytes | None = None
    method: bytes = b"GET"
    early_data: bool = False
    """The request came in 0-RTT data and goes on before the handshake is complete."""
    dropped: frozenset[bytes] = frozenset()
    """Further request fields that only the edge may write."""
    added: Sequence[Field] = ()
    """Fields that the origin is told besides."""


def is_idempotent(method: bytes) -> bool:
    """Whether a request may be sent again without asking (RFC 9110 section 9.2.2)."""
    return method in _IDEMPOTENT


def response_has_body(method: bytes, status: int) -> bool:
    """Whether a response can have content (RFC 9110 section 6.4.1)."""
    return not (method == b"HEAD" or 100 <= status < 200 or status in (204, 304))


def request_to_origin(request: Request, context: EdgeContext) -> Request:
    """The request as the origin gets it: hop-by-hop fields gone, forwarding fields ours."""
    fields: Fields = []
    via = b"3 " + PSEUDONYM
    for name, value in request.fields:
        if name in context.dropped:
            continue
        if name not in _REQUEST_DROPPED:
            fields.append((name, value))
        elif name == b"te":
            # RFC 9110 section 10.1.4: we forward trailers, and gRPC origins insist on this.
            fields.append((b"te", b"trailers"))
        elif name == b"via":
            via = value + b", " + via
    if context.early_data:
        # RFC 8470 section 5.1: an intermediary that forwards such a request MUST add it.
        fields = [item for item in fields if item[0] != b"early-data"]
        fields.append((b"early-data", b"1"))
    host = context.client_host.encode()
    node = b'"[%b]"' % host if b":" in host else host
    fields += (
        (b"via", via),
        (b"forwarded", b'for=%b;host="%b";proto=https' % (node, request.authority)),
        (b"x-forwarded-for", host),
        (b"x-forwarded-host", request.authority),
        (b"x-forwarded-proto", b"https"),
        *context.added,
    )
    return replace(request, fields=fields)


def request_trailers(trailers: Sequence[Field]) -> Fields:
    return [field for field in trailers if field[0] not in HOP_BY_HOP]


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


def response_to_client(response: Response, context: EdgeContext) -> Response:
    """The response as the client gets it: Via and Alt-Svc added."""
    fields = response_fields(response.fields)
    via = PSEUDONYM
    kept = []
    for name, value in fields:
        if name == b"via":
            via = value + b", 1.1 " + PSEUDONYM
        elif name == b"alt-svc" and context.alt_svc is not None:
            continue
        else:
            kept.append((name, value))
    kept.append((b"via", via if b"," in via else b"1.1 " + via))
    if context.alt_svc is not None:
        kept.append((b"alt-svc", context.alt_svc))
    return Response(response.status, kept)


def response_trailers(trailers: Sequence[Field]) -> Fields:
    return [field for field in trailers if field[0] not in HOP_BY_HOP]
