"""Clients that violate the TLS handshake (RFC 8446, RFC 9001), and the resulting alerts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.quic.connection import QuicConnection

from tests.support.hostile import Hostile, varints
from tests.support.world import CLIENT, NOW

HANDSHAKE = tls.Epoch.HANDSHAKE
UNEXPECTED_MESSAGE, HANDSHAKE_FAILURE = 0x10A, 0x128
DECODE_ERROR, DECRYPT_ERROR = 0x132, 0x133
ILLEGAL_PARAMETER, PROTOCOL_VERSION = 0x12F, 0x146
MISSING_EXTENSION, NO_APPLICATION_PROTOCOL = 0x16D, 0x178
PROTOCOL_VIOLATION = 0x0A

GROUPS, SIGNATURE_ALGORITHMS, ALPN, PRE_SHARED_KEY = 10, 13, 16, 41
SUPPORTED_VERSIONS, KEY_EXCHANGE_MODES, KEY_SHARE, TRANSPORT_PARAMETERS = 43, 45, 51, 57


def crypto(message: bytes, offset: int = 0) -> bytes:
    return varints(0x06, offset, len(message)) + message


def in_handshake() -> Hostile:
    """A client that has the server's flight and handshake keys, and has not finished."""
    hostile = Hostile().greet()
    client = hostile.client
    client._push_crypto_data = lambda: None  # type: ignore[method-assign]  # keeps its Finished
    for data in hostile.world.network.take():
        client.receive_datagram(data, ("server", 443), NOW)
    assert client._cryptos[HANDSHAKE].send.is_valid()
    return hostile


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\x05\0\0\0", UNEXPECTED_MESSAGE),  # EndOfEarlyData: RFC 9001 section 8.3
        (b"\x18\0\0\x01\0", UNEXPECTED_MESSAGE),  # KeyUpdate: RFC 9001 section 6
        (b"\x01\0\0\0", UNEXPECTED_MESSAGE),  # another ClientHello
        (b"\x14\0\0\x20" + bytes(32), DECRYPT_ERROR),  # a Finished of nothing
    ],
    ids=["EndOfEarlyData", "KeyUpdate", "ClientHello", "a false Finished"],
)
def test_messages_in_the_place_of_finished(message: bytes, code: int) -> None:
    assert in_handshake().send(crypto(message), HANDSHAKE).verdict == code


@pytest.mark.parametrize(
    "payload",
    [varints(0x0A, 0, 1) + b"x", varints(0x10, 9), varints(0x1E), varints(0x07, 1) + b"x",
     varints(0x1D, 0, 0), varints(0x19, 0), varints(0x1A) + bytes(8)],
)  # fmt: skip
def test_handshake_packets_hold_but_few_frames(payload: bytes) -> None:
    """RFC 9000 section 12.4 table 3; other frames MUST be PROTOCOL_VIOLATION."""
    assert in_handshake().send(payload, HANDSHAKE).verdict == PROTOCOL_VIOLATION


def test_reserved_bits_of_a_handshake_packet() -> None:
    hostile = in_handshake().send(varints(0x01), HANDSHAKE, reserved=0x0C)
    assert hostile.verdict == PROTOCOL_VIOLATION


def hello_with(change: Any) -> Hostile:
    """A client whose TLS context was changed before its hello."""
    hostile = Hostile()
    fresh = QuicConnection(configuration=hostile.client.configuration)
    initialize = fresh._initialize

    def changed(peer_cid: bytes) -> None:
        initialize(peer_cid)
        change(fresh.tls)

    fresh._initialize = changed  # type: ignore[method-assign]
    fresh.connect(("server", 443), NOW)
    hostile.client = fresh
    return hostile


@pytest.mark.parametrize(
    ("member", "value", "alert"),
    [
        ("_signature_algorithms", [0x0101], HANDSHAKE_FAILURE),
        ("_legacy_compression_methods", [7], ILLEGAL_PARAMETER),
        ("_legacy_compression_methods", [0, 7], ILLEGAL_PARAMETER),
        ("_supported_versions", [0x0303], PROTOCOL_VERSION),
    ],
)
def test_nothing_in_common(member: str, value: list[int], alert: int) -> None:
    hostile = hello_with(lambda context: setattr(context, member, value))
    assert hostile.greet().verdict == alert


