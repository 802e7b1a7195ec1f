"""Clients that break the TLS handshake (RFC 8446, RFC 9001), and the alert they are closed with."""

from __future__ import annotations

from typing import Any

import pytest
from aioquic import tls
from aioquic.quic.connection import QuicConnection

from tests.support.hostile import Hostile, varints
from tests.support.world import CLIENT, NOW

HANDSHAKE = tls.Epoch.HANDSHAKE
UNEXPECTED_MESSAGE, HANDSHAKE_FAILURE = 0x10A, 0x128
DECODE_ERROR, DECRYPT_ERROR = 0x132, 0x133
PROTOCOL_VIOLATION = 0x0A


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
    ("member", "value"),
    [("_signature_algorithms", [0x0101]), ("_legacy_compression_methods", [7])],
)
def test_nothing_in_common(member: str, value: list[int]) -> None:
    hostile = hello_with(lambda context: setattr(context, member, value))
    assert hostile.greet().verdict == HANDSHAKE_FAILURE


def test_no_common_cipher_suite() -> None:
    hostile = Hostile(cipher_suites=[tls.CipherSuite.CHACHA20_POLY1305_SHA256])
    configuration = hostile.world.endpoint.settings.configuration
    configuration.cipher_suites = [tls.CipherSuite.AES_128_GCM_SHA256]
    assert hostile.greet().verdict == HANDSHAKE_FAILURE


def test_no_common_tls_version() -> None:
    hostile = hello_with(lambda context: setattr(context, "_supported_versions", [0x0303]))
    assert hostile.greet().verdict == 0x146


def test_a_hello_cut_short() -> None:
    hostile = Hostile()
    client = hostile.client
    client.datagrams_to_send(NOW)
    data = hostile.packet(crypto(b"\x01\0\0\x10" + bytes(16)), tls.Epoch.INITIAL)
    hostile.world.endpoint.receive(data, CLIENT, NOW)
    (hostile._server,) = hostile.world.endpoint.connections
    hostile.world.endpoint.flush(NOW)
    assert hostile.verdict == DECODE_ERROR
