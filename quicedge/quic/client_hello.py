"""The ClientHello of TLS 1.3 (RFC 8446 section 4.1.2), parsed in one pass."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec
from aioquic import tls

from quicedge.config.limits import MAX_SERVER_NAME

_SSL_3, TLS_1_2, TLS_1_3 = 0x0300, 0x0303, 0x0304

SERVER_NAME = 0
SUPPORTED_GROUPS = 10
SIGNATURE_ALGORITHMS = 13
ALPN = 16
COMPRESS_CERTIFICATE = 27
PRE_SHARED_KEY = 41
EARLY_DATA = 42
SUPPORTED_VERSIONS = 43
PSK_KEY_EXCHANGE_MODES = 45
KEY_SHARE = 51

_TOO_LONG = "A vector of the ClientHello is longer than what holds it"
_WRONG_LENGTH = "A vector of the ClientHello has not the length of what holds it"
_SHORTEST_BINDER = 32
"""Bytes (RFC 8446 section 4.2.11)."""
_REMEMBERED_LENGTH = 128
"""Bytes of a list that is remembered at most."""

_EXTENSION = struct.Struct("!HH")
"""Type and length of an extension, group and length of a key share: 4 bytes."""
_HEAD = struct.Struct("!B3sH32s")
"""Message type and length, legacy version, random."""


class OfferedPsk(NamedTuple):
    """The first pre-shared key that a client offers (RFC 8446 section 4.2.11)."""

    identity: bytes
    obfuscated_age: int
    """Milliseconds modulo 2^32, with the ticket's `ticket_age_add` added."""
    binder: bytes
    binders_at: int
    """Offset of the binders in the message: a binder covers what precedes them."""


class ClientHello(msgspec.Struct):
    """A parsed ClientHello. Members are None if the extension is absent."""

    random: bytes
    session_id: bytes
    cipher_suites: tuple[int, ...]
    compression_methods: bytes
    server_name: str | None = None
    supported_groups: tuple[int, ...] | None = None
    signature_algorithms: tuple[int, ...] | None = None
    alpn_protocols: list[bytes] | None = None
    supported_versions: tuple[int, ...] | None = None
    key_exchange_modes: bytes | None = None
    key_shares: dict[int, bytes] | None = None
    """Public keys by group, in the client's order of preference."""
    certificate_compression: tuple[int, ...] | None = None
    """Algorithms that the client decompresses certificates with (RFC 8879)."""
    pre_shared_key: OfferedPsk | None = None
    early_data: bool = False
    others: dict[int, bytes] = {}
    """Extensions that TLS itself does not interpret, by type."""


def read_client_hello(message: bytes) -> ClientHello:
    """Parse a complete ClientHello message; raises `aioquic.tls.Alert`."""
    try:
        return _read(message)
    except (IndexError, struct.error):
        raise tls.AlertDecodeError("ClientHello is cut short") from None


def _read(message: bytes) -> ClientHello:
    _, _, version, random = _HEAD.unpack_from(message)
    # RFC 8446 section 4.2.1: the legacy version MUST NOT be used for negotiation; appendix D.5:
    # that of SSL 3.0 MUST be refused with a "protocol_version" alert.
    if version <= _SSL_3:
        raise tls.AlertProtocolVersion("ClientHello of SSL")
    session_id, at = _opaque(message, _HEAD.size, 1)
    suites, at = _opaque(message, at, 2)
    compression, at = _opaque(message, at, 1)
    hello = ClientHello(random, session_id, _uint16s(suites), compression)
    extensions, end = _opaque(message, at, 2)
    if end != len(message):
        raise tls.AlertDecodeError("ClientHello has bytes behind its extensions")
    found: dict[int, bytes] = {}
    at = end - len(extensions)
    while at < end:
        kind, size = _EXTENSION.unpack_from(message, at)
        start = at + 4
        at = start + size
        if at > end:
            raise tls.AlertDecodeError(_TOO_LONG)
        # RFC 8446 section 4.2: there MUST NOT be more than one extension of the same type.
        if kind in found:
            raise tls.AlertIllegalParameter(f"Extension {kind} is repeated")
        found[kind] = message[start:at]
    if PRE_SHARED_KEY in found:
        # RFC 8446 section 4.2.11: the pre_shared_key extension MUST be the last extension.
        if kind != PRE_SHARED_KEY:
            raise tls.AlertIllegalParameter("PreSharedKey is not the last extension")
        hello.pre_shared_key = _pre_shared_key(found.pop(PRE_SHARED_KEY), end)
    _take(hello, found)
    return hello


