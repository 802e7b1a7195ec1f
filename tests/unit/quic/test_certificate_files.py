"""Files of certificates: a key that others can read is no secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from quicedge.quic.tls import CertificateError, load_certificate, read_certificate
from tests.support.certs import write_certificate


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o644, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    key.chmod(mode)
    with pytest.raises(CertificateError) as caught:
        load_certificate(cert, key)
    assert str(key) in str(caught.value)
    assert f"mode {mode:o}" in str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_of_its_owner_alone_is_taken(tmp_path: Path, mode: int) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    key.chmod(mode)
    assert load_certificate(cert, key).names == {"localhost"}


def test_a_key_shows_nowhere_in_text(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    pem = read_certificate(cert, key)
    assert b"PRIVATE KEY" in pem.key
    assert "PRIVATE" not in repr(pem) + str([pem])


def refusal(cert: Path, key: Path) -> str:
    with pytest.raises(CertificateError) as caught:
        load_certificate(cert, key)
    return str(caught.value)


def test_what_is_wrong_with_files_is_said_in_one_line(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    junk, none = tmp_path / "junk", tmp_path / "none"
    junk.write_text("words")
    junk.chmod(0o600)
    assert refusal(none, key) == f"{none}: No such file or directory"
    assert refusal(cert, none) == f"{none}: No such file or directory"
    assert refusal(junk, key) == f"{junk}: holds no PEM certificate"
    assert refusal(key, cert) == f"{key}: holds no PEM certificate; are cert and key swapped?"
    assert refusal(cert, junk).startswith(f"{junk}: holds no PEM private key")


def test_an_encrypted_key_is_refused_with_the_remedy(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    private = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    )
    assert f"openssl pkey -in {key}" in refusal(cert, key)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (
            rsa.generate_private_key(65537, 1024),
            "an RSA key of 1024 bits is too short; make one of",
        ),
        (ec.generate_private_key(ec.SECP256K1()), "TLS 1.3 has no signatures on secp256k1"),
    ],
)
def test_keys_that_every_client_refuses_are_refused_first(tmp_path: Path, key, words: str) -> None:
    cert, key_file = write_certificate(tmp_path, "localhost", key=key)
    assert refusal(cert, key_file).startswith(f"{cert}: {words}")


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())],
)
def test_keys_of_today_are_taken(tmp_path: Path, key) -> None:
    assert load_certificate(*write_certificate(tmp_path, "localhost", key=key)).names
