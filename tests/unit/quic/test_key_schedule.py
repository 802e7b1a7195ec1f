"""The key schedule against the trace of RFC 8448 section 3 and against `cryptography`'s HKDF."""

from __future__ import annotations

import pytest
from aioquic.tls import CipherSuite
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from quicedge.quic.key_schedule import KeySchedule, expand_label, extract

HANDSHAKE_SECRET = "1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac"
MAIN_SECRET = "18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919"
SHARED_SECRET = "8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d"


def test_the_secrets_of_rfc_8448() -> None:
    schedule = KeySchedule(CipherSuite.AES_128_GCM_SHA256)
    schedule.extract(None)
    schedule.extract(bytes.fromhex(SHARED_SECRET))
    assert schedule.secret.hex() == HANDSHAKE_SECRET
    schedule.extract(None)
    assert schedule.secret.hex() == MAIN_SECRET
    assert schedule.generation == 3


@given(
    st.sampled_from([hashes.SHA256(), hashes.SHA384()]),
    st.binary(min_size=32, max_size=48),
    st.sampled_from([b"quic key", b"derived", b"c hs traffic"]),
    st.binary(max_size=48),
    st.integers(1, 32),
)
def test_expanding_agrees_with_another_hkdf(
    algorithm: hashes.HashAlgorithm, secret: bytes, label: bytes, context: bytes, length: int
) -> None:
    name = b"tls13 " + label
    info = length.to_bytes(2) + len(name).to_bytes(1) + name + len(context).to_bytes(1) + context
    expected = HKDFExpand(algorithm, length, info).derive(secret)
    assert expand_label(algorithm, secret, label, context, length) == expected


def test_more_than_one_block_is_refused() -> None:
    with pytest.raises(ValueError, match="more than one block"):
        expand_label(hashes.SHA256(), b"s" * 32, b"quic key", b"", 33)


def test_initial_secret_of_rfc_9001() -> None:
    salt = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
    secret = extract(hashes.SHA256(), salt, bytes.fromhex("8394c8f03e515708"))
    client = expand_label(hashes.SHA256(), secret, b"client in", b"", 32)
    # RFC 9001 appendix A.1
    assert client.hex() == "c00cf151ca5be075ed0ebfb5c80323c42d6b7db67881289af4008f1f6c357aea"
