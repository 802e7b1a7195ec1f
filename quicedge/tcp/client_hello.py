"""What a ClientHello says that `ssl` does not tell."""

from __future__ import annotations

from collections.abc import Sequence

_SERVER_NAME = 0
"""ExtensionType (RFC 6066 section 3)."""
_ALPN = 16
"""ExtensionType (RFC 7301 section 3.1)."""
_RECORD_HEADER = 5
_MESSAGE_HEADER = 4
_SESSION_ID_AT = _MESSAGE_HEADER + 2 + 32
"""After version and random (RFC 8446 section 4.1.2)."""


def offered_protocols(data: bytes | bytearray) -> Sequence[bytes]:
    """The protocols of a connection's ALPN extension, as the client prefers them; none without it.

    `data`: what the client sent, from its first byte, and at least the ClientHello; OpenSSL has
    found no fault with it.
    """
    body = _extension(first_message(data), _ALPN)
    try:
        return () if body is None else _names(body[2:])
    except IndexError:
        return ()


def asked_name(hello: bytes) -> str | None:
    """The server name (SNI) in a ClientHello message; None without one, or none that can be read.

    OpenSSL has not seen it yet: nothing may rely on that it will read the same.
    """
    body = _extension(hello, _SERVER_NAME)
    if body is None or len(body) < _NAME_AT or body[2]:
        return None
    size = _uint16(body, 3)
    name = body[_NAME_AT : _NAME_AT + size]
    return name.decode("ascii") if name and name.isascii() else None


_NAME_AT = 5
"""After the length of the list, the type of the name and its length."""


def _extension(hello: bytes, wanted: int) -> bytes | None:
    try:
        at = _SESSION_ID_AT
        at += 1 + hello[at]  # session ID
        at += 2 + _uint16(hello, at)  # cipher suites
        at += 1 + hello[at]  # compression methods
        at += 2  # length of the extensions
        while at < len(hello):
            kind, size = _uint16(hello, at), _uint16(hello, at + 2)
            at += 4
            if kind == wanted:
                return hello[at : at + size]
            at += size
    except IndexError:
        pass
    return None


def first_message(data: bytes | bytearray) -> bytes:
    """The handshake message that begins a connection, which may span several records; empty if it
    is not complete."""
    message = bytearray()
    at = 0
    while at + _RECORD_HEADER <= len(data):
        size = _uint16(data, at + 3)
        at += _RECORD_HEADER
        message += data[at : at + size]
        at += size
        if len(message) >= _MESSAGE_HEADER:
            end = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER], "big")
            if len(message) >= end:
                return bytes(message[:end])
    return b""


def _names(encoded: bytes) -> list[bytes]:
    names = []
    at = 0
    while at < len(encoded):
        end = at + 1 + encoded[at]
        names.append(encoded[at + 1 : end])
        at = end
    return names


def _uint16(data: bytes | bytearray, at: int) -> int:
    return data[at] << 8 | data[at + 1]
