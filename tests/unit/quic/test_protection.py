"""Packet protection against the test vectors of RFC 9001 and 9369, and against aioquic's."""

from __future__ import annotations

import pytest
from aioquic.quic.crypto import CryptoPair
from aioquic.tls import CipherSuite
from hypothesis import given
from hypothesis import strategies as st

from quicedge.quic.connection.send_buffer import SendBuffer
from quicedge.quic.packet import VERSION_1, VERSION_2
from quicedge.quic.packet_cipher import decode_number
from quicedge.quic.protection import PacketKeys, initial_keys

CID = bytes.fromhex("8394c8f03e515708")
SUITES = [
    CipherSuite.AES_128_GCM_SHA256,
    CipherSuite.AES_256_GCM_SHA384,
    CipherSuite.CHACHA20_POLY1305_SHA256,
]


def keys_of(suite: CipherSuite, version: int = VERSION_1) -> PacketKeys:
    size = 48 if suite is CipherSuite.AES_256_GCM_SHA384 else 32
    return PacketKeys(suite, b"s" * size, version)


def test_the_servers_initial_packet_of_rfc_9001() -> None:
    """Appendix A.3."""
    header = bytes.fromhex("c1000000010008f067a5502a4262b50040750001")
    payload = bytes.fromhex(
        "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf739"
        "88cfc79825df566dc5430b9a045a1200130100002e00330024001d00209d3c94"
        "0d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00020304"
    )
    sealed = bytes.fromhex(
        "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a"
        "5816b6394100f37a1c69797554780bb38cc5a99f5ede4cf73c3ec2493a1839b3"
        "dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84"
        "022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc4"
        "2158407dd074ee"
    )
    _, server = initial_keys(CID, VERSION_1)
    assert server.cipher.seal_one(header, payload, 1) == sealed
    assert server.cipher.open_one(sealed, len(header) - 2, 0) == (0xC1, 1, payload)


def test_the_chacha20_packet_of_rfc_9001() -> None:
    """Appendix A.5."""
    secret = bytes.fromhex("9ac312a7f877468ebe69422748ad00a15443f18203a07d6060f688f30f21632b")
    keys = PacketKeys(CipherSuite.CHACHA20_POLY1305_SHA256, secret, VERSION_1)
    sealed = bytes.fromhex("4cfe4189655e5cd55c41f69080575d7999c25a5bfb")
    assert keys.cipher.seal_one(bytes.fromhex("4200bff4"), b"\x01", 654360564) == sealed


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2])
def test_initial_keys_are_aioquics(version: int) -> None:
    pair = CryptoPair()
    pair.setup_initial(cid=CID, is_client=True, version=version)
    client, server = initial_keys(CID, version)
    header = b"\xc3" + bytes(20)
    assert client.cipher.seal_one(header, bytes(100), 0) == pair.encrypt_packet(
        header, bytes(100), 0
    )
    sealed = server.cipher.seal_one(header, bytes(100), 0)
    assert pair.decrypt_packet(sealed, len(header) - 4, 0)[1] == bytes(100)


@pytest.mark.parametrize("suite", SUITES)
@given(
    data=st.binary(min_size=1, max_size=400),
    chunk=st.integers(1, 60),
    number=st.integers(0, 1 << 30),
    pn_length=st.integers(1, 4),
)
def test_a_run_is_sealed_and_opened_as_its_packets_are(
    suite: CipherSuite, data: bytes, chunk: int, number: int, pn_length: int
) -> None:
    cipher = keys_of(suite).cipher
    first = 0x40 | (pn_length - 1)
    payloads = [
        bytes((0x0D if at + chunk >= len(data) else 0x0C, 8))
        + (at | 1 << 31).to_bytes(4, "big")
        + data[at : at + chunk]
        for at in range(0, len(data), chunk)
    ]
    buffer = SendBuffer()
    buffer.write(data, fin=True)
    joined = cipher.seal_run(first, CID, number, 8, buffer, 0, len(data), chunk, False, True)
    singles = [
        cipher.seal_short(first, CID, number + index, payload)
        for index, payload in enumerate(payloads)
    ]
    assert joined == b"".join(singles)
    opened = cipher.open_run(0, singles, 0, CID, number, False)
    assert opened == (
        len(singles),
        len(joined),
        [(number + n, number + n + 1, first, payload, 0, 0) for n, payload in enumerate(payloads)],
    )


@pytest.mark.parametrize("suite", SUITES)
def test_a_changed_packet_and_another_phase_stay_sealed(suite: CipherSuite) -> None:
    keys = keys_of(suite)
    header = b"\x43" + CID + bytes(4)
    sealed = keys.cipher.seal_one(header, b"payload", 0)
    damaged = sealed[:-1] + bytes((sealed[-1] ^ 1,))
    updated = keys.next_phase().cipher.seal_one(b"\x47" + CID + b"\0\0\0\1", b"payload", 1)
    _, _, opened = keys.cipher.open_run(0, [damaged, updated, sealed], 0, CID, 0, True)
    assert [item[3] for item in opened] == [None, None, b"payload"]
    assert (opened[1][2] >> 2) & 1 == 1
    again = keys.next_phase().cipher.open_one(updated, 1 + len(CID), 0)
    assert again is not None
    assert again[2] == b"payload"


def test_packet_numbers_are_completed_as_appendix_a_3_says() -> None:
    assert decode_number(0x9B32, 2, 0xA82F30EA + 1) == 0xA82F9B32