def test_no_common_cipher_suite() -> None:
    hostile = Hostile(cipher_suites=[tls.CipherSuite.CHACHA20_POLY1305_SHA256])
    configuration = hostile.world.endpoint.settings.configuration
    configuration.cipher_suites = [tls.CipherSuite.AES_128_GCM_SHA256]
    assert hostile.greet().verdict == HANDSHAKE_FAILURE


def hello_edited(edit: Callable[[dict[int, bytes]], None]) -> Hostile:
    """A client whose hello had its extensions (by number) changed before it was sent."""
    write = tls.push_client_hello

    def push(buf: Buffer, hello: tls.ClientHello) -> None:
        whole = Buffer(capacity=4096)
        write(whole, hello)
        head = len(whole.data) - _extensions_length(whole.data) - 2
        extensions = dict(_extensions(whole.data[head + 2 :]))
        edit(extensions)
        listed = b"".join(
            kind.to_bytes(2) + len(value).to_bytes(2) + value for kind, value in extensions.items()
        )
        body = whole.data[4:head] + len(listed).to_bytes(2) + listed
        buf.push_bytes(b"\x01" + len(body).to_bytes(3) + body)

    with patch.object(tls, "push_client_hello", push):
        return Hostile().greet()


def _extensions_length(message: bytes) -> int:
    at = 38 + 1 + message[38]
    at += 2 + int.from_bytes(message[at : at + 2])
    at += 1 + message[at]
    return int.from_bytes(message[at : at + 2])


def _extensions(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        end = 4 + int.from_bytes(data[2:4])
        yield int.from_bytes(data[:2]), data[4:end]
        data = data[end:]


PSK = bytes.fromhex("0007000174000000050021") + b"\x20" + bytes(32)
SMALL_ORDER = bytes.fromhex("0024001d0020") + bytes(32)
EMPTY_SHARE = bytes.fromhex("0004001d0000")
ONE_GROUP_TWICE = bytes.fromhex("0048" + 2 * ("001d0020" + "09" * 32))
NOT_OFFERED = bytes.fromhex("0024001d0020") + b"\x09" * 32


@pytest.mark.parametrize(
    ("removed", "added", "alert"),
    [
        ((KEY_SHARE,), {}, MISSING_EXTENSION),
        ((GROUPS,), {}, MISSING_EXTENSION),
        ((SIGNATURE_ALGORITHMS,), {}, MISSING_EXTENSION),
        ((SUPPORTED_VERSIONS,), {}, PROTOCOL_VERSION),
        ((ALPN,), {}, NO_APPLICATION_PROTOCOL),
        ((ALPN,), {ALPN: b"\x00\x05\x04none"}, NO_APPLICATION_PROTOCOL),
        ((KEY_EXCHANGE_MODES,), {PRE_SHARED_KEY: PSK}, MISSING_EXTENSION),
        ((KEY_SHARE, GROUPS), {KEY_SHARE: b"\0\0", GROUPS: b"\0\2\0\1"}, HANDSHAKE_FAILURE),
        ((KEY_SHARE,), {KEY_SHARE: EMPTY_SHARE}, DECODE_ERROR),
        ((KEY_SHARE,), {KEY_SHARE: ONE_GROUP_TWICE}, ILLEGAL_PARAMETER),
        ((KEY_SHARE,), {KEY_SHARE: SMALL_ORDER}, ILLEGAL_PARAMETER),
        ((KEY_SHARE, GROUPS), {KEY_SHARE: NOT_OFFERED, GROUPS: b"\0\2\0\x17"}, ILLEGAL_PARAMETER),
        ((), {KEY_SHARE: b"\0\4\0\x1d\0\x20"}, DECODE_ERROR),
        ((TRANSPORT_PARAMETERS,), {}, MISSING_EXTENSION),
    ],
)  # fmt: skip
def test_extensions_that_must_be_there_and_make_sense(
    removed: tuple[int, ...], added: dict[int, bytes], alert: int
) -> None:
    def edit(extensions: dict[int, bytes]) -> None:
        for kind in removed:
            extensions.pop(kind, None)
        extensions.update(added)

    assert hello_edited(edit).verdict == alert


def test_a_hello_cut_short() -> None:
    hostile = Hostile()
    client = hostile.client
    client.datagrams_to_send(NOW)
    data = hostile.packet(crypto(b"\x01\0\0\x10" + bytes(16)), tls.Epoch.INITIAL)
    hostile.world.endpoint.receive(data, CLIENT, NOW)
    (hostile.server,) = hostile.world.endpoint.connections
    hostile.world.endpoint.flush(NOW)
    assert hostile.verdict == DECODE_ERROR
