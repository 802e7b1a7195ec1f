"""Keys are agreed on alike by the compiled core and by its twin in Python."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

import quicedge.quic.key_exchange  # noqa: F401  registers the twins
from tests.support.twins import both

BOTH = pytest.mark.parametrize("agree", both("agree_x25519"))
Agree = Callable[[bytes], tuple[bytes, bytes]]


@BOTH
def test_the_peer_derives_the_same_secret(agree: Agree) -> None:
    key = X25519PrivateKey.generate()
    ours, secret = agree(key.public_key().public_bytes_raw())
    assert key.exchange(X25519PublicKey.from_public_bytes(ours)) == secret
    assert len(secret) == 32


@BOTH
def test_keys_are_used_once(agree: Agree) -> None:
    theirs = X25519PrivateKey.generate().public_key().public_bytes_raw()
    assert agree(theirs)[0] != agree(theirs)[0]


@BOTH
@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)])
def test_points_that_lead_to_a_secret_of_zeros_are_refused(agree: Agree, point: bytes) -> None:
    with pytest.raises(ValueError):
        agree(point)


@BOTH
@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_key_shares_of_another_length_are_refused(agree: Agree, size: int) -> None:
    with pytest.raises(ValueError):
        agree(b"\x09" * size)