def _take(hello: ClientHello, found: dict[int, bytes]) -> None:
    """Interpret the extensions that TLS knows."""
    take = found.pop
    if (body := take(SERVER_NAME, None)) is not None:
        hello.server_name = _server_name(_all_of(body, 2))
    if (body := take(SUPPORTED_GROUPS, None)) is not None:
        hello.supported_groups = _list_of_uint16s(body, 2)
    if (body := take(SIGNATURE_ALGORITHMS, None)) is not None:
        hello.signature_algorithms = _list_of_uint16s(body, 2)
    if (body := take(ALPN, None)) is not None:
        hello.alpn_protocols = list(_opaques(_all_of(body, 2), least=1))
    if (body := take(SUPPORTED_VERSIONS, None)) is not None:
        hello.supported_versions = _list_of_uint16s(body, 1)
    if (body := take(PSK_KEY_EXCHANGE_MODES, None)) is not None:
        hello.key_exchange_modes = _all_of(body, 1)
    if (body := take(KEY_SHARE, None)) is not None:
        hello.key_shares = _key_shares(body)
    if (body := take(COMPRESS_CERTIFICATE, None)) is not None:
        hello.certificate_compression = _list_of_uint16s(body, 1)
    if (body := take(EARLY_DATA, None)) is not None:
        if body:
            raise tls.AlertDecodeError("EarlyData has content")
        hello.early_data = True
    hello.others = found


def _server_name(names: bytes) -> str:
    if names[0] != 0:
        raise tls.AlertIllegalParameter(f"ServerName has an unknown name type {names[0]}")
    # RFC 6066 section 3: the list MUST NOT contain more than one name of the same type.
    name = _all_of(names[1:], 2)
    # The name is kept, logged and listed for as long as its connection lives.
    if not 0 < len(name) <= MAX_SERVER_NAME:
        raise tls.AlertDecodeError(f"ServerName has {len(name)} bytes")
    if not name.isascii() or b"\0" in name:
        raise tls.AlertDecodeError("ServerName is not a name in ASCII")
    return name.decode("ascii")


def _key_shares(body: bytes) -> dict[int, bytes]:
    shares: dict[int, bytes] = {}
    at, end = 2, len(body)
    if int.from_bytes(body[:2], "big") != end - at:
        raise tls.AlertDecodeError(_WRONG_LENGTH)
    while at < end:
        group, size = _EXTENSION.unpack_from(body, at)
        start = at + 4
        at = start + size
        if at > end:
            raise tls.AlertDecodeError(_TOO_LONG)
        if not size:
            raise tls.AlertDecodeError("A key share is empty")
        # RFC 8446 section 4.2.8: clients MUST NOT offer multiple shares for the same group.
        if group in shares:
            raise tls.AlertIllegalParameter("Two key shares are of one group")
        shares[group] = body[start:at]
    return shares


def _pre_shared_key(body: bytes, end: int) -> OfferedPsk:
    identities, at = _opaque(body, 0, 2)
    identity, age_at = _opaque(identities, 0, 2)
    if not identity:
        raise tls.AlertDecodeError("PreSharedKey has an empty identity")
    ages = struct.Struct("!I")
    (age,) = ages.unpack_from(identities, age_at)
    count, next_at = 1, age_at + ages.size
    while next_at < len(identities):
        next_at = _opaque(identities, next_at, 2)[1] + ages.size
        count += 1
    binders = list(_opaques(_all_of(body[at:], 2), least=_SHORTEST_BINDER))
    # RFC 8446 section 4.2.11: one binder for each identity, in the same order.
    if len(binders) != count or next_at != len(identities):
        raise tls.AlertIllegalParameter("PreSharedKey has not one binder for each identity")
    return OfferedPsk(identity, age, binders[0], end - len(body) + at)


# --- vectors (RFC 8446 section 3.4) -------------------------------------------------------------


def _opaque(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    """The vector at `at` with a length prefix of `width` bytes, and the offset after it."""
    start = at + width
    end = start + int.from_bytes(data[at:start], "big")
    if end > len(data) or start > len(data):
        raise tls.AlertDecodeError(_TOO_LONG)
    return data[start:end], end


def _all_of(data: bytes, width: int) -> bytes:
    """The content of `data`, which must be exactly one vector, and not empty."""
    if len(data) <= width or int.from_bytes(data[:width], "big") != len(data) - width:
        raise tls.AlertDecodeError(_WRONG_LENGTH)
    return data[width:]


def _opaques(data: bytes, least: int) -> Iterator[bytes]:
    """Vectors of at least `least` bytes, each with a length prefix of one byte."""
    at = 0
    while at < len(data):
        value, at = _opaque(data, at, 1)
        if len(value) < least:
            raise tls.AlertDecodeError("A vector of the ClientHello is too short")
        yield value


def _list_of_uint16s(body: bytes, width: int) -> tuple[int, ...]:
    """The vector of 16-bit integers that an extension is."""
    if len(body) <= _REMEMBERED_LENGTH:
        return _remembered(body, width)
    return _uint16s(_all_of(body, width))


@lru_cache(maxsize=256)
def _remembered(body: bytes, width: int) -> tuple[int, ...]:
    """Most clients are of few kinds, and each kind says the same every time."""
    return _uint16s(_all_of(body, width))


def _uint16s(data: bytes) -> tuple[int, ...]:
    if len(data) % 2:
        raise tls.AlertDecodeError("extra bytes at the end of a block")
    return struct.unpack(f"!{len(data) // 2}H", data)
