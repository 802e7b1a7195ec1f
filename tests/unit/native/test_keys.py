"""Keys are derived alike by the compiled core and by its twins in Python."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import quicedge.quic.hkdf  # noqa: F401  registers the twins
from tests.support.twins import both

PURE_HMAC, COMPILED_HMAC = both("hmac_sha2")
PURE_EXPAND, COMPILED_EXPAND = both("expand_block")
PURE_PACKET_KEYS, COMPILED_PACKET_KEYS = both("packet_keys")
SIZES = st.sampled_from([32, 48])


@given(SIZES, st.binary(max_size=200), st.binary(max_size=200))
def test_hmac_is_alike(size: int, key: bytes, message: bytes) -> None:
    mac = PURE_HMAC(size, key, message)
    assert COMPILED_HMAC(size, key, message) == mac
    assert len(mac) == size


@given(
    SIZES,
    st.binary(min_size=1, max_size=64),
    st.sampled_from([b"quic key", b"quicv2 hp", b"c hs traffic", b""]),
    st.binary(max_size=64),
    st.integers(0, 32),
)
def test_labels_are_expanded_alike(
    size: int, secret: bytes, label: bytes, context: bytes, length: int
) -> None:
    block = PURE_EXPAND(size, secret, label, context, length)
    assert COMPILED_EXPAND(size, secret, label, context, length) == block
    assert len(block) == length


@pytest.mark.parametrize("expand", [PURE_EXPAND, COMPILED_EXPAND])
def test_what_is_more_than_a_block_or_too_long_is_refused(expand: Callable[..., bytes]) -> None:
    with pytest.raises(ValueError, match="more than one block"):
        expand(32, b"s" * 32, b"quic key", b"", 33)
    with pytest.raises(ValueError, match="unknown hash"):
        expand(20, b"s" * 20, b"quic key", b"", 16)
    with pytest.raises(ValueError, match="too long"):
        expand(32, b"s" * 32, b"quic key", bytes(256), 16)


@given(
    SIZES.flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    st.sampled_from([b"quic ", b"quicv2 "]),
    st.sampled_from([16, 32]),
)
def test_keys_of_packets_are_derived_alike(secret: bytes, prefix: bytes, length: int) -> None:
    keys = PURE_PACKET_KEYS(secret, prefix, length)
    assert COMPILED_PACKET_KEYS(secret, prefix, length) == keys
    assert [*map(len, keys)] == [length, 12, length]


@pytest.mark.parametrize("derive", [PURE_PACKET_KEYS, COMPILED_PACKET_KEYS])
def test_the_length_of_a_secret_tells_its_hash(derive: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="unknown hash"):
        derive(b"s" * 31, b"quic ", 16)
