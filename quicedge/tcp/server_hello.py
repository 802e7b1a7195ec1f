"""What a server's first flight says of the key exchange, which `ssl` does not tell before Python
3.15."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from quicedge.config.groups import GROUP_NUMBERS

_HANDSHAKE_RECORD = 0x16
_SERVER_HELLO, _SERVER_KEY_EXCHANGE = 2, 12
"""HandshakeType."""
_KEY_SHARE = 51
_NAMED_CURVE = 3
"""ECCurveType (RFC 8422 section 5.4)."""
_RETRY_RANDOM = hashlib.sha256(b"HelloRetryRequest").digest()
"""Of a HelloRetryRequest (RFC 8446 section 4.1.3)."""
_NAMES = {number: name for name, number in GROUP_NUMBERS.items()}


class KeyExchange(NamedTuple):
    """Of one flight."""

    group: str | None
    """By its registered name, or its number; None: no key is exchanged, or not in a group."""
    is_retry: bool
    """It is a HelloRetryRequest, which names the group that it asks for."""


_KNOWN = {number.to_bytes(2, "big"): KeyExchange(name, False) for number, name in _NAMES.items()}
_USUAL = slice(81, 89), bytes((0, 43, 0, 2, 3, 4, 0, _KEY_SHARE)), slice(91, 93)
"""How a ServerHello of TLS 1.3 that repeats a session ID of 32 bytes, as almost all clients send
one, goes on: supported_versions, then key_share. Where that is, what it is, and where its group."""


def key_exchange(flight: bytes) -> KeyExchange:
    """The key exchange of a server's flight, as OpenSSL writes it: whole messages in records, in
    the clear up to where TLS 1.3 begins to encrypt."""
    place, beginning, group = _USUAL
    if flight[place] == beginning and flight[11:43] != _RETRY_RANDOM:
        known = _KNOWN.get(flight[group])
        if known is not None:
            return known
    return _read(flight)


def _read(flight: bytes) -> KeyExchange:
    at = 0
    while at + 9 <= len(flight) and flight[at] == _HANDSHAKE_RECORD:
        end = min(len(flight), at + 5 + int.from_bytes(flight[at + 3 : at + 5], "big"))
        at += 5
        while at + 4 <= end:
            kind = flight[at]
            body = flight[at + 4 : at + 4 + int.from_bytes(flight[at + 1 : at + 4], "big")]
            at += 4 + len(body)
            if kind == _SERVER_HELLO and len(body) > 34:
                group = _key_share(body)
                if group is not None:
                    return KeyExchange(_name(group), body[2:34] == _RETRY_RANDOM)
            elif kind == _SERVER_KEY_EXCHANGE and body[:1] == bytes((_NAMED_CURVE,)):
                return KeyExchange(_name(int.from_bytes(body[1:3], "big")), False)
        at = end
    return KeyExchange(None, False)


def _key_share(hello: bytes) -> int | None:
    """The group in a ServerHello, which TLS 1.3 names there."""
    at = 34 + 1 + hello[34] + 3  # version, random, session ID, cipher suite, compression
    at += 2  # length of the extensions
    while at + 4 <= len(hello):
        size = int.from_bytes(hello[at + 2 : at + 4], "big")
        if int.from_bytes(hello[at : at + 2], "big") == _KEY_SHARE:
            return int.from_bytes(hello[at + 4 : at + 6], "big")
        at += 4 + size
    return None


def _name(group: int) -> str:
    return _NAMES.get(group) or f"0x{group:04x}"
