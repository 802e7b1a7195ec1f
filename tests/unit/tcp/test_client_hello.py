"""The ALPN extension of a ClientHello, however its bytes are framed."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.tcp.client_hello import offered_protocols


def client_hello(protocols: Sequence[str]) -> bytes:
    """The first record of OpenSSL as a client."""
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def split(record: bytes, size: int) -> bytes:
    """The same message in records of at most `size` bytes."""
    body = record[5:]
    return b"".join(
        struct.pack("!BHH", 0x16, 0x0301, len(body[at : at + size])) + body[at : at + size]
        for at in range(0, len(body), size)
    )


@pytest.mark.parametrize("protocols", [["h2"], ["h2", "http/1.1"], ["x" * 255, "spdy/3.1"]])
def test_offered_protocols_are_read_in_order(protocols: list[str]) -> None:
    expected = [name.encode() for name in protocols]
    assert offered_protocols(client_hello(protocols)) == expected


def test_a_client_without_the_extension_offers_none() -> None:
    assert not offered_protocols(client_hello([]))


@pytest.mark.parametrize("size", [1, 4, 5, 100])
def test_a_message_in_several_records_is_read_as_one(size: int) -> None:
    hello = client_hello(["h2", "http/1.1"])
    assert offered_protocols(split(hello, size) + b"\x14\x03\x03\0\x01\x01") == [b"h2", b"http/1.1"]


@given(st.binary(max_size=200), st.integers(0, 600), st.integers(0, 600))
def test_no_input_makes_it_fail(noise: bytes, at: int, cut: int) -> None:
    hello = client_hello(["h2", "http/1.1"])
    offered_protocols(hello[:at] + noise + hello[at + len(noise) :])
    offered_protocols(hello[:cut])
