"""Requests for tunnels, in one form for all HTTP versions.

HTTP/1.1 asks for a tunnel with Upgrade (RFC 9110 section 7.8), HTTP/2 and HTTP/3 with extended
CONNECT (RFC 8441, RFC 9220). Inside the edge such a request is always an extended CONNECT: its
method is CONNECT, `Request.protocol` names the protocol in lower case, and it has no content.

`sec-websocket-key` is among its fields only if the client speaks HTTP/1.1 and thus expects
`sec-websocket-accept`: extended CONNECT uses neither (RFC 8441 section 5).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

from quicedge.config.limits import NEVER_TUNNELLED
from quicedge.http.grammar import TOKEN
from quicedge.http.message import Field, Fields, Request
from quicedge.http.validation import MessageError

WEBSOCKET = b"websocket"
"""RFC 6455, RFC 8441."""

_KEY = b"sec-websocket-key"
_ACCEPT = b"sec-websocket-accept"

# A base64-encoded value of 16 bytes                                  (RFC 6455 section 4.1)
_KEY_VALUE = re.compile(rb"[A-Za-z0-9+/]{22}==")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""

_NOT_OF_TUNNELS = frozenset(
    (b"connection", b"content-length", b"keep-alive", b"transfer-encoding", b"upgrade")
)


def tunnel_request(request: Request, upgrade: bytes) -> Request | None:
    """The request for a tunnel that an HTTP/1.1 request with an Upgrade field is.

    None: an ordinary request (RFC 9110 section 7.8: a server MAY ignore Upgrade). Raises
    MessageError if the opening handshake of a WebSocket is malformed.
    """
    if request.method != b"GET" or not request.ended or not upgrade:
        return None
    tokens = [token.strip().lower() for token in upgrade.split(b",")]
    protocol = WEBSOCKET if WEBSOCKET in tokens else tokens[0]
    if not is_tunnelled(protocol):
        return None
    if protocol == WEBSOCKET:
        keys = [value for name, value in request.fields if name == _KEY]
        if len(keys) != 1 or not _KEY_VALUE.fullmatch(keys[0]):
            # RFC 6455 section 4.2.1: the server MUST answer with an error such as 400.
            raise MessageError("sec-websocket-key is missing or malformed")
    return Request(
        b"CONNECT",
        request.scheme,
        request.authority,
        request.path,
        request.fields,
        None,
        False,
        protocol,
    )


def ordinary_request(request: Request) -> Request:
    """The HTTP/1.1 request that a request for a tunnel was, without its Upgrade field."""
    return Request(
        b"GET", request.scheme, request.authority, request.path, request.fields, None, True
    )


def is_tunnelled(protocol: bytes) -> bool:
    """Whether a protocol may be tunnelled at all: `name` or `name/version`, in lower case."""
    name, slash, version = protocol.partition(b"/")
    return (
        TOKEN.fullmatch(name) is not None
        and (not slash or TOKEN.fullmatch(version) is not None)
        and name.decode() not in NEVER_TUNNELLED
    )


def encode_key(nonce: bytes) -> bytes:
    """The `sec-websocket-key` of 16 random bytes."""
    return base64.b64encode(nonce)


def accept_value(key: bytes) -> bytes:
    """The `sec-websocket-accept` for a key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def expects_accept(request: Request) -> bool:
    """Whether the client has sent a key (HTTP/1.1)."""
    return any(name == _KEY for name, _ in request.fields)


def without_key(fields: Sequence[Field]) -> Fields:
    """Fields for an extended CONNECT, which uses no key."""
    return [field for field in fields if field[0] != _KEY]


def switched(fields: Sequence[Field], protocol: bytes, key: bytes | None) -> Fields:
    """Check a 101 response; returns its fields without those of HTTP/1.1 alone.

    `key`: the key that the edge has generated, None if the client did. Raises MessageError.
    """
    upgrade = [value.strip().lower() for name, value in fields if name == b"upgrade"]
    options = [
        option.strip().lower()
        for name, value in fields
        if name == b"connection"
        for option in value.split(b",")
    ]
    if upgrade != [protocol] or b"upgrade" not in options:
        raise MessageError("101 without connection: upgrade, or to another protocol")
    if any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in fields
    ):
        raise MessageError("101 with content")
    fields = opened(fields)
    if key is None:
        return fields
    accepts = [value for name, value in fields if name == _ACCEPT]
    if accepts != [accept_value(key)]:
        raise MessageError("sec-websocket-accept does not match the key")
    return [field for field in fields if field[0] != _ACCEPT]


def opened(fields: Sequence[Field]) -> Fields:
    """The fields of a response that opens a tunnel.

    RFC 9110 section 9.3.6: content-length and transfer-encoding in a 2xx response to CONNECT MUST
    be ignored.
    """
    return [field for field in fields if field[0] not in _NOT_OF_TUNNELS]


def switching_fields(request: Request, fields: Sequence[Field]) -> Fields:
    """The fields of the 101 response for an HTTP/1.1 client."""
    assert request.protocol is not None, "only requests for tunnels switch protocols"
    extra: Fields = [(b"connection", b"upgrade"), (b"upgrade", request.protocol)]
    if not any(name == _ACCEPT for name, _ in fields):
        extra += ((_ACCEPT, accept_value(value)) for name, value in request.fields if name == _KEY)
    return [*extra, *fields]
